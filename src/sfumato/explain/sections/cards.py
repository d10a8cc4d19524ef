"""The data card, the model card, and the commands that make all of it again."""

from __future__ import annotations

import contextlib
import os
import shlex
from typing import Any

import numpy as np

from sfumato.config.config import Config, to_dict
from sfumato.config.keys import typed
from sfumato.config.tree import flatten
from sfumato.data.columns import copies_of
from sfumato.data.mirror import evenly
from sfumato.data.sources.builtin import BUILTIN
from sfumato.errors import command, plural
from sfumato.explain.context import Context, cut
from sfumato.explain.figure import Figure, Missing
from sfumato.explain.packing import u8
from sfumato.report.text import count, duration

SHEET, ROWS, COLUMNS, NAMED = 60, 12, 8, 12
NOT_STATED = "not stated: fill it in before you publish the model"


def collect(context: Context) -> tuple[Figure, ...]:
    """Return the cards that can be made."""
    cards = [_model_card(context), _again(context)]
    with contextlib.suppress(Missing):
        cards.insert(0, _data_card(context))
    return tuple(cards)


def _data_card(context: Context) -> Figure:
    """Contact sheets by label, counts, notes and skipped files."""
    data = context.data
    sheets: list[tuple[str, Any]] = []
    values = data.attributes[0].values if data.attributes else ()
    if 2 <= len(values) <= ROWS:
        columns = context.effort.fitting(COLUMNS, len(values))
        for n, value in enumerate(values):
            rows = np.flatnonzero(data.table[:, 0] == n)
            if len(rows):
                sheets.append((f"{value} ({len(rows):,})", context.pictures(rows[evenly(len(rows), columns)])))
    else:
        most = context.effort.fitting(SHEET, 1, 8)
        sheets.append(("evenly through the data", context.pictures(evenly(len(data), most))))
    licence = BUILTIN[data.source_name].licence if data.source_name in BUILTIN else NOT_STATED
    rows_ = [
        ("source", os.path.basename(data.source_name)),
        ("images", f"{len(data):,}: {len(data.train):,} train, {len(data.held_out):,} held out by their content"),
        ("size", f"{data.shape[2]}x{data.shape[1]}, {plural(data.shape[0], 'channel')}, {data.format.words}"),
        *([("exact copies", plural(copies, "image"))] if (copies := copies_of(data.digests)[0]) else []),
        ("licence", licence),
        ("fingerprint", data.fingerprint[:16]),
    ]
    counts = [
        [name, ", ".join(f"{cut(value, 30)} {number:,}" for value, number in list(table.items())[:12])]
        for name, table in list(data.counts.items())[:20]
    ]
    return Figure(
        name="data",
        title="Data card",
        caption="What the model was trained on. Notes and findings are those of reading the images.",
        data={
            "rows": [list(row) for row in rows_],
            "labels": counts,
            "notes": list(map(typed, data.notes)),
            "skipped": [[os.path.basename(origin), reason] for origin, reason in data.skipped[:NAMED]],
            "num_skipped": len(data.skipped),
            "sheets": [{"title": title, "pictures": u8(pictures)} for title, pictures in sheets],
        },
        made="the images as they are stored for training",
        command=command("data", "check", context.model.config.data.source, "--out", "check.html"),
    )


def provenance(config: Config, command: list[str]) -> list[list[str]]:
    """Return (key, value, where it is from) of every value: the command line, the default, or a preset or file."""
    own, usual = flatten(to_dict(config)), flatten(to_dict(Config()))
    given = {word.partition("=")[0].removeprefix("--") for word in command if word.startswith("--")}
    short = {"budget": "train.budget", "images": "train.images", "lr": "optim.lr", "batch": "train.batch",
             "size": "data.size", "labels": "data.labels", "seed": "train.seed"}  # fmt: skip
    given |= {short[name] for name in given if name in short}
    rows = []
    for key, value in own.items():
        place = "preset or file"
        if key in given or (key == "data.source" and str(value) in command):
            place = "command line"
        elif key in usual and usual[key] == value:
            place = "default"
        rows.append([key, cut(str(value), 80), place])
    return rows


def _model_card(context: Context) -> Figure:
    model, summary = context.model, context.summary
    cost = model.net.cost(*model.shape[1:])
    environment = {} if summary is None else summary.environment
    packages = environment.get("packages")
    command = [str(word) for word in environment.get("command") or []]
    rows = [
        ("network", model.net.summary()),
        ("parameters", f"{cost.parameters:,}"),
        ("weights", f"{model.kind}, sha256 {model.sha256}"),
        ("images seen", f"{model.images:,}"),
        (
            "cost of the training",
            f"about {count(3.0 * cost.flops * model.images)}FLOPs (a step is three forward passes)",
        ),
        ("made for", "images like those of its data card; it has not been tested for anything else"),
        ("licence", "that of the images it was trained on" if context.run is None else NOT_STATED),
    ]
    if summary is not None:
        rows += [
            ("time", f"{duration(summary.seconds)} on {environment.get('device', 'an unknown device')}"),
            ("machine", f"{environment.get('cpu', '')}, {environment.get('threads', '?')} threads"),
            (
                "software",
                ", ".join(f"{a} {b}" for a, b in packages.items()) if isinstance(packages, dict) else "unknown",
            ),
        ]
    return Figure(
        name="model",
        title="Model card",
        caption="What the model is, where each value of its configuration is from, and what it cost.",
        data={"rows": [list(row) for row in rows], "config": provenance(model.config, command)},
        made="the header of the weights file, config.toml and environment.json of the run",
        command=f"sfumato info {context.command}",
    )


def _again(context: Context) -> Figure:
    """The commands."""
    name, run = context.command, context.run
    commands = []
    if run is not None:
        environment = {} if context.summary is None else context.summary.environment
        words = environment.get("command")
        if isinstance(words, list) and words:
            commands.append([shlex.join(["sfumato", *map(str, words[1:])]), "the command that the training began with"])
        same = ["sfumato", "train", context.model.config.data.source, "--config", str(run.config_path)]
        commands.append([shlex.join([*same, "--run", "again"]), "a training with the same configuration"])
    commands += [
        [f"sfumato sample {name} --num {context.effort.wall} --seed {context.seed}", "the samples of this page"],
        [f"sfumato evaluate {name}", "bits, quality and memorisation, with intervals"],
        [f"sfumato diagnose {name}", "why samples are not as they should be"],
        [f"sfumato report {name} --seed {context.seed}", "this page"],
        ["sfumato verify", "the closed forms, checked on your machine"],
    ]
    return Figure(
        name="again",
        title="How to make all of this again",
        caption="Every random number is a function of a seed and of what it is for, so the same commands give the "
        "same images.",
        data={"commands": commands, "fingerprint": context.fingerprint},
        made="the run's own record",
    )
