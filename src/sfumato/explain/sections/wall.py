"""Samples with their seeds, the nearest training images, the verdict on memorisation, and the figures of quality."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from sfumato.errors import UserError
from sfumato.evaluate.memorisation import Memorisation, find_memorised
from sfumato.evaluate.text import words
from sfumato.explain.context import Context, cut
from sfumato.explain.figure import Figure
from sfumato.explain.packing import u8
from sfumato.generate.recipe import Recipe
from sfumato.generate.sample import sample

_LARGEST, _MOST = 1_000_000, 20
"""Bytes of a result that is read, and results that are."""


def collect(context: Context) -> tuple[Figure, ...]:
    """Sample by the default recipe; what needs training images is left out without them."""
    num, recipe = context.effort.wall, Recipe()
    condition = context.conditions(num)
    images = sample(context.counted, num, recipe, seed=context.seed, condition=condition)
    vocabulary = context.model.vocabulary
    labels = (
        [""] * num
        if condition is None or vocabulary is None
        else [cut(each) for each in vocabulary.describe(condition)]
    )
    data: dict[str, Any] = {
        "seed": context.seed,
        "labels": labels,
        "samples": u8(context.shown(images)),
        "nearest": None,
    }
    findings, made = [], f"{num} samples by the default recipe, seed {context.seed}"
    if (found := _memorised(context, images)) is not None:
        near = found.spaces[0]
        data |= {
            "nearest": u8(context.pictures(near.row)),
            "distance": near.distance.tolist(),
            "ratio": near.ratio.tolist(),
            "names": list(context.captions(near.row)),
        }
        findings.append(f"Of these {num} samples: {found.sentence}.")
        made += f", and the nearest of {found.num_train:,} training images to each, by pixels"
    results = evaluated(context)
    data["results"] = results
    if not any(each["kind"] == "quality" for each in results):
        findings.append(
            "No figures of quality yet: they need more samples than a page draws. Measure them with the command "
            "below, and make the page again."
        )
    return (
        Figure(
            name="wall",
            title="Samples, with their seeds",
            caption="Image n of a seed is always the same image, so each can be drawn again. Choose one: below it "
            "stands the training image that is nearest to it. A model that has learned is as far from its training "
            "images as images that it never saw; one that has memorised is nearer.",
            code=("generate.sample.sample", "evaluate.memorisation.find_memorised"),
            data=data,
            made=made,
            command=f"sfumato evaluate {context.command}",
            findings=tuple(findings),
        ),
    )


def _memorised(context: Context, images: torch.Tensor) -> Memorisation | None:
    """The comparison by pixels; None where there are too few images for it, or nothing is held out."""
    if context.target is None or not len(context.data.held_out):
        return None
    try:
        return find_memorised(context.data, context.model.codec.decode(images))
    except UserError:
        return None


def evaluated(context: Context) -> list[dict[str, Any]]:
    """Return the results of `sfumato evaluate` for these very weights: kind, text, and the measures of quality."""
    folder = context.results
    paths = sorted(folder.glob("*-*.json")) if folder is not None and folder.is_dir() else []
    found = []
    for path in paths[:_MOST]:
        if (report := _result(path, context.model.sha256)) is not None:
            found.append(report)
    return found


def _result(path: Path, sha256: str) -> dict[str, Any] | None:
    """A result that can be read and is of these weights; a damaged one is left out."""
    try:
        if path.stat().st_size > _LARGEST:
            return None
        report = json.loads(path.read_bytes())
        if sha256 not in json.dumps(report["settings"]):
            return None
        measures = report["result"].get("measures", []) if report["kind"] == "quality" else []
        table = [[m["name"], m["value"], m["low"], m["high"], m["floor"], str(m["extractor"])] for m in measures]
        return {"kind": str(report["kind"]), "text": words(report), "measures": table, "file": path.name}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
