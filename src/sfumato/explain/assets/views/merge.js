"use strict";
// Two noises are drawn, scaled and added; their histogram grows into the curve of the one Gaussian.
Sfumato.view("merge", (root, data, S) => {
  const percent = Array.from({ length: 99 }, (_, i) => i + 1), MOST = 6000;
  S.define("first", 80, S.integer(1, 99));
  S.define("second", 60, S.integer(1, 99));
  const one = S.normals(MOST, 1, { purpose: 11 }), two = S.normals(MOST, 2, { purpose: 11 });
  let drawn = MOST, timer = 0;
  const gauss = (x, m, v) => Math.exp((-((x - m) ** 2)) / (2 * v)) / Math.sqrt(2 * Math.PI * v);
  const chart = S.chart({ label: "two Gaussians and their sum", height: 280, x: { label: "x", low: -3, high: 3 }, y: { label: "density", low: 0 }, series: [] });
  const numbers = S.readout(["first noise, αₜ(1−αₜ₋₁)", "second noise, 1−αₜ", "their sum", "1−αₜαₜ₋₁", "measured"]);
  const START = 1.2, grid = Array.from({ length: 241 }, (_, i) => -3 + i / 40);
  const draw = () => {
    const a1 = S.get("first") / 100, a2 = S.get("second") / 100, v1 = a2 * (1 - a1), v2 = 1 - a2, mean = Math.sqrt(a1 * a2) * START;
    const bins = 60, counts = Array(bins).fill(0);
    let sum = 0, square = 0;
    for (let i = 0; i < drawn; i++) {
      const x = mean + Math.sqrt(v1) * one[i] + Math.sqrt(v2) * two[i];
      sum += x;
      square += x * x;
      if (x > -3 && x < 3) counts[Math.floor((x + 3) * (bins / 6))]++;
    }
    const measured = square / drawn - (sum / drawn) ** 2;
    numbers.set(S.number(v1), S.number(v2), S.number(v1 + v2, 4), S.number(1 - a1 * a2, 4), `${S.number(measured)} of ${S.whole(drawn)} draws`);
    chart.draw({
      y: { label: "density", low: 0, high: Math.max(1.2, 1.15 * Math.max(gauss(0, 0, v1 + v2), Math.min(2.2, gauss(0, 0, Math.min(v1, v2))))) },
      series: [
        { name: "draws of the sum", x: counts.map((_, i) => -3 + (i + 0.5) / 10), y: counts.map((c) => (c / drawn) * (bins / 6)), bars: 0.1, colour: 5 },
        { name: "first noise alone", x: grid, y: grid.map((x) => gauss(x, mean, v1)), colour: 0, dash: 1 },
        { name: "second noise alone", x: grid, y: grid.map((x) => gauss(x, mean, v2)), colour: 2, dash: 2 },
        { name: "the one Gaussian of the formula", x: grid, y: grid.map((x) => gauss(x, mean, 1 - a1 * a2)), colour: 1, dash: 0, strong: true },
      ],
    });
  };
  const play = () => {
    clearInterval(timer);
    if (S.still()) { drawn = MOST; draw(); return; }
    drawn = 20;
    timer = setInterval(() => {
      drawn = Math.min(MOST, Math.ceil(drawn * 1.12));
      draw();
      if (drawn === MOST) clearInterval(timer);
    }, 60);
  };
  const format = (v) => (v / 100).toFixed(2);
  root.append(
    S.controls(
      S.slider({ key: "first", label: "α of the first step", values: percent, format }),
      S.slider({ key: "second", label: "α of the second step", values: percent, format }),
      S.button("▶ Add the noises", play),
    ),
    chart.node, numbers.node,
  );
  S.watch(["first", "second"], draw);
  return {
    keys: ["first", "second"],
    table: () => ({ columns: ["eps_1", "eps_2"], rows: Array.from(one, (v, i) => [v, two[i]]) }),
  };
});
