"""The time machine: the same seeds through training, and what each checkpoint makes of one noisy image at each t."""

from __future__ import annotations

import os

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from sfumato.diagnose.statistics import reduced
from sfumato.diffusion import marginal
from sfumato.errors import UserError
from sfumato.explain.context import Context, cut
from sfumato.explain.effort import SIDE
from sfumato.explain.figure import Figure, Missing
from sfumato.explain.packing import u8
from sfumato.generate.pictures import evenly, tiles
from sfumato.model import load
from sfumato.report.figures import spaced

TILES, LEVELS = 10, 7


def collect(context: Context) -> tuple[Figure, ...]:
    """Return the grids and the checkpoints; raises `Missing` where a run has neither."""
    if context.run is None:
        raise Missing("a weights file has no grids or checkpoints of its training")
    figures = [figure for figure in (_grids(context), _checkpoints(context)) if figure is not None]
    if not figures:
        raise Missing("the run has no sample grid and no checkpoint")
    return tuple(figures)


def _grids(context: Context) -> Figure | None:
    assert context.summary is not None
    paths = context.summary.averaged_grids
    found: list[NDArray[np.uint8]] = []
    moments = []
    for n in evenly(len(paths), context.effort.moments) if paths else []:
        try:
            with Image.open(paths[n]) as picture:
                images = tiles(picture)
        except (UserError, OSError):
            continue
        if found and images.shape[1:] != found[0].shape[1:]:
            continue
        found.append(reduced(torch.from_numpy(images[:TILES].copy()), SIDE).numpy())
        moments.append(int(paths[n].stem))
    if not found:
        return None
    num = min(len(images) for images in found)
    return Figure(
        name="machine",
        title="The same seeds through training",
        caption="Every row or frame starts from the same noise; only the network changes. First the overall tone "
        "comes, then the shapes, then the details.",
        data={"images": moments, "tiles": u8(np.stack([images[:num] for images in found]))},
        made=f"the grids that the training itself wrote into samples/, {len(found)} of {len(paths)}",
        command=f"sfumato illustrate {context.command} --figure training --out training.png",
    )


@torch.no_grad()
def _checkpoints(context: Context) -> Figure | None:
    """Each checkpoint's prediction of one noisy image."""
    run, summary = context.run, context.summary
    assert run is not None
    assert summary is not None
    steps = spaced(context.schedule, LEVELS, -6.0, 6.0)
    x_0, eps, row = context.examples(1)
    noisy = [marginal(x_0, context.schedule(step / context.total)).sample(eps) for step in steps.tolist()]
    names, rows = [], []
    sources = [
        (f"{int(path.name):,} images, {kind}", path, kind) for path in summary.checkpoints for kind in ("raw", "ema")
    ]
    sources += [(f"weights/{kind}", run.path, kind) for kind in ("best", "ema") if run.weights_file(kind).is_file()]
    for name, path, kind in sources[-context.effort.fitting(6, LEVELS) :]:
        try:
            model = load(path, kind, context.model.device)
        except (UserError, OSError):
            continue
        if model.shape != context.model.shape or model.vocabulary != context.model.vocabulary:
            continue
        guesses = [
            model.denoiser(x, step / context.total, row).x0 for x, step in zip(noisy, steps.tolist(), strict=True)
        ]
        names.append(cut(name, 40))
        rows.append(context.shown(torch.cat(guesses)))
    if not rows:
        return None
    return Figure(
        name="checkpoints",
        title="One noisy image, every checkpoint",
        caption="The first row is what each network sees: one image at seven noise levels. Below is each network's "
        "guess at the image: raw weights as trained, ema their average, best where the held-out loss was lowest.",
        data={
            "steps": steps.tolist(),
            "names": names,
            "noisy": u8(context.shown(torch.cat(noisy))),
            "guesses": u8(torch.stack(rows)),
            "folder": os.path.basename(os.path.normpath(run.path)),
        },
        made="one evaluation of each checkpoint and weights file that the run keeps, at each noise level",
        command=f"sfumato sample {context.command} --weights raw",
    )
