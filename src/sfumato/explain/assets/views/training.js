"use strict";
// The run's curves over the images seen.
Sfumato.view("training", (root, data, S) => {
  const { images, loss, levels, lr, speed, held_out: held, skipped } = data;
  const x = { label: "images seen", format: S.whole, low: 0 };
  const kept = [0, 2, 4, 6, 8, 9].filter((k) => levels.some((row) => row[k] !== null));
  const smooth = (list) => { let value = null; return list.map((v) => (v === null ? value : (value = value === null ? v : value + 0.35 * (v - value)))); };
  const byLevel = S.chart({
    label: "loss by noise level", height: 290, x, y: { label: "loss", log: true },
    series: kept.map((k, i) => ({ name: `t from ${k / 10} to ${(k + 1) / 10} of T`, x: images, y: smooth(levels.map((row) => row[k])), colour: i, dash: i })),
  });
  const gap = held.length > 0 && S.chart({
    label: "loss of the averaged weights, all noise levels evenly", height: 240, x, y: { label: "loss", log: true }, always: true,
    series: [
      { name: "held-out images", x: held.map((row) => row[0]), y: held.map((row) => row[1]), dots: true, colour: 1, dash: 0 },
      { name: "as many training images", x: held.map((row) => row[0]), y: held.map((row) => row[2]), dots: true, colour: 0, dash: 1 },
    ],
  });
  const rate = S.chart({ label: "learning rate", height: 180, x, y: { label: "learning rate", low: 0 }, series: [{ name: "learning rate", x: images, y: lr, colour: 2, dash: 0 }] });
  const fast = S.chart({ label: "images per second", height: 180, x, y: { label: "images per second", low: 0 }, series: [{ name: "speed", x: images.slice(1), y: speed, colour: 3, dash: 0 }] });
  root.append(byLevel.node, gap ? gap.node : S.el("p", { class: "soft" }, "No held-out loss was taken."), S.el("div", { class: "two" }, rate.node, fast.node));
  if (skipped.length) root.append(S.table(["images seen", "skipped steps"], skipped.map(([n, k]) => [S.whole(n), k]), "skipped steps"));
  return { table: () => ({ columns: ["images", "loss", "learning rate", "gradient norm", ...levels[0].map((_, k) => `loss, t to ${(k + 1) / 10} T`)], rows: images.map((n, i) => [n, loss[i], lr[i], data.gradient[i], ...levels[i]]) }) };
});
