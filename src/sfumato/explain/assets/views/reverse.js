"use strict";
// The film of Algorithm 2: one scrubber for the sample, the guesses, and the line that is being executed.
Sfumato.view("reverse", (root, data, S) => {
  const { times, lines, x, x0, eps, decided } = data, [samples, frames] = x.shape, shape = x.shape.slice(2), size = shape[0] * shape[1] * shape[2];
  const indices = times.map((_, i) => i), side = S.side(shape[2], 112);
  S.define("frame", Math.floor(frames * 0.6), S.integer(0, frames - 1));
  const rows = Array.from({ length: samples }, (_, n) => ["the sample xₜ", "the guess at x₀", "the guess at ε", "decided when"].map((name) => S.canvas(`${name} of sample ${n}`, side, shape)));
  const list = S.el("ol", { class: "algorithm" }, lines.map((text) => S.el("li", { class: "text" }, text)));
  const numbers = S.readout(["t", "decided", "SNR"]);
  const draw = () => {
    const f = S.get("frame"), area = shape[1] * shape[2];
    rows.forEach((canvases, n) => {
      const at = (n * frames + f) * size, last = Math.min(f, eps.shape[1] - 1);
      S.paint(canvases[0], x.data.subarray(at, at + size), "bytes");
      S.paint(canvases[1], x0.data.subarray(at, at + size), "bytes");
      S.paint(canvases[2], eps.data.subarray((n * eps.shape[1] + last) * size, (n * eps.shape[1] + last + 1) * size), "bytes");
      S.paint(canvases[3], Float32Array.from(decided.row(n), (v) => v / frames), "ramp");
      canvases[0].setAttribute("aria-label", `sample ${n} at t = ${times[f]}`);
    });
    const done = decided.data.reduce((sum, v) => sum + (v <= f ? 1 : 0), 0) / decided.data.length;
    const level = times[f] ? S.level(times[f]) : null;
    numbers.set(`${S.whole(times[f])} of ${S.whole(S.shared.total)}`, `${Math.round(100 * done)} % of the pixels`, level ? S.decibels(level) : "no noise left");
    const now = f === 0 ? [0] : f === frames - 1 ? [4] : f % 2 ? [1, 3] : [1, 2];
    [...list.children].forEach((item, i) => (now.includes(i) ? item.setAttribute("aria-current", "step") : item.removeAttribute("aria-current")));
  };
  root.append(
    S.controls(S.slider({ key: "frame", label: "time t", values: indices, format: (i) => `t = ${S.whole(times[i])}` }), S.player({ key: "frame", values: indices, seconds: 8 })),
    numbers.node,
    ...rows.map((canvases) => S.el("div", { class: "row" }, S.tile(canvases[0], "the sample xₜ"), S.tile(canvases[1], "the guess at x₀"), S.tile(canvases[2], "the guess at ε"), S.tile(canvases[3], "decided: dark is early"))),
    list,
  );
  S.watch(["frame"], draw);
  const far = (n, f, array) => { let sum = 0; for (let i = 0; i < size; i++) sum += (array.data[(n * frames + f) * size + i] - array.data[(n * frames + frames - 1) * size + i]) ** 2; return Math.sqrt(sum / size) / 127.5; };
  return { keys: ["frame"], table: () => ({ columns: ["t", "sample", "distance of x_t from the image", "distance of the guess at x_0"], rows: times.flatMap((t, f) => rows.map((_, n) => [t, n, far(n, f, x), far(n, f, x0)])) }) };
});
