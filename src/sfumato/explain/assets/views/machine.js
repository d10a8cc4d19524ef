"use strict";
// The same seeds at the moments at which the training wrote grids.
Sfumato.view("machine", (root, data, S) => {
  const { images, tiles } = data, [moments, seeds, ...shape] = tiles.shape, size = shape.reduce((a, b) => a * b, 1), indices = images.map((_, i) => i);
  S.define("moment", moments - 1, S.integer(0, moments - 1));
  const canvases = Array.from({ length: seeds }, (_, n) => S.canvas(`seed ${n}`, S.side(shape[2], 84), shape));
  const draw = () => {
    const m = S.get("moment");
    canvases.forEach((canvas, n) => {
      S.paint(canvas, tiles.data.subarray((m * seeds + n) * size, (m * seeds + n + 1) * size), "bytes");
      canvas.setAttribute("aria-label", `sample ${n} after ${images[m]} images`);
    });
  };
  const row = (m) => S.el("div", { class: "strip" }, S.el("span", { class: "name text" }, `${S.whole(images[m])} images`),
    canvases.map((_, n) => S.tile(S.paint(S.canvas(`sample ${n} after ${images[m]} images`, 0, shape), tiles.data.subarray((m * seeds + n) * size, (m * seeds + n + 1) * size), "bytes"), "")));
  root.append(
    S.controls(S.slider({ key: "moment", label: "images seen", values: indices, format: (i) => S.whole(images[i]) }), S.player({ key: "moment", values: indices, seconds: 4 })),
    S.el("div", { class: "row small" }, canvases.map((canvas, n) => S.tile(canvas, `image ${n}`))),
    S.el("details", {}, S.el("summary", {}, "All moments at once"), S.el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "all moments" }, indices.map(row))),
  );
  S.watch(["moment"], draw);
  return { keys: ["moment"], table: () => ({ columns: ["grid", "images seen"], rows: images.map((n, i) => [i, n]) }) };
});
