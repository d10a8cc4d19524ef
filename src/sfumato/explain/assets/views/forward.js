"use strict";
// One image at any time: what is left of it, and how much noise there is.
Sfumato.view("forward", (root, data, S) => {
  const shared = S.shared, [, height, width] = shared.shape, side = S.side(width, 150);
  const clean = S.canvas("the image, scaled", side), noise = S.canvas("the noise, scaled", side), mixed = S.canvas("the noisy image", side);
  const parts = [clean, noise, mixed].map((canvas) => S.tile(canvas, ""));
  const words = parts.map((part) => part.querySelector(".under"));
  const bars = S.svg("svg", { viewBox: "0 0 100 12", preserveAspectRatio: "none", width: "100%", height: 22, role: "img" });
  const numbers = S.readout(["ᾱ", "√ᾱ, signal", "√(1−ᾱ), noise", "SNR", "log SNR"]);
  const histogram = S.chart({
    label: "histogram of the noisy image", height: 190, always: true, x: { label: "value of a pixel", low: -3, high: 3 }, y: { label: "density", low: 0 }, series: [],
  });
  const spectrum = S.chart({
    label: "power by spatial frequency", height: 190, x: { label: "cycles per image" }, y: { label: "power", log: true }, series: [],
  });
  const frequencies = Array.from({ length: data.spectra.shape[1] }, (_, k) => k);

  const draw = () => {
    const n = S.get("image"), t = S.get("t"), draw_ = S.get("noise"), level = S.level(t);
    const x = S.noised(n, t, draw_);
    S.paint(clean, S.image(n), "image", level.alpha);
    S.paint(noise, S.eps(n, draw_), "image", level.sigma / 2);
    S.paint(mixed, x);
    words[0].textContent = `${S.number(level.alpha)} · x₀`;
    words[1].textContent = `+ ${S.number(level.sigma)} · ε`;
    words[2].textContent = `= xₜ at t = ${S.whole(t)}`;
    mixed.setAttribute("aria-label", `image ${n} at t = ${t}: ${Math.round(100 * level.abar)} percent of its power is signal`);
    numbers.set(S.number(level.abar, 4), S.number(level.alpha, 4), S.number(level.sigma, 4), S.decibels(level), S.logarithm(level));
    const split = 100 * level.abar;
    bars.setAttribute("aria-label", `${S.number(split)} percent signal, ${S.number(100 - split)} percent noise`);
    bars.replaceChildren(
      S.svg("rect", { class: "bar c0", x: 0, y: 0, width: split, height: 12 }),
      S.svg("rect", { class: "bar c1", x: split, y: 0, width: 100 - split, height: 12 }),
    );
    const bins = 48, low = -3, span = 6, counts = Array(bins).fill(0);
    for (const v of x) if (v >= low && v < low + span) counts[Math.floor(((v - low) / span) * bins)]++;
    const centres = counts.map((_, i) => low + ((i + 0.5) * span) / bins), per = span / bins;
    const grid = Array.from({ length: 121 }, (_, i) => low + (i * span) / 120);
    histogram.draw({
      y: { label: "density", low: 0, high: Math.max(0.6, Math.max(...counts) / x.length / per) },
      series: [
        { name: "xₜ", x: centres, y: counts.map((c) => c / x.length / per), bars: per, colour: 0 },
        { name: "N(0, 1)", x: grid, y: grid.map((v) => Math.exp((-v * v) / 2) / Math.sqrt(2 * Math.PI)), colour: 1, dash: 1 },
      ],
    });
    const power = Array.from(data.spectra.row(n), (p) => Math.max(1e-6, p * level.abar));
    const drowned = power.filter((p) => p < level.variance).length;
    spectrum.draw({
      y: { label: "power", log: true, low: 1e-4, high: Math.max(10, ...data.spectra.data) },
      label: `${drowned} of ${power.length} frequencies are weaker than the noise`,
      series: [
        { name: "what is left of the image", x: frequencies, y: power, colour: 0, dots: true, dash: 0 },
        { name: "noise", x: [0, frequencies.length - 1], y: [level.variance, level.variance], colour: 1, dash: 1 },
      ],
    });
  };
  root.append(
    S.pictures(),
    S.controls(
      S.slider({ key: "t", label: "time t", values: shared.steps, format: (t) => `t = ${S.whole(t)} of ${S.whole(shared.total)}` }),
      S.player({ key: "t", values: shared.steps }),
      S.button("Other noise", () => S.set("noise", (S.get("noise") + 1) % 1000)),
    ),
    S.el("div", { class: "row equation" }, parts),
    S.el("div", { class: "split" }, bars, S.el("div", { class: "ends" }, S.el("span", { class: "text" }, "signal, ᾱ"), S.el("span", { class: "text" }, "noise, 1 − ᾱ"))),
    numbers.node,
    S.el("div", { class: "two" }, histogram.node, spectrum.node),
  );
  S.watch(["t", "image", "noise"], draw);
  return {
    keys: ["t", "image", "noise"],
    table: () => ({
      columns: ["channel", "row", "column", "x_0", "eps", "x_t"],
      rows: Array.from(S.noised(S.get("image"), S.get("t"), S.get("noise")), (v, i) => [
        Math.floor(i / (height * width)), Math.floor(i / width) % height, i % width, S.image(S.get("image"))[i], S.eps(S.get("image"), S.get("noise"))[i], v,
      ]),
    }),
  };
});
