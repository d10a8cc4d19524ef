"use strict";
// Two distances of the same two Gaussians, by t, and their running fraction of the sum.
Sfumato.view("distances", (root, data, S) => {
  const { steps, kl, wasserstein, fractions } = data, relative = (list) => { const top = Math.max(...list); return list.map((v) => v / top); };
  const x = { label: "t", log: true };
  const one = S.chart({ label: "distance by t", height: 230, x, y: { label: "relative to its largest value", log: true }, series: [{ name: "KL", x: steps, y: relative(kl), colour: 0, dash: 0 }, { name: "Wasserstein, squared", x: steps, y: relative(wasserstein), colour: 1, dash: 1 }] });
  const two = S.chart({ label: "fraction of the sum up to t", height: 230, x, y: { label: "fraction of the sum up to t", low: 0, high: 1 }, series: [{ name: "KL", x: steps, y: fractions[0], colour: 0, dash: 0 }, { name: "Wasserstein, squared", x: steps, y: fractions[1], colour: 1, dash: 1 }] });
  root.append(S.el("div", { class: "two" }, one.node, two.node));
  return { table: () => ({ columns: ["t", "KL, bits", "Wasserstein squared", "fraction of KL", "fraction of Wasserstein"], rows: steps.map((t, i) => [t, kl[i], wasserstein[i], fractions[0][i], fractions[1][i]]) }) };
});
