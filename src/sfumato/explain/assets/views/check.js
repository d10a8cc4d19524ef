"use strict";
// Advice on the collection, its figures, and contact sheets of what is typical, unusual or there twice.
Sfumato.view("check", (root, data, S) => {
  const { advice, rows, sheets, unreadable, num_unreadable: count } = data, open = advice.filter((item) => item.level !== "good"), fine = advice.filter((item) => item.level === "good");
  const outside = (list) => list.map((row) => row.map((cell) => S.outside(String(cell))));
  if (open.length) root.append(S.judged(open));
  if (fine.length) root.append(S.el("details", {}, S.el("summary", {}, `Nothing to decide (${fine.length})`), S.judged(fine)));
  root.append(S.table(["", ""], outside(rows), "figures of the collection"));
  for (const { title, pictures, captions, notes } of sheets) {
    const shape = pictures.shape.slice(1);
    root.append(S.el("h4", {}, title), S.el("div", { class: "row small" }, captions.map((name, n) => S.tile(S.paint(S.canvas(`${title}: ${name}`, 72, shape), pictures.row(n), "bytes"), S.el("span", {}, S.outside(name), notes[n] ? S.el("br") : null, S.outside(notes[n]))))));
  }
  if (count) root.append(S.el("details", {}, S.el("summary", {}, `Files that can't be read (${S.whole(count)})`), S.table(["file", "reason"], outside(unreadable), "files that can't be read")));
  return { table: () => ({ columns: ["level", "topic", "text"], rows: advice.map(({ level, title, text }) => [level, title, text]) }) };
});
