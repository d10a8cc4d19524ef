"use strict";
// Schedules as curves of t, and what one image looks like under each.
Sfumato.view("schedules", (root, data, S) => {
  const { names, steps, curves } = data, COLUMNS = 9;
  const kinds = {
    abar: { label: "ᾱ, the power left of the image", low: 0, high: 1, of: (row) => row.map((l) => S.levelOf(l).abar) },
    snr: { label: "log SNR", low: -15, high: 15, of: (row) => row },
    beta: {
      label: "variance of one step, β", log: true, low: 1e-5, high: 1,
      of: (row, k) => row.map((l, i) => {
        const before = i ? row[i - 1] : NaN, length = i ? steps[i] - steps[i - 1] : 1;
        return -Math.expm1((Math.log(S.levelOf(l).abar) - Math.log(S.levelOf(before).abar)) / length);
      }),
    },
  };
  const rows = names.map((_, k) => Array.from(curves.row(k)));
  const chart = S.chart({ label: "schedules by t", height: 300, x: { label: "t" }, y: kinds.abar, series: [], pick: (t) => S.set("t", t) });
  const strip = S.el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "one image under each schedule" });
  const canvases = names.map(() => Array.from({ length: COLUMNS }, () => S.canvas("")));
  const at = Array.from({ length: COLUMNS }, (_, c) => Math.round((c * (steps.length - 1)) / (COLUMNS - 1)));
  strip.append(...names.map((name, k) => S.el("div", { class: `strip${k ? "" : " own"}` }, S.el("span", { class: "name text" }, name),
    canvases[k].map((canvas, c) => S.tile(canvas, k === names.length - 1 ? `t = ${S.whole(steps[at[c]])}` : "")))));
  const draw = () => {
    const kind = kinds[S.get("schedule")];
    chart.draw({
      y: kind, mark: { x: S.get("t"), label: `t = ${S.whole(S.get("t"))}` },
      series: names.map((name, k) => ({ name, x: steps, y: kind.of(rows[k], k), strong: k === 0, dash: k, colour: k })),
    });
  };
  const paint = () => {
    const n = S.get("image");
    names.forEach((name, k) => canvases[k].forEach((canvas, c) => {
      const level = S.levelOf(rows[k][at[c]]);
      S.paint(canvas, S.mix(S.image(n), S.eps(n), level));
      canvas.setAttribute("aria-label", `${name} at t = ${steps[at[c]]}: ${Math.round(100 * level.abar)} percent signal`);
    }));
  };
  root.append(S.controls(S.choice({ key: "schedule", label: "show", options: [["abar", "ᾱ"], ["snr", "log SNR"], ["beta", "β"]] })), chart.node, S.pictures(), strip);
  S.watch(["schedule", "t"], draw);
  S.watch(["image"], paint);
  return { keys: ["schedule", "t", "image"], table: () => ({ columns: ["t", ...names.map((name) => `log SNR, ${name}`)], rows: steps.map((t, i) => [t, ...rows.map((row) => row[i])]) }) };
});
