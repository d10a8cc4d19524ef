"use strict";
// The commands that make the run, its samples and this page again.
Sfumato.view("again", (root, data, S) => {
  root.append(S.table(["command", "what it makes"], data.commands.map(([command, what]) => [S.el("code", {}, S.outside(command)), what]), "commands"), S.el("p", { class: "soft" }, `This page is a function of the weights, the images and the seed: ${data.fingerprint}.`));
  return { table: () => ({ columns: ["command", "what"], rows: data.commands }) };
});
