"use strict";
// The four targets of one moment, and the network's prediction read as each of them.
Sfumato.view("targets", (root, data, S) => {
  const moment = S.moment(), { spaces, directions, factors, steps } = data, titles = { eps: "ε, the noise", x0: "x₀, the image", v: "v, the velocity", mu: "μ̃, the mean", refined: "the refined image", velocity: "ε − x₀, the flow's velocity" };
  const side = S.side(S.shared.shape[2], 96);
  const pairs = spaces.map((name) => [S.canvas(`target ${name}`, side), S.canvas(`prediction of ${name}`, side), S.el("span", { class: "under" })]);
  const chart = S.chart({ label: "what an error of the output becomes in the image", height: 250, x: { label: "t", log: true }, y: { label: "error of x₀ for an output wrong by 0.1", log: true, low: 1e-3, high: 100 }, series: [] });
  let rows = [];
  const draw = () => {
    const { n, t, x0 } = moment.now(), level = S.level(t), truth = S.image(n), eps = S.eps(n), x_t = S.mix(truth, eps, level);
    const at = S.nearest(steps, t);
    rows = spaces.map((name, k) => {
      const [p, q] = [directions.data[(2 * k) * steps.length + at], directions.data[(2 * k + 1) * steps.length + at]];
      const right = truth.map((v, i) => p * v + q * eps[i]);
      const model = truth.map((_, i) => p * x0[i] + (q * (x_t[i] - level.alpha * x0[i])) / level.sigma);
      const error = Math.sqrt(S.mean(Array.from(right, (v, i) => (v - model[i]) ** 2)));
      const scale = name === "x0" || name === "mu" ? 1 : 0.5;
      S.paint(pairs[k][0], right, "image", scale);
      S.paint(pairs[k][1], model, "image", scale);
      pairs[k][2].textContent = `error ${S.number(error)}`;
      return [t, name, error];
    });
    chart.draw({
      mark: { x: t, label: `t = ${S.whole(t)}` },
      series: spaces.map((name, k) => ({ name: titles[name] + (name === data.own ? " (this model)" : ""), x: steps, y: steps.map((_, i) => 0.1 / factors.data[k * steps.length + i]), dash: k, colour: k, strong: name === data.own })),
    });
  };
  root.append(
    S.pictures({ count: moment.examined }), S.controls(moment.slider(), S.player({ key: "t", values: moment.steps })),
    S.el("div", { class: "row" }, spaces.map((name, k) => S.el("div", { class: "pair" }, S.el("strong", { class: "text" }, titles[name]),
      S.tile(pairs[k][0], "target"), S.tile(pairs[k][1], "predicted"), pairs[k][2]))),
    chart.node,
  );
  S.watch(["t", "image"], draw);
  return { keys: ["t", "image"], table: () => ({ columns: ["t", "space", "root mean squared error"], rows }) };
});
