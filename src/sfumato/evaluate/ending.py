"""What a finished training is told of its samples: the verdict on its last grid, and how much more would help."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from sfumato.codec.format import EIGHT
from sfumato.conditions.table import Attributes
from sfumato.data import Dataset
from sfumato.errors import UserError
from sfumato.evaluate.cache import split_rows
from sfumato.evaluate.need import LONG, enough, typical
from sfumato.evaluate.results import stored_results
from sfumato.evaluate.target import Target
from sfumato.evaluate.verdict import CLOSE, FEWEST, Verdict, judge_pixels
from sfumato.generate import pictures
from sfumato.model import load
from sfumato.report.text import longer
from sfumato.run.locate import run_of
from sfumato.run.summary import RunSummary

REFERENCE = 512
"""Training images that a grid is compared with."""
FEW = 16
"""The fewest images of a grid that are judged."""


def judge_grid(summary: RunSummary, data: Dataset) -> Verdict | None:
    """Return the verdict on the last sample grid of a run, drawn from its averaged weights, against its data.

    A grid cycles through the labels, so it is compared with training images of the same labels, as often each. None
    where there is no grid of at least `FEW` images, or where a grid does not show all of an image (more than 8 bits, or
    other than 1 or 3 channels).
    """
    grids = summary.run.list_grids("ema")
    if not grids or data.format != EIGHT or data.shape[0] not in (1, 3):
        return None
    try:
        with Image.open(grids[-1]) as picture:
            shown = pictures.tiles(picture)
    except (OSError, UserError):  # removed or replaced since
        return None
    rows = grid_rows(data)
    if len(shown) < FEW or len(rows) < FEWEST or shown.shape[1:] != data.shape:
        return None
    ours, theirs = (torch.from_numpy(np.ascontiguousarray(x)).float() / 127.5 - 1 for x in (data.shown(rows), shown))
    return judge_pixels(ours, theirs)


def stored(summary: RunSummary, data: Dataset) -> Verdict | None:
    """Return the verdict that `evaluate` has stored on the most samples of a run's present average, against its data;
    None where there is none."""
    found = list[tuple[int, int, Verdict]]()
    with suppress(UserError, KeyError, TypeError):
        for _, report in stored_results(load(summary.run)):
            settings, table = report["settings"], report["result"].get("verdict")
            if table and (settings["data"], settings["real"]) == (data.fingerprint, "train"):
                found.append((table["num"], settings["steps"], Verdict.from_dict(table)))
    return max(found, key=lambda each: each[:2])[2] if found else None


def grid_rows(data: Dataset, num: int = REFERENCE) -> NDArray[np.int64]:
    """Return rows of training images with the labels of a grid, each as often: value after value.

    Where no image has a label, any image stands for it.
    """
    rows = split_rows(data)
    if not isinstance(data.conditions, Attributes) or data.vocabulary is None:
        return rows[:num].numpy()
    every = data.vocabulary.every()
    assert isinstance(every, Attributes)
    table, chosen = data.conditions.table[rows], []
    for asked in every.table:
        like = rows[(asked.isnan() | (table == asked)).all(1)]
        like = like if len(like) else rows
        chosen.append(like[torch.arange(-(-num // len(every.table))) % len(like)])
    return torch.stack(chosen, 1).flatten()[:num].numpy()


def outlook(images: int, shape: tuple[int, int, int], verdict: Verdict | None) -> tuple[str, int]:
    """Return what a run of so many images should be told of its length, and the images that it would need in all.

    The text is empty, and the number 0, where samples are certainly close to the data, or where they may not be for
    another reason than a short training.
    """
    if verdict is not None and (verdict.worst <= CLOSE or images >= LONG * typical(shape)):
        return "", 0
    if verdict is not None:
        more = enough(images, verdict)
        if verdict.least <= CLOSE:
            text = f"the training may have been short: at worst, samples close to the data need about {more:,} images"
            return text, more
        return f"the training was short: about {more:,} images would bring the samples close to the data", more
    if images >= typical(shape):
        return "", 0
    return f"the training was short: runs on images of this size were close to the data after {typical(shape):,}", (
        typical(shape)
    )


def advice(target: Target, report: dict[str, Any]) -> str:
    """Return what the verdict in a result of quality says of the length of a run, with the command that goes on; empty
    where that is nothing, or the images are not those of the run."""
    run, table = run_of(target.model.path), report["result"].get("verdict")
    if run is None or not target.own or table is None:
        return ""
    images = target.model.images
    text, more = outlook(images, target.data.shape, Verdict.from_dict(table))
    return f"{text} (go on: {longer(str(run.path), more, images)})" if text else ""
