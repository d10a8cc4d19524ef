"use strict";
// Samplers from the same noise: pictures by evaluations, and two curves.
Sfumato.view("samplers", (root, data, S) => {
  const { rows, evaluations, grain, pictures } = data, [, , shown, ...shape] = pictures.shape, size = shape.reduce((a, b) => a * b, 1);
  S.define("sample", 0, S.integer(0, shown - 1));
  const canvases = rows.map((row) => evaluations.map((n) => S.canvas(`${row.sampler} with ${n} evaluations`, S.side(shape[2], 84), shape)));
  const draw = () => canvases.forEach((line, k) => line.forEach((canvas, e) => {
    const at = ((k * evaluations.length + e) * shown + S.get("sample")) * size;
    S.paint(canvas, pictures.data.subarray(at, at + size), "bytes");
  }));
  const axis = { label: "evaluations of the network", log: true, low: evaluations[0] * 0.8, high: evaluations[evaluations.length - 1] * 1.2, format: S.whole };
  const exact = rows.filter((row) => row.error);
  const error = S.chart({ label: "error by evaluations", height: 230, x: axis, y: { label: "error", log: true }, series: exact.map((row, k) => ({ name: row.sampler, x: row.evaluations, y: row.error, dots: true, colour: k, dash: k })) });
  const detail = rows.map((row, k) => ({ name: row.sampler, x: row.evaluations, y: row.grain, dots: true, colour: k, dash: k }));
  if (grain !== null) detail.push({ name: "training images", x: [evaluations[0] * 0.8, evaluations[evaluations.length - 1] * 1.2], y: [grain, grain], colour: 5, dash: 4 });
  const fine = S.chart({ label: "fine detail by evaluations", height: 230, x: axis, y: { label: "fine detail" }, series: detail });
  root.append(
    S.controls(S.slider({ key: "sample", label: "sample", values: Array.from({ length: shown }, (_, i) => i) })),
    S.el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "samples by sampler and evaluations" },
      S.el("table", { class: "bare" }, S.el("thead", {}, S.el("tr", {}, S.el("td"), evaluations.map((n) => S.el("th", { scope: "col" }, `${n} evaluations`)))),
        S.el("tbody", {}, rows.map((row, k) => S.el("tr", {}, S.el("th", { scope: "row" }, row.sampler), canvases[k].map((canvas) => S.el("td", {}, canvas))))))),
    S.el("div", { class: "two" }, error.node, fine.node),
  );
  S.watch(["sample"], draw);
  return { keys: ["sample"], table: () => ({ columns: ["sampler", "evaluations", "error", "fine detail"], rows: rows.flatMap((row) => evaluations.map((n, e) => [row.sampler, n, row.error && row.error[e], row.grain[e]])) }) };
});
