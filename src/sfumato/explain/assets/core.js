"use strict";
// The page's runtime: elements, stored arrays, and the state, which is kept in the address (#t=420&image=7).
// Text from outside (names, labels) is only ever set as text, never as markup.
const Sfumato = (() => {
  const S = { drawers: {}, figures: {} };
  const SVG = "http://www.w3.org/2000/svg";

  // ---- elements -----------------------------------------------------------------------------------------------
  function fill(node, attributes, children) {
    for (const [name, value] of Object.entries(attributes || {})) {
      if (value === null || value === undefined || value === false) continue;
      if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
      else node.setAttribute(name, value === true ? "" : String(value));
    }
    for (const child of children.flat(Infinity)) {
      if (child !== null && child !== undefined) node.append(child.nodeType ? child : document.createTextNode(child));
    }
    return node;
  }
  S.el = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
  S.svg = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);
  /** Text that came from outside, in a direction of its own. */
  S.outside = (text) => S.el("bdi", {}, text);

  // ---- stored arrays ------------------------------------------------------------------------------------------
  const KINDS = { u8: Uint8Array, i16: Int16Array, f32: Float32Array, f64: Float64Array };
  /** Replace packed arrays, anywhere in a value, by {data, shape, size}; `size` is the length of one row. */
  S.unpack = (value) => {
    if (Array.isArray(value)) return value.map(S.unpack);
    if (value === null || typeof value !== "object") return value;
    if (value.$ === undefined) {
      return Object.fromEntries(Object.entries(value).map(([name, inner]) => [name, S.unpack(inner)]));
    }
    const text = atob(value.data);
    const bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
    let data = new KINDS[value.$](bytes.buffer);
    if (value.scale) data = Float32Array.from(data, (v) => v * value.scale);
    const size = value.shape.slice(1).reduce((a, b) => a * b, 1);
    return { data, shape: value.shape, size, row: (i) => data.subarray(i * size, (i + 1) * size) };
  };

  // ---- state --------------------------------------------------------------------------------------------------
  const values = new Map(), rules = new Map(), listeners = new Map();
  let pending = new Set(), timer = 0;
  S.at = "";

  function parse() {
    const hash = location.hash.slice(1);
    if (!hash) return {};
    if (!hash.includes("=")) return { at: decodeURIComponent(hash) };
    return Object.fromEntries(new URLSearchParams(hash));
  }
  const asked = parse();
  S.at = asked.at || "";

  /** Declare a key of the state: its default, and a function that turns any text into a valid value. */
  S.define = (key, start, valid) => {
    if (rules.has(key)) return;
    rules.set(key, { start, valid });
    values.set(key, key in asked ? valid(asked[key]) : start);
  };
  S.get = (key) => values.get(key);
  S.set = (key, value) => {
    const checked = rules.get(key).valid(value);
    if (checked === values.get(key)) return;
    values.set(key, checked);
    if (!pending.size) requestAnimationFrame(flush);
    pending.add(key);
    clearTimeout(timer);
    timer = setTimeout(write, 200);
  };
  /** Call a function now, and whenever one of the keys has changed. */
  S.watch = (keys, act) => {
    for (const key of keys) {
      if (!listeners.has(key)) listeners.set(key, new Set());
      listeners.get(key).add(act);
    }
    act();
  };
  function flush() {
    const keys = pending;
    pending = new Set();
    const acts = new Set();
    for (const key of keys) for (const act of listeners.get(key) || []) acts.add(act);
    for (const act of acts) act();
  }
  /** The address of the present state, at a figure or section. */
  S.address = (at, keys) => {
    const query = new URLSearchParams();
    if (at) query.set("at", at);
    for (const [key, value] of values) {
      if ((!keys || keys.includes(key)) && value !== rules.get(key).start) query.set(key, value);
    }
    return "#" + query.toString();
  };
  function write() {
    const hash = S.address(S.at);
    if (hash !== location.hash) history.replaceState(null, "", hash === "#" ? location.pathname : hash);
  }
  window.addEventListener("hashchange", () => {
    const next = parse();
    if (next.at !== undefined) S.at = next.at;
    for (const [key, { valid }] of rules) if (key in next) S.set(key, valid(next[key]));
    write();
    S.show(S.at, false);
  });
  S.show = (at, scroll) => {
    const node = at && document.getElementById(at);
    if (!node) return;
    for (let up = node.parentElement; up; up = up.parentElement) if (up.tagName === "DETAILS") up.open = true;
    if (scroll) node.scrollIntoView({ block: "start" });
  };
  S.integer = (low, high) => (text) => {
    const number = Math.round(Number(text));
    return Number.isFinite(number) ? Math.min(high, Math.max(low, number)) : low;
  };
  S.oneOf = (options) => (text) => options.find((option) => String(option) === String(text)) ?? options[0];

  // ---- numbers ------------------------------------------------------------------------------------------------
  S.number = (value, digits = 3) => {
    if (value === null || value === undefined || Number.isNaN(value)) return "–";
    if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
    const size = Math.abs(value);
    const high = (exponent) => [...String(Number(exponent))].map((c) => (c === "-" ? "⁻" : "⁰¹²³⁴⁵⁶⁷⁸⁹"[c])).join("");
    const text = size !== 0 && (size < 1e-3 || size >= 1e5)
      ? value.toExponential(digits - 1).replace(/(\.\d*?)0+e/, "$1e").replace(/\.?e(.*)$/, (_, e) => `·10${high(e)}`).replace(/^(-?)1·/, "$1")
      : Number(value.toPrecision(digits)).toLocaleString("en", { maximumFractionDigits: 12 });
    return text.replace("-", "−");
  };
  const fixed = (value, digits) => (Math.abs(value) >= 999 ? S.number(value * Infinity) : value.toFixed(digits).replace("-", "−"));
  S.decibels = ({ logsnr }) => `${Math.abs(logsnr) >= 999 ? fixed(logsnr) : fixed((10 * logsnr) / Math.LN10, 1)} dB`;
  S.logarithm = ({ logsnr }) => fixed(logsnr, 2);
  S.whole = (value) => Number(value).toLocaleString("en");
  S.mean = (list) => list.reduce((a, b) => a + b, 0) / Math.max(1, list.length);
  S.nearest = (list, value) => list.reduce((best, v, i) => (Math.abs(v - value) < Math.abs(list[best] - value) ? i : best), 0);
  S.still = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

  // ---- figures ------------------------------------------------------------------------------------------------
  /** Register a view: (root, data, S) => {table?, keys?}. */
  S.view = (name, draw) => { S.drawers[name] = draw; };
  S.start = () => {
    const stored = JSON.parse(document.getElementById("data").textContent);
    S.shared = S.unpack(stored.shared);
    S.prepare();
    for (const node of document.querySelectorAll("figure[data-view]")) {
      const name = node.dataset.view;
      const root = node.querySelector(".view");
      const data = S.unpack(stored.figures[name]);
      const made = S.drawers[name](root, data, S) || {};
      S.figures[name] = made;
      S.tools(node, name, made, stored.figures[name]);
    }
    S.theme();
    const contents = document.querySelector("nav details");
    if (contents && matchMedia("(max-width: 60rem)").matches) contents.open = false;
    S.show(S.at, true);
    document.documentElement.dataset.ready = "yes";
  };
  return S;
})();
