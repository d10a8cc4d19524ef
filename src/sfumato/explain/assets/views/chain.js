"use strict";
// The chain's rows: step by step above, in one jump below, and the measured distance of the two distributions.
Sfumato.view("chain", (root, data, S) => {
  const row = (name, images) => S.el("div", { class: "strip" }, S.el("span", { class: "name text" }, name),
    data.steps.map((t, i) => S.tile(S.paint(S.canvas(`${name}, t = ${t}`), images.row(i), "bytes"), `t = ${S.whole(t)}`)));
  const columns = ["t", "step by step: mean of the noise", "its deviation", "jump: mean", "deviation", "distance"];
  root.append(
    S.el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "two rows of images" }, row("step by step", data.chain), row("one jump", data.jump)),
    S.el("details", {}, S.el("summary", {}, "The numbers"), S.table(columns, data.rows.slice(1).map(([t, ...rest]) => [S.whole(t), ...rest]), "measured noise by t")),
  );
  return { table: () => ({ columns, rows: data.rows }) };
});
