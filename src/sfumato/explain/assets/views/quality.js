"use strict";
// The verdict on the page's samples, and the stored results of evaluation.
Sfumato.view("quality", (root, data, S) => {
  const { views, results } = data, interval = (low, high) => (low === null ? "–" : `${S.number(low)} to ${S.number(high)}`);
  const verdict = views.map(([name, { value, low, high, baseline }]) => [`distance of the ${name}`, value, interval(low, high), baseline, "lower"]);
  const columns = ["measure", "value", "95 % interval", "real against real", "better"];
  if (verdict.length) root.append(S.table(columns, verdict, "the verdict's two distances"));
  for (const result of results) {
    const rows = result.measures.map(([name, value, low, high, floor, better, extractor]) => [name, value, interval(low, high), floor, better, S.outside(extractor)]);
    root.append(S.el("h4", {}, { quality: "Quality", bits: "Bits per dimension", memorisation: "Memorisation" }[result.kind] || "Result"));
    root.append(S.el("ul", {}, result.lines.map((line) => S.el("li", { class: "text" }, S.outside(line)))));
    if (rows.length) {
      root.append(S.table([...columns, "features"], rows, "quality"));
      root.append(S.el("p", { class: "soft" }, "These figures may be compared with others of the same features, the same number of images and the same data only, and not with published FIDs."));
    }
  }
  if (!verdict.length && !results.length) root.append(S.el("p", { class: "soft" }, "Nothing was measured."));
  return { table: () => ({ columns, rows: [...verdict, ...results.flatMap(({ measures }) => measures.map(([name, value, low, high, floor, better]) => [name, value, interval(low, high), floor, better]))] }) };
});
