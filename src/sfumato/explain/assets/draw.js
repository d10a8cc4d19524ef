"use strict";
// Pictures: images on canvases, charts as SVG. Colours come from the style sheet, so that they follow the theme.
(() => {
  const S = Sfumato;

  // ---- images -------------------------------------------------------------------------------------------------
  /** A canvas of an image's own pixels, enlarged without blur. */
  S.canvas = (label, side = 0, shape = S.shared.shape) => {
    const [, height, width] = shape.length === 3 ? shape : [1, ...shape];
    const node = S.el("canvas", { width, height, role: "img", "aria-label": label, class: "pixels" });
    if (side) node.style.width = `${side}px`;
    return node;
  };
  /** The width on the page of an image of so many pixels: a whole multiple near the wished one. */
  S.side = (pixels, wished) => (pixels > wished ? wished : Math.max(1, Math.round(wished / pixels)) * pixels);
  const shown = (value) => Math.round(Math.min(1, Math.max(-1, value)) * 127.5 + 127.5);
  /** Two colours that stay apart for every kind of colour vision: blue below zero, orange above. */
  const signed = (v) => (v < 0 ? [255 + 255 * v * 0.95, 255 + 155 * v * 0.75, 255 + 60 * v] : [255 - 40 * v, 255 - 150 * v, 255 - 245 * v]);
  /** Dark blue over green to yellow, in even steps of brightness (after viridis). */
  const RAMP = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];
  S.ramp = (v) => {
    const at = Math.min(1, Math.max(0, v)) * (RAMP.length - 1), k = Math.min(RAMP.length - 2, Math.floor(at));
    return RAMP[k].map((c, i) => c + (RAMP[k + 1][i] - c) * (at - k));
  };
  /** Paint planes (C, H, W): `image` for -1 .. 1, `bytes` for 0 .. 255, `signed` and `ramp` for the first plane. */
  S.paint = (canvas, values, mode = "image", scale = 1) => {
    const { width, height } = canvas, area = width * height, planes = values.length / area;
    const context = canvas.getContext("2d"), picture = context.createImageData(width, height), out = picture.data;
    const tone = mode === "bytes" ? (v) => v : (v) => shown(v * scale);
    for (let i = 0; i < area; i++) {
      let colour;
      if (mode === "signed") colour = signed(Math.min(1, Math.max(-1, values[i] * scale)));
      else if (mode === "ramp") colour = S.ramp(values[i] * scale);
      else colour = planes >= 3 ? [tone(values[i]), tone(values[area + i]), tone(values[2 * area + i])] : Array(3).fill(tone(values[i]));
      out.set(colour, 4 * i);
      out[4 * i + 3] = 255;
    }
    context.putImageData(picture, 0, 0);
    return canvas;
  };
  /** A tile: a canvas over a line of text. */
  S.tile = (canvas, text, attributes = {}) =>
    S.el("div", { ...attributes, class: `tile ${attributes.class || ""}` }, canvas, S.el("span", { class: "under" }, text));

  // ---- charts -------------------------------------------------------------------------------------------------
  const DASHES = ["", "7 4", "2 3", "10 3 2 3", "14 4", "1 4", "5 2 1 2"];
  const nice = (span) => {
    const power = 10 ** Math.floor(Math.log10(span)), part = span / power;
    return (part < 1.5 ? 1 : part < 3.5 ? 2 : part < 7.5 ? 5 : 10) * power;
  };
  function ticks(low, high, log, most) {
    if (log) {
      const list = [], a = Math.ceil(Math.log10(low) - 1e-9), b = Math.floor(Math.log10(high) + 1e-9);
      const stride = Math.max(1, Math.ceil((b - a + 1) / most));
      for (let e = a; e <= b; e += stride) list.push(10 ** e);
      if (list.length > 2) return list;
      const finer = [];
      for (let e = a - 1; e <= b; e++) for (const m of [1, 2, 5]) if (m * 10 ** e >= low * 0.999 && m * 10 ** e <= high * 1.001) finer.push(m * 10 ** e);
      return finer;
    }
    const step = nice((high - low) / most), list = [];
    for (let v = Math.ceil(low / step - 1e-9) * step; v <= high + 1e-9 * step; v += step) list.push(Math.abs(v) < step * 1e-9 ? 0 : v);
    return list;
  }
  /**
   * A line chart that follows its container's width.
   * spec: {x: {label, log, low, high}, y: the same, series: [{name, x, y, colour, low, high, strong, points, fill}],
   *        mark: {x, label}, pick: (x) => ..., label, height}
   * Returns {node, draw(spec)}: draw again with what has changed.
   */
  S.chart = (spec) => {
    const node = S.el("div", { class: "chart" });
    let current = spec, width = 0;
    const draw = (changes) => {
      current = { ...current, ...changes };
      width = Math.min(820, Math.max(280, node.clientWidth || 640));
      node.replaceChildren(plot(current, width), legend(current));
    };
    new ResizeObserver(() => { if (Math.abs((node.clientWidth || 640) - width) > 8) draw({}); }).observe(node);
    draw({});
    return { node, draw };
  };
  function extent(spec, axis, other) {
    const own = spec[axis], list = [];
    for (const line of spec.series) {
      for (const values of [line[axis], axis === "y" ? line.low : null, axis === "y" ? line.high : null]) {
        for (const v of values || []) if (Number.isFinite(v) && (!own.log || v > 0)) list.push(v);
      }
    }
    let low = own.low ?? list.reduce((a, b) => Math.min(a, b), Infinity);
    let high = own.high ?? list.reduce((a, b) => Math.max(a, b), -Infinity);
    if (!Number.isFinite(low) || !Number.isFinite(high)) [low, high] = own.log ? [0.1, 1] : [0, 1];
    if (low === high) [low, high] = own.log ? [low / 2, high * 2] : [low - 0.5, high + 0.5];
    return [low, high];
  }
  function plot(spec, width) {
    const height = spec.height || 250, left = 62, right = 14, top = 12, bottom = 46;
    const [x0, x1] = extent(spec, "x"), [y0, y1] = extent(spec, "y");
    const scale = (log, a, b, from, to) => (v) => {
      const [p, q, r] = log ? [Math.log(Math.max(v, 1e-300)), Math.log(a), Math.log(b)] : [v, a, b];
      return from + ((p - q) / (r - q)) * (to - from);
    };
    const px = scale(spec.x.log, x0, x1, left, width - right), py = scale(spec.y.log, y0, y1, height - bottom, top);
    const inside = (v) => Math.min(height - bottom, Math.max(top, v));
    const root = S.svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": spec.label });
    for (const v of ticks(y0, y1, spec.y.log, 5)) {
      root.append(S.svg("line", { class: "grid", x1: left, x2: width - right, y1: py(v), y2: py(v) }));
      root.append(S.svg("text", { class: "tick", x: left - 7, y: py(v) + 4, "text-anchor": "end" }, (spec.y.format || S.number)(v)));
    }
    for (const v of ticks(x0, x1, spec.x.log, width < 420 ? 4 : 7)) {
      root.append(S.svg("line", { class: "grid", x1: px(v), x2: px(v), y1: height - bottom, y2: height - bottom + 5 }));
      root.append(S.svg("text", { class: "tick", x: px(v), y: height - bottom + 18, "text-anchor": "middle" }, (spec.x.format || S.number)(v)));
    }
    root.append(S.svg("line", { class: "axis", x1: left, x2: width - right, y1: height - bottom, y2: height - bottom }));
    root.append(S.svg("text", { class: "axis-name", x: (left + width - right) / 2, y: height - 8, "text-anchor": "middle" }, spec.x.label));
    root.append(S.svg("text", { class: "axis-name", transform: `translate(13 ${(top + height - bottom) / 2}) rotate(-90)`, "text-anchor": "middle" }, spec.y.label));
    spec.series.forEach((line, k) => series(root, line, k, px, inside, py));
    if (spec.mark && spec.mark.x >= Math.min(x0, x1) && spec.mark.x <= Math.max(x0, x1)) {
      const x = px(spec.mark.x), flip = x > width - 110;
      root.append(S.svg("line", { class: "mark", x1: x, x2: x, y1: top, y2: height - bottom }));
      root.append(S.svg("text", { class: "tick mark-name", x: x + (flip ? -5 : 5), y: top + 10, "text-anchor": flip ? "end" : "start" }, spec.mark.label));
    }
    if (spec.pick) {
      root.classList.add("picks");
      root.addEventListener("pointerdown", (event) => {
        const box = root.getBoundingClientRect(), part = ((event.clientX - box.left) * (width / box.width) - left) / (width - right - left);
        const p = Math.min(1, Math.max(0, part));
        spec.pick(spec.x.log ? Math.exp(Math.log(x0) + p * (Math.log(x1) - Math.log(x0))) : x0 + p * (x1 - x0));
      });
    }
    return root;
  }
  function series(root, line, k, px, inside, py) {
    const colour = line.colour ?? k % 7, good = (i) => Number.isFinite(line.y[i]);
    if (line.low) {
      const points = line.x.map((x, i) => [px(x), inside(py(line.high[i]))]).concat(line.x.map((x, i) => [px(x), inside(py(line.low[i]))]).reverse());
      root.append(S.svg("path", { class: `band c${colour}`, d: "M" + points.map((p) => p.map((v) => v.toFixed(1)).join(" ")).join("L") + "Z" }));
    }
    if (line.bars) {
      line.x.forEach((x, i) => {
        const a = px(x - line.bars / 2), y = inside(py(line.y[i]));
        root.append(S.svg("rect", { class: `bar c${colour}`, x: a, width: Math.max(0.5, px(x + line.bars / 2) - a - 0.6), y, height: Math.max(0, inside(py(0)) - y) }));
      });
      return;
    }
    let path = "", open = false;
    line.x.forEach((x, i) => {
      if (!good(i)) { open = false; return; }
      path += `${open ? "L" : "M"}${px(x).toFixed(1)} ${inside(py(line.y[i])).toFixed(1)}`;
      open = true;
    });
    if (!line.points) root.append(S.svg("path", { class: `line c${colour}${line.strong ? " strong" : ""}`, d: path, "stroke-dasharray": DASHES[(line.dash ?? k) % DASHES.length] }));
    if (line.points || line.dots) line.x.forEach((x, i) => {
      if (good(i)) root.append(S.svg("circle", { class: `dot c${colour}`, cx: px(x), cy: inside(py(line.y[i])), r: line.points || 3 }));
    });
  }
  function legend(spec) {
    const names = spec.series.filter((line) => line.name);
    const item = (line) => {
      const k = spec.series.indexOf(line), colour = line.colour ?? k % 7;
      const key = S.svg("svg", { width: 30, height: 10, "aria-hidden": "true" },
        line.bars ? S.svg("rect", { class: `bar c${colour}`, x: 8, y: 0, width: 12, height: 10 })
          : S.svg("line", { class: `line c${colour}${line.strong ? " strong" : ""}`, x1: 0, x2: 30, y1: 5, y2: 5, "stroke-dasharray": DASHES[(line.dash ?? k) % DASHES.length] }));
      return S.el("span", { class: "key" }, key, line.name);
    };
    return S.el("div", { class: "legend" }, names.length > 1 || spec.always ? names.map(item) : []);
  }
  /** A table of numbers; cells are texts, numbers or nodes. */
  S.table = (columns, rows, label) => {
    const cell = (v) => S.el("td", { class: typeof v === "number" ? "number" : null }, typeof v === "number" ? S.number(v) : v ?? "–");
    return S.el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": label },
      S.el("table", {}, S.el("thead", {}, S.el("tr", {}, columns.map((name) => S.el("th", { scope: "col" }, name)))),
        S.el("tbody", {}, rows.map((row) => S.el("tr", {}, row.map(cell))))));
  };
})();
