"use strict";
// The model card: facts, and every value of the configuration with where it is from.
Sfumato.view("model", (root, data, S) => {
  const outside = (rows) => rows.map((row) => row.map((cell) => S.outside(String(cell))));
  root.append(S.table(["", ""], outside(data.rows), "facts of the model"), S.el("details", {}, S.el("summary", {}, `Configuration, ${data.config.length} values`), S.table(["key", "value", "from"], outside(data.config), "configuration")));
  return { table: () => ({ columns: ["key", "value", "from"], rows: data.config }) };
});
