"use strict";
// The network's units in the order in which they ran, with their skips, and what one of them outputs.
Sfumato.view("network", (root, data, S) => {
  const { units, steps, images, maps } = data, indices = units.map((_, i) => i);
  S.define("unit", Math.max(0, units.findIndex((u) => u.height > 1)), S.integer(0, units.length - 1));
  S.define("level", steps[Math.floor(steps.length / 2)], S.oneOf(steps));
  const top = Math.max(...units.map((u) => u.height)), widest = Math.max(...units.map((u) => u.channels)), WIDTH = 760;
  const each = WIDTH / units.length, middle = 105, tall = (u) => 14 + 120 * Math.sqrt(u.height / top), wide = (u) => Math.max(4, (each - 5) * (0.35 + 0.65 * (u.channels / widest)));
  const centre = (i) => each * (i + 0.5);
  const drawing = S.svg("svg", { viewBox: `0 0 ${WIDTH} 250`, width: "100%", role: "group", "aria-label": "the modules of the network in order; choose one" });
  units.forEach((unit, i) => unit.skips.forEach((from) => {
    const y = middle + Math.max(tall(units[from]), tall(unit)) / 2, depth = 26 + ((i - from) / units.length) * 90;
    drawing.append(S.svg("path", { class: "skip", d: `M${centre(from)} ${middle + tall(units[from]) / 2}C${centre(from)} ${y + depth},${centre(i)} ${y + depth},${centre(i)} ${middle + tall(unit) / 2}` }));
  }));
  const boxes = units.map((unit, i) => {
    const h = tall(unit), w = wide(unit), box = S.svg("rect", { class: `unit ${unit.kind.includes("ttention") ? "c1" : unit.height === 1 ? "c4" : /Conv|Linear|Norm/.test(unit.kind) ? "c5" : /sample|Halve|Double/.test(unit.kind) ? "c2" : "c0"}`, x: centre(i) - w / 2, y: middle - h / 2, width: w, height: h, rx: 2 });
    box.append(S.svg("title", {}, `${unit.name}: ${unit.kind}`));
    box.addEventListener("click", () => S.set("unit", i));
    drawing.append(box);
    return box;
  });
  const kinds = [["c0", "residual or transformer block"], ["c1", "attention"], ["c2", "halve or double"], ["c4", "embedding"], ["c5", "convolution, dense, normalisation"]];
  const legend = S.el("div", { class: "legend" }, kinds.filter(([c]) => boxes.some((b) => b.classList.contains(c))).map(([c, name]) => S.el("span", { class: "key" }, S.svg("svg", { width: 14, height: 10, "aria-hidden": "true" }, S.svg("rect", { class: `unit ${c}`, width: 14, height: 10 })), name)), S.el("span", { class: "key" }, S.svg("svg", { width: 24, height: 10, "aria-hidden": "true" }, S.svg("path", { class: "skip", d: "M0 5H24" })), "skip connection"));
  const numbers = S.readout(["module", "kind", "output", "parameters", "FLOPs"]);
  const tiles = S.el("div", { class: "row small" });
  const draw = () => {
    const i = S.get("unit"), unit = units[i], n = Math.min(S.get("image"), images - 1), at = steps.indexOf(S.get("level"));
    boxes.forEach((box, k) => box.classList.toggle("chosen", k === i));
    numbers.set(unit.name, unit.kind, unit.height === 1 && unit.width === 1 ? `${S.whole(unit.channels)} numbers` : `${unit.channels} × ${unit.height} × ${unit.width}`, S.whole(unit.parameters), S.number(unit.flops));
    const stack = maps[i], [, times, channels, height, width] = stack.shape, area = height * width;
    tiles.replaceChildren(...Array.from({ length: channels }, (_, c) => {
      const start = ((n * times + at) * channels + c) * area;
      const values = Float32Array.from(stack.data.subarray(start, start + area), (v) => v / 127.5 - 1);
      return S.tile(S.paint(S.canvas(`channel ${c} of ${unit.name}`, S.side(width, 84), [1, height, width]), values, "signed"), area === 1 ? S.number(values[0]) : "");
    }));
  };
  root.append(
    drawing, legend,
    S.controls(S.slider({ key: "unit", label: "module", values: indices, format: (i) => units[i].name })),
    numbers.node,
    S.controls(images > 1 ? S.pictures({ count: images }) : null, S.choice({ key: "level", label: "at", options: steps.map((t) => [t, `t = ${S.whole(t)}`]) })),
    tiles,
  );
  S.watch(["unit", "image", "level"], draw);
  const columns = ["module", "kind", "channels", "height", "width", "parameters", "flops", "skips from"];
  return { keys: ["unit", "image", "level"], table: () => ({ columns, rows: units.map((u) => [u.name, u.kind, u.channels, u.height, u.width, u.parameters, u.flops, u.skips.map((k) => units[k].name).join(" ")]) }) };
});
