"""Samples with their seeds, the nearest training images, and the verdict on memorisation."""

from __future__ import annotations

from typing import Any

import torch

from sfumato.errors import UserError
from sfumato.evaluate.memorisation import Memorisation, find_memorised
from sfumato.explain.context import Context, cut
from sfumato.explain.figure import Figure
from sfumato.explain.packing import u8


def collect(context: Context) -> Figure:
    """Sample by the default recipe; what needs training images is left out without them."""
    num, images = context.effort.wall, context.samples
    condition = context.conditions(num)
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
    return Figure(
        name="wall",
        title="Samples, with their seeds",
        caption="Image n of a seed is always the same image, so each can be drawn again. Choose one: below it "
        "stands the training image that is nearest to it. A model that has learned is as far from its training "
        "images as images that it never saw; one that has memorised is nearer.",
        code=("generate.sample.sample", "evaluate.memorisation.find_memorised"),
        data=data,
        made=made,
        command=f"sfumato evaluate {context.command} --memorisation",
        findings=tuple(findings),
    )


def _memorised(context: Context, images: torch.Tensor) -> Memorisation | None:
    """The comparison by pixels; None where there are too few images for it, or nothing is held out."""
    if context.target is None or not len(context.data.held_out):
        return None
    try:
        return find_memorised(context.data, context.model.codec.decode(images))
    except UserError:
        return None
