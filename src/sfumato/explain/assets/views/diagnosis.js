"use strict";
// Findings of the diagnosis with their figures and commands, the samples beside the data, the errors by noise level.
Sfumato.view("diagnosis", (root, data, S) => {
  const { findings, absent, beside, times, errors } = data, level = { 3: "trouble", 2: "mind", 1: "note" };
  root.append(findings.length ? S.judged(findings.map((finding) => ({ ...finding, level: level[finding.level] }))) : S.el("p", { class: "text" }, "Nothing wrong was found."));
  const chart = S.chart({
    label: "error of the guess at the image by noise level", height: 230, always: true, x: { label: "t, as a fraction of the chain", low: 0, high: 1 }, y: { label: "error, relative to a guess by pixel", log: true },
    series: [...errors.map(([name, values], k) => ({ name, x: times, y: values, dots: true, colour: k, dash: k })), { name: "learned nothing", x: [0, 1], y: [1, 1], colour: 5, dash: 4 }],
  });
  root.append(
    chart.node,
    S.el("details", {}, S.el("summary", {}, "The samples beside the data"), S.table(["", "samples", "data"], beside, "statistics of samples and data")),
    S.el("details", {}, S.el("summary", {}, `Looked for and not found (${absent.length})`), S.el("ul", {}, absent.map((words) => S.el("li", {}, words)))),
  );
  return { table: () => ({ columns: ["name", "samples", "data"], rows: beside }) };
});
