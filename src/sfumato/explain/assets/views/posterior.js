"use strict";
// The posterior and the model's step at one moment, and at one pixel the two Gaussians and their KL.
Sfumato.view("posterior", (root, data, S) => {
  const moment = S.moment(), [channels, height, width] = S.shared.shape, side = S.side(width, 128);
  S.define("row", Math.floor(height / 2), S.integer(0, height - 1));
  S.define("column", Math.floor(width / 2), S.integer(0, width - 1));
  S.define("channel", 0, S.integer(0, channels - 1));
  const names = ["xₜ", "x₀", "mean of the posterior", "mean of the model", "KL by pixel"];
  const canvases = names.map((name) => S.canvas(name, side));
  const numbers = S.readout(["a, weight of xₜ", "b, weight of x₀", "β̃", "β", "variance of the model", "KL here, nats", "mean KL, bits/dim"]);
  const chart = S.chart({ label: "two Gaussians of one pixel", height: 230, x: { label: "value of the pixel at t − 1" }, y: { label: "density", low: 0 }, series: [] });
  const gauss = (x, m, v) => Math.exp((-((x - m) ** 2)) / (2 * v)) / Math.sqrt(2 * Math.PI * v);
  let kl = new Float32Array(S.size);

  const draw = () => {
    const { n, t, x0, fraction } = moment.now(), level = S.level(t), before = S.before(t), c = S.posterior(before, level);
    const x_t = S.mix(S.image(n), S.eps(n), level), truth = S.image(n), size = S.size;
    const first = before.variance === 0 || c.small <= 0, small = first ? c.large : c.small;
    const own = (i) => S.shared.variance === "small" ? small : fraction ? Math.exp(Math.log(small) + fraction[i] * (Math.log(c.large) - Math.log(small))) : c.large;
    const right = new Float32Array(size), model = new Float32Array(size);
    kl = new Float32Array(size);
    let sum = 0;
    for (let i = 0; i < size; i++) {
      right[i] = c.a * x_t[i] + c.b * truth[i];
      model[i] = c.a * x_t[i] + c.b * x0[i];
      const v = own(i), ratio = small / v;
      kl[i] = 0.5 * (ratio - 1 - Math.log(ratio) + (right[i] - model[i]) ** 2 / v);
      sum += kl[i];
    }
    const area = height * width, shown = new Float32Array(area), at = S.get("channel") * area + S.get("row") * width + S.get("column");
    for (let i = 0; i < size; i++) shown[i % area] += kl[i] / channels;
    const top = shown.reduce((a, b) => Math.max(a, b), 1e-12);
    [x_t, truth, right, model].forEach((values, k) => S.paint(canvases[k], values));
    S.paint(canvases[4], shown, "ramp", 1 / top);
    outline();
    const v = own(at), spread = 4.5 * Math.sqrt(Math.max(v, small)), middle = (right[at] + model[at]) / 2, reach = spread + Math.abs(right[at] - model[at]) / 2;
    const grid = Array.from({ length: 161 }, (_, i) => middle - reach + (i * reach) / 80);
    numbers.set(S.number(c.a, 4), S.number(c.b, 4), S.number(c.small), S.number(c.large), S.number(v), first ? "–" : S.number(kl[at]), first ? "this step is L₀" : S.number(sum / size / Math.LN2));
    chart.draw({
      label: `posterior mean ${S.number(right[at])}, model mean ${S.number(model[at])}, KL ${S.number(kl[at])} nats`,
      series: [
        { name: "posterior, knows x₀", x: grid, y: grid.map((x) => gauss(x, right[at], small)), colour: 0, dash: 0 },
        { name: "model, predicts x₀", x: grid, y: grid.map((x) => gauss(x, model[at], v)), colour: 1, dash: 1 },
      ],
    });
  };
  const outline = () => {
    const context = canvases[4].getContext("2d");
    context.fillStyle = "#fff";
    context.fillRect(S.get("column"), S.get("row"), 1, 1);
  };
  canvases.forEach((canvas) => {
    canvas.classList.add("picks");
    canvas.addEventListener("pointerdown", (event) => {
      const box = canvas.getBoundingClientRect();
      S.set("column", Math.floor(((event.clientX - box.left) / box.width) * width));
      S.set("row", Math.floor(((event.clientY - box.top) / box.height) * height));
    });
  });
  const costliest = () => {
    const at = kl.reduce((best, v, i) => (v > kl[best] ? i : best), 0), area = height * width;
    S.set("channel", Math.floor(at / area));
    S.set("row", Math.floor((at % area) / width));
    S.set("column", at % width);
  };
  const upto = (count) => Array.from({ length: count }, (_, i) => i);
  root.append(
    S.pictures({ count: moment.examined }),
    S.controls(moment.slider(), S.player({ key: "t", values: moment.steps })),
    S.el("div", { class: "row" }, canvases.map((canvas, k) => S.tile(canvas, names[k]))),
    S.controls(
      S.button("The costliest pixel", costliest),
      S.slider({ key: "row", label: "row of the pixel", values: upto(height) }), S.slider({ key: "column", label: "column", values: upto(width) }),
      channels > 1 ? S.slider({ key: "channel", label: "channel", values: upto(channels) }) : null,
    ),
    numbers.node, chart.node,
  );
  S.watch(["t", "image", "row", "column", "channel"], draw);
  return {
    keys: ["t", "image", "row", "column", "channel"],
    table: () => ({ columns: ["channel", "row", "column", "kl_nats"], rows: Array.from(kl, (v, i) => [Math.floor(i / (height * width)), Math.floor(i / width) % height, i % width, v]) }),
  };
});
