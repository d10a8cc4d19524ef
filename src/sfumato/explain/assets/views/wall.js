"use strict";
// Samples as buttons; the chosen one beside its nearest training image; the stored results of evaluation.
Sfumato.view("wall", (root, data, S) => {
  const { samples, nearest, labels, seed, distance, ratio, names, results } = data, num = samples.shape[0], shape = samples.shape.slice(1), side = S.side(shape[2], 128);
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
  for (const result of results) {
    const rows = result.measures.map(([name, value, low, high, floor, extractor]) => [name, value, low === null ? "–" : `${S.number(low)} to ${S.number(high)}`, floor, S.outside(extractor)]);
    root.append(S.el("h4", {}, { quality: "Quality", bits: "Bits per dimension", memorisation: "Memorisation" }[result.kind] || "Result"));
    root.append(rows.length ? S.table(["measure", "value", "95 % interval", "real against real", "features"], rows, "quality") : S.el("pre", { tabindex: 0 }, result.text));
    if (rows.length) root.append(S.el("p", { class: "soft" }, "These figures may be compared with others of the same features, the same number of images and the same data only, and not with published FIDs."));
  }
  S.watch(["chosen"], draw);
  return { keys: ["chosen"], table: () => ({ columns: ["sample", "label", "nearest", "distance", "ratio"], rows: labels.map((label, n) => [n, label, names ? names[n] : null, distance ? distance[n] : null, ratio ? ratio[n] : null]) }) };
});
