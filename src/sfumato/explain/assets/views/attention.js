"use strict";
// Attention maps: what one position reads from all others.
Sfumato.view("attention", (root, data, S) => {
  const { layers, steps } = data;
  const [rows, across] = layers[0].size;
  S.define("query", (Math.floor(rows / 2) * across + Math.floor(across / 2)) / Math.max(1, rows * across - 1), (text) => Math.min(1, Math.max(0, Number(text) || 0)));
  S.define("attends", steps[Math.floor(steps.length / 2)], S.oneOf(steps));
  const values = Array.from({ length: 64 }, (_, i) => i / 63);
  const canvases = layers.map(({ name, size }) => S.canvas(`attention of ${name}`, S.side(size[1], 150), [1, ...size]));
  const shown = S.canvas("the image", S.side(S.shared.shape[2], 150));
  const place = ({ weights }) => Math.round(S.get("query") * (weights.shape[1] - 1));
  const draw = () => {
    const at = steps.indexOf(S.get("attends"));
    layers.forEach((layer, k) => {
      const [, queries, tokens] = layer.weights.shape, q = place(layer), start = (at * queries + q) * tokens;
      S.paint(canvases[k], Float32Array.from(layer.weights.data.subarray(start, start + tokens), (v) => v / 255), "ramp");
      const token = Math.round((q * (tokens - 1)) / Math.max(1, queries - 1)), context = canvases[k].getContext("2d");
      context.fillStyle = "#fff";
      context.fillRect(token % layer.size[1], Math.floor(token / layer.size[1]), 1, 1);
    });
    S.paint(shown, S.noised(0, S.get("attends")));
  };
  [...canvases, shown].forEach((canvas, k) => {
    canvas.classList.add("picks");
    canvas.addEventListener("pointerdown", (event) => {
      const box = canvas.getBoundingClientRect(), [height, width] = (layers[k] || layers[0]).size;
      const token = Math.floor(((event.clientY - box.top) / box.height) * height) * width + Math.floor(((event.clientX - box.left) / box.width) * width);
      S.set("query", token / Math.max(1, height * width - 1));
    });
  });
  root.append(
    S.controls(S.slider({ key: "query", label: "position", values, format: (v) => `${Math.round(100 * v)} %` }), S.choice({ key: "attends", label: "at", options: steps.map((t) => [t, `t = ${S.whole(t)}`]) })),
    S.el("div", { class: "row" }, S.tile(shown, "what the network sees: choose a pixel"), canvases.map((canvas, k) => S.tile(canvas, `${layers[k].name}, ${layers[k].size.join(" × ")} positions; white: the chosen one`))),
  );
  S.watch(["query", "attends"], draw);
  return { keys: ["query", "attends"], table: () => ({ columns: ["layer", "t", "query", "position", "weight"], rows: layers.flatMap((layer) => { const [, queries, tokens] = layer.weights.shape, at = steps.indexOf(S.get("attends")), q = place(layer); return Array.from({ length: tokens }, (_, i) => [layer.name, steps[at], q, i, layer.weights.data[(at * queries + q) * tokens + i] / 255]); }) }) };
});
