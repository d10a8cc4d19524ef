"use strict";
// One training example, line by line of Algorithm 1.
Sfumato.view("step", (root, data, S) => {
  const moment = S.moment(), { lines, spaces, space, own, weights, recent } = data, side = S.side(S.shared.shape[2], 96);
  S.define("line", 4, S.integer(0, lines.length - 1));
  const names = ["x₀, the image", "ε, the noise", "xₜ, what the network sees", "the guess at ε", "the squared error", "the guess at x₀"];
  const canvases = names.map((name) => S.canvas(name, side)), tiles = canvases.map((canvas, k) => S.tile(canvas, names[k]));
  const from = [1, 3, 4, 4, 4, 4];
  const list = S.el("ol", { class: "algorithm" }, lines.map((text, k) => S.el("li", { class: "text" }, S.button(text, () => S.set("line", k)))));
  const numbers = S.readout(["t", "√ᾱ", "√(1−ᾱ)", "error of ε, mean square", `error of ${space}`, "weight in this run", "this run's loss near this t"]);
  const draw = () => {
    const { n, k, t, x0 } = moment.now(), level = S.level(t), truth = S.image(n), eps = S.eps(n), x_t = S.mix(truth, eps, level), area = S.shared.shape[1] * S.shared.shape[2];
    const guess = x_t.map((v, i) => (v - level.alpha * x0[i]) / level.sigma), errors = guess.map((v, i) => (v - eps[i]) ** 2), plane = new Float32Array(area);
    errors.forEach((v, i) => { plane[i % area] += v / S.shared.shape[0]; });
    const top = plane.reduce((a, b) => Math.max(a, b), 1e-9), count = moment.steps.length;
    S.paint(canvases[0], truth);
    S.paint(canvases[1], eps, "image", 0.5);
    S.paint(canvases[2], x_t);
    S.paint(canvases[3], guess, "image", 0.5);
    S.paint(canvases[4], plane, "ramp", 1 / top);
    S.paint(canvases[5], x0);
    const [p, q] = [spaces[space].data[k], spaces[space].data[count + k]];
    const inSpace = S.mean(Array.from(x0, (v, i) => (p * (v - truth[i]) + q * (guess[i] - eps[i])) ** 2));
    const bucket = Math.min(9, Math.ceil((t / S.shared.total) * 10) - 1);
    numbers.set(S.whole(t), S.number(level.alpha), S.number(level.sigma), S.number(S.mean(Array.from(errors))), S.number(inSpace), S.number(weights.data[k]), recent.length ? S.number(recent[bucket]) : "–");
    const line = S.get("line");
    tiles.forEach((tile, i) => { tile.style.visibility = line >= from[i] || line === 0 ? "visible" : "hidden"; });
    [...list.children].forEach((item, i) => item.firstChild.toggleAttribute("aria-current", i === line));
  };
  const another = () => {
    const draws = S.normals(4, Date.now() % 1e6, { purpose: 11 });
    S.set("image", Math.floor(Math.abs(draws[0] * 1e4)) % moment.examined);
    S.set("t", moment.steps[Math.floor(Math.abs(draws[1] * 1e4)) % moment.steps.length]);
    S.set("line", 4);
  };
  root.append(
    list,
    S.controls(S.button("◀ Line before", () => S.set("line", S.get("line") - 1)), S.button("Next line ▶", () => S.set("line", S.get("line") + 1)), S.player({ key: "line", values: lines.map((_, i) => i), seconds: 9 }), S.button("Another example", another)),
    S.el("div", { class: "row" }, tiles),
    S.controls(moment.slider()), S.pictures({ count: moment.examined }), numbers.node,
    own === "eps" ? null : S.el("p", { class: "soft text" }, `The network's output is '${own}'; the guess at ε is the same prediction, read as noise.`),
  );
  S.watch(["t", "image", "line"], draw);
  return { keys: ["t", "image", "line"], table: () => ({ columns: ["t", "weight in this run"], rows: moment.steps.map((t, k) => [t, weights.data[k]]) }) };
});
