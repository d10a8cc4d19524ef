"use strict";
// The data card: facts, labels, notes, skipped files, contact sheets.
Sfumato.view("data", (root, data, S) => {
  const outside = (rows) => rows.map((row) => row.map((cell) => S.outside(String(cell))));
  root.append(S.table(["", ""], outside(data.rows), "facts of the data"));
  if (data.labels.length) root.append(S.table(["label", "images"], outside(data.labels), "labels"));
  for (const { title, pictures } of data.sheets) {
    const shape = pictures.shape.slice(1);
    root.append(S.el("p", { class: "soft text" }, S.outside(title)), S.el("div", { class: "row tight" }, Array.from({ length: pictures.shape[0] }, (_, n) => S.paint(S.canvas(`${title}, image ${n}`, S.side(shape[2], 48), shape), pictures.row(n), "bytes"))));
  }
  if (data.notes.length) root.append(S.el("details", {}, S.el("summary", {}, `Notes (${data.notes.length})`), S.el("ul", {}, data.notes.map((note) => S.el("li", {}, S.outside(note))))));
  if (data.num_skipped) root.append(S.el("details", {}, S.el("summary", {}, `Skipped files (${S.whole(data.num_skipped)})`), S.table(["file", "reason"], outside(data.skipped), "skipped files")));
  return { table: () => ({ columns: ["name", "value"], rows: data.rows }) };
});
