"use strict";
// The images that cost most and least, and the distribution of the cost.
Sfumato.view("ranking", (root, data, S) => {
  const shape = data.most.pictures.shape.slice(1), side = S.side(shape[2], 84);
  const sheet = ({ pictures, cost, names }) => S.el("div", { class: "row small" }, cost.map((value, n) => S.tile(S.paint(S.canvas(`image with a cost of ${S.number(value)}`, side, shape), pictures.row(n), "bytes"), S.el("span", {}, `${S.number(value)} × the mean `, S.outside(names[n])))));
  const bins = 30, low = data.all[0], span = Math.max(1e-9, data.all[data.all.length - 1] - low), counts = Array(bins).fill(0);
  for (const v of data.all) counts[Math.min(bins - 1, Math.floor(((v - low) / span) * bins))]++;
  const chart = S.chart({ label: "distribution of the cost", height: 190, x: { label: "cost, relative to the mean image" }, y: { label: "images", low: 0 }, series: [{ name: "images", x: counts.map((_, i) => low + ((i + 0.5) * span) / bins), y: counts, bars: span / bins, colour: 0 }] });
  root.append(S.el("h4", {}, "They cost most"), sheet(data.most), S.el("h4", {}, "They cost least"), sheet(data.least), chart.node);
  return { table: () => ({ columns: ["end", "image", "cost"], rows: ["most", "least"].flatMap((end) => data[end].names.map((name, n) => [end, name, data[end].cost[n]])) }) };
});
