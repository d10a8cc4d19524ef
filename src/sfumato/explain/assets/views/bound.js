"use strict";
// The bound's terms by t, the images that cost most at a t, and the two ways to weigh an error of the noise.
Sfumato.view("bound", (root, data, S) => {
  const { steps, sides, worst, thumbnails } = data, shape = thumbnails.shape.slice(1);
  const columns = (array, k) => Array.from({ length: array.shape[0] }, (_, n) => array.data[n * steps.length + k]);
  const quantile = (list, q) => { const sorted = [...list].sort((a, b) => a - b); return sorted[Math.round(q * (sorted.length - 1))]; };
  const curves = Object.values(sides).map((side, k) => {
    const by = steps.map((_, i) => columns(side.bits, i));
    return {
      name: side.name, x: steps, y: by.map((list) => S.mean(list)), colour: k, dash: k,
      low: by.map((list) => Math.max(1e-9, quantile(list, 0.1))), high: by.map((list) => quantile(list, 0.9)),
    };
  });
  const chart = S.chart({ label: "bits per dimension of each step", height: 290, x: { label: "t", log: true }, y: { label: "bits per dimension of the step", log: true }, series: curves, pick: (t) => S.set("t", t) });
  const weights = S.chart({ label: "weights of an error of the noise", height: 230, x: { label: "t", log: true }, y: { label: "weight over its mean", log: true }, series: [] });
  const inner = steps.map((_, i) => i).slice(1), normal = (list) => { const mean = S.mean(list); return list.map((v) => v / mean); };
  const tiles = S.el("div", { class: "row small" });
  const head = S.el("p", { class: "soft text" });
  const shown = sides[data.shown];
  const draw = () => {
    const k = S.nearest(steps.map(Math.log), Math.log(Math.max(1, S.get("t")))), t = steps[k];
    chart.draw({ mark: { x: t, label: `t = ${S.whole(t)}` } });
    weights.draw({
      mark: { x: t, label: `t = ${S.whole(t)}` },
      series: [
        { name: "the bound", x: inner.map((i) => steps[i]), y: normal(inner.map((i) => data.weights.bound.data[i])), colour: 0 },
        { name: "L_simple of the paper", x: inner.map((i) => steps[i]), y: inner.map(() => 1), colour: 1 },
        { name: "this run's loss", x: inner.map((i) => steps[i]), y: normal(inner.map((i) => data.weights.run.data[i])), colour: 2, strong: true },
      ],
    });
    head.textContent = `The step from t = ${S.whole(t)} costs ${S.number(S.mean(columns(shown.bits, k)))} bits per dimension on average; the ${shown.name} that cost most:`;
    tiles.replaceChildren(...worst[k].map(([n, at]) => S.tile(
      S.paint(S.canvas(`an image that costs much at t = ${t}`, 84, shape), thumbnails.row(at), "bytes"),
      S.el("span", {}, `${S.number(shown.bits.data[n * steps.length + k])} bits `, S.outside(shown.captions[n])))));
  };
  const total = Object.values(sides).map(({ name, figures: f }) => [name, `${S.number(f.total, 4)} ± ${S.number(f.half, 2)}`, f.L_T, f.total - f.L_T - f.L_0, f.L_0]);
  root.append(
    S.table(["bits per dimension", "total", "L_T", "all Lₜ₋₁", "L₀"], total, "the bound's parts"),
    chart.node, S.controls(S.slider({ key: "t", label: "time t", values: steps, format: (t) => `t = ${S.whole(t)}` })), head, tiles, weights.node,
  );
  S.watch(["t"], draw);
  return {
    keys: ["t"],
    table: () => ({ columns: ["t", ...curves.map((c) => `bits, ${c.name}`), "weight in the bound", "weight in this run"], rows: steps.map((t, i) => [t, ...curves.map((c) => c.y[i]), data.weights.bound.data[i], data.weights.run.data[i]]) }),
  };
});
