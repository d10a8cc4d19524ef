"use strict";
// One noisy image at several levels, and what each set of weights makes of it.
Sfumato.view("checkpoints", (root, data, S) => {
  const { steps, names, noisy, guesses } = data, shape = noisy.shape.slice(1), size = shape.reduce((a, b) => a * b, 1);
  const line = (name, at) => S.el("div", { class: "strip" }, S.el("span", { class: "name text" }, name), steps.map((t, k) => S.tile(S.paint(S.canvas(`${name}, t = ${t}`, 0, shape), at(k), "bytes"), `t = ${S.whole(t)}`)));
  root.append(S.el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "guesses by checkpoint and time" },
    line("what the network sees", (k) => noisy.row(k)),
    names.map((name, n) => line(name, (k) => guesses.data.subarray((n * steps.length + k) * size, (n * steps.length + k + 1) * size)))));
  return { table: () => ({ columns: ["weights", ...steps.map((t) => `t = ${t}: mean square of the change to the last row`)], rows: names.map((name, n) => [name, ...steps.map((_, k) => { let sum = 0; for (let i = 0; i < size; i++) sum += (guesses.data[(n * steps.length + k) * size + i] - guesses.data[((names.length - 1) * steps.length + k) * size + i]) ** 2; return sum / size / 127.5 ** 2; })]) }) };
});
