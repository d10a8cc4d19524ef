"use strict";
// Samples as buttons; the chosen one beside its nearest training image.
Sfumato.view("wall", (root, data, S) => {
  const { samples, nearest, labels, seed, distance, ratio, names } = data, num = samples.shape[0], shape = samples.shape.slice(1), side = S.side(shape[2], 128);
  S.define("chosen", 0, S.integer(0, num - 1));
  const buttons = Array.from({ length: num }, (_, n) => {
    const canvas = S.paint(S.canvas("", 0, shape), samples.row(n), "bytes");
    canvas.setAttribute("aria-hidden", "true");
    return S.el("button", { type: "button", class: "pick", "aria-label": `sample ${n} ${labels[n]}`, onclick: () => S.set("chosen", n) }, canvas);
  });
  const mine = S.canvas("the sample", side, shape), theirs = nearest && S.canvas("the nearest training image", side, shape), words = S.el("p", { class: "text" });
  const draw = () => {
    const n = S.get("chosen");
    buttons.forEach((button, k) => button.setAttribute("aria-pressed", String(k === n)));
    S.paint(mine, samples.row(n), "bytes");
    if (theirs) S.paint(theirs, nearest.row(n), "bytes");
    words.replaceChildren(`Image ${n} of seed ${seed}`, labels[n] ? ", " : "", S.outside(labels[n]),
      ...(theirs ? [`. Its nearest training image is `, S.outside(names[n]), `, ${S.number(distance[n])} of 255 away (root mean square); ${S.number(ratio[n])} of the distance to the next ones.`] : ["."]));
  };
  root.append(S.el("div", { class: "pictures wall" }, buttons), S.el("div", { class: "row" }, S.tile(mine, "the sample"), theirs ? S.tile(theirs, "the nearest training image") : null), words);
  S.watch(["chosen"], draw);
  return { keys: ["chosen"], table: () => ({ columns: ["sample", "label", "nearest", "distance", "ratio"], rows: labels.map((label, n) => [n, label, names ? names[n] : null, distance ? distance[n] : null, ratio ? ratio[n] : null]) }) };
});
