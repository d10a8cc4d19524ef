"use strict";
// The embedding's rows as a picture, and two squares of similarities.
Sfumato.view("embedding", (root, data, S) => {
  const { steps, rows, before, after } = data, side = Math.max(150, Math.min(260, steps.length * 4));
  const paint = (name, array) => {
    const canvas = S.canvas(name, side, array.shape.length === 2 ? [1, ...array.shape] : array.shape);
    S.paint(canvas, Float32Array.from(array.data, (v) => v / 255), "ramp");
    return canvas;
  };
  const squares = [paint("similarity before the learned layers", before), paint("similarity after the learned layers", after)];
  const numbers = S.readout(["times", "similarity before", "after"]);
  S.define("other", steps[Math.floor(steps.length / 2)], (text) => steps[S.nearest(steps, Number(text) || 0)]);
  const draw = () => {
    const a = S.nearest(steps, S.get("t")), b = S.nearest(steps, S.get("other")), at = a * steps.length + b;
    numbers.set(`t = ${S.whole(steps[a])} and ${S.whole(steps[b])}`, S.number((before.data[at] / 255) * 2 - 1), S.number((after.data[at] / 255) * 2 - 1));
    squares.forEach((canvas, k) => {
      S.paint(canvas, Float32Array.from([before, after][k].data, (v) => v / 255), "ramp");
      const context = canvas.getContext("2d");
      context.fillStyle = "#fff";
      context.fillRect(b, a, 1, 1);
    });
  };
  const wide = paint("sines and cosines of the time", rows);
  wide.style.height = `${side}px`;
  wide.style.width = `${Math.min(360, rows.shape[1] * 5)}px`;
  root.append(
    S.el("div", { class: "row" }, S.tile(wide, `${rows.shape[1]} sines and cosines; downwards t = ${S.whole(steps[0])} to ${S.whole(steps[steps.length - 1])}`),
      S.tile(squares[0], "alike before the learned layers: t to the right and down"), S.tile(squares[1], "alike after them; bright is alike")),
    S.controls(S.slider({ key: "t", label: "one time", values: steps }), S.slider({ key: "other", label: "the other", values: steps })),
    numbers.node,
  );
  S.watch(["t", "other"], draw);
  return { keys: ["t", "other"], table: () => ({ columns: ["t", ...steps.map((t) => `after, ${t}`)], rows: steps.map((t, i) => [t, ...steps.map((_, k) => (after.data[i * steps.length + k] / 255) * 2 - 1)]) }) };
});
