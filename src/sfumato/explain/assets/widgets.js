"use strict";
// Controls: each is bound to a key of the state, so two of one key move together.
(() => {
  const S = Sfumato;
  let count = 0;
  S.id = () => `c${++count}`;

  /** A slider over a list of values; `format` names the present one. */
  S.slider = ({ key, label, values, format = S.whole }) => {
    const id = S.id(), out = S.el("output", { for: id });
    const input = S.el("input", { type: "range", id, min: 0, max: values.length - 1, step: 1, oninput: () => S.set(key, values[Number(input.value)]) });
    S.watch([key], () => {
      const at = S.nearest(values, S.get(key));
      input.value = at;
      out.textContent = format(values[at]);
      input.setAttribute("aria-valuetext", out.textContent);
    });
    return S.el("div", { class: "slider" }, S.el("label", { for: id }, label), input, out);
  };

  /** A choice of a few: radio buttons that look like one switch. */
  S.choice = ({ key, label, options }) => {
    const name = S.id();
    S.define(key, options[0][0], S.oneOf(options.map(([value]) => value)));
    const inputs = options.map(([value, text]) => {
      const input = S.el("input", { type: "radio", name, id: S.id(), value, onchange: () => S.set(key, value) });
      return [input, S.el("label", { for: input.id }, text)];
    });
    S.watch([key], () => inputs.forEach(([input]) => { input.checked = input.value === String(S.get(key)); }));
    return S.el("fieldset", { class: "choice" }, S.el("legend", {}, label), inputs);
  };

  /** The images in a row, one of them chosen; `count` limits them. */
  S.pictures = ({ key = "image", count = S.shared.images.shape[0], label = "image" } = {}) => {
    const captions = S.shared.captions;
    const buttons = Array.from({ length: count }, (_, n) => {
      const canvas = S.paint(S.canvas("", 0), S.image(n));
      canvas.setAttribute("aria-hidden", "true");
      return S.el("button", { type: "button", class: "pick", title: captions[n], "aria-label": `${label} ${n}: ${captions[n]}`, onclick: () => S.set(key, n) }, canvas);
    });
    S.watch([key], () => buttons.forEach((button, n) => button.setAttribute("aria-pressed", String(Math.min(S.get(key), count - 1) === n))));
    return S.el("div", { class: "pictures", role: "group", "aria-label": label }, buttons);
  };

  /** A button that walks a key through values, once; with reduced motion in few, slow steps. */
  S.player = ({ key, values, seconds = 6, label = "Play" }) => {
    let timer = 0;
    const button = S.el("button", { type: "button", class: "play", onclick: () => (timer ? stop() : start()) });
    const stop = () => { clearInterval(timer); timer = 0; button.textContent = `▶ ${label}`; };
    const start = () => {
      const few = S.still(), total = few ? Math.min(8, values.length) : Math.min(values.length, seconds * 25);
      let at = 0;
      button.textContent = "❚❚ Pause";
      timer = setInterval(() => {
        S.set(key, values[Math.round((at * (values.length - 1)) / Math.max(1, total - 1))]);
        if (++at >= total) stop();
      }, few ? 1200 : (1000 * seconds) / total);
    };
    stop();
    return button;
  };
  S.button = (text, act) => S.el("button", { type: "button", class: "plain", onclick: act }, text);
  S.controls = (...nodes) => S.el("div", { class: "controls" }, nodes);
  /** Names and numbers: returns the list and a function that sets the numbers. */
  S.readout = (names) => {
    const cells = names.map(() => S.el("dd"));
    const node = S.el("dl", { class: "readout" }, names.map((name, i) => S.el("div", {}, S.el("dt", {}, name), cells[i])));
    return { node, set: (...values) => values.forEach((v, i) => { cells[i].textContent = v; }) };
  };
  /** The times of the stored predictions: the nearest one to t, and a slider over them. */
  S.moment = () => {
    const { steps, x0, fraction } = S.shared.moments, examined = x0.shape[0];
    return {
      steps, examined,
      slider: () => S.slider({ key: "t", label: "time t", values: steps, format: (t) => `t = ${S.whole(t)} of ${S.whole(S.shared.total)}` }),
      now: () => {
        const n = Math.min(S.get("image"), examined - 1), k = S.nearest(steps, S.get("t")), at = (n * steps.length + k) * S.size;
        return {
          n, k, t: steps[k], x0: x0.data.subarray(at, at + S.size),
          fraction: fraction && fraction.data.subarray(at, at + S.size),
        };
      },
    };
  };
  /** Findings with their weight in words and in colour: {level, title, text, figures, commands}. */
  S.judged = (items) => {
    const words = { trouble: "trouble", mind: "to decide", note: "to know", good: "fine" };
    return S.el("ul", { class: "judged" }, items.map(({ level, title, text, figures = [], commands = [] }) => S.el("li", { class: level },
      S.el("span", { class: "level" }, words[level] || level), S.el("b", { class: "text" }, S.outside(title)), S.el("p", {}, S.outside(text)),
      figures.length ? S.el("ul", {}, figures.map((figure) => S.el("li", {}, S.outside(figure)))) : null,
      commands.map((command) => S.el("pre", { tabindex: 0 }, S.el("code", {}, S.outside(command)))))));
  };
  S.theme = () => {
    const button = document.getElementById("theme"), root = document.documentElement;
    if (!button) return;
    const dark = () => (root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches);
    const name = () => { button.textContent = dark() ? "Light" : "Dark"; button.setAttribute("aria-label", `Switch to ${dark() ? "light" : "dark"} colours`); };
    button.addEventListener("click", () => { root.dataset.theme = dark() ? "light" : "dark"; name(); });
    name();
  };
})();
