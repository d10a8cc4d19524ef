"""What was not finite in a step that was skipped, for people: which layer, which images, which times."""

from __future__ import annotations

import math

import torch

from sfumato.train.metrics import Trouble
from sfumato.train.trainer import Trainer

_SHOWN = 4
"""Images that are named."""


def describe(trainer: Trainer, trouble: Trouble) -> str:
    """Return what was not finite: the losses of some images, with their files and times, or the gradient alone; and the
    first weight whose gradient was not, as the backward pass comes to it."""
    batch = len(trouble.losses)
    bad = [row for row, loss in enumerate(trouble.losses) if not math.isfinite(loss)]
    if bad:
        shown = ", ".join(_image(trainer, trouble, row) for row in bad[:_SHOWN]) + ", ..." * (len(bad) > _SHOWN)
        what = f"the loss of {len(bad)} of {batch} images was not finite ({shown})"
    else:
        worst = max(range(batch), key=lambda row: trouble.losses[row])
        greatest = f"greatest loss {trouble.losses[worst]:.3g}: {_image(trainer, trouble, worst)}"
        what = f"the gradient was not finite, all losses were ({greatest})"
    if trouble.weight < 0:
        return what
    names = [name for name, weight in trainer.net.named_parameters() if weight.requires_grad]
    return f"{what}; the first gradient that was not finite is that of {names[trouble.weight]}"


def _image(trainer: Trainer, trouble: Trouble, row: int) -> str:
    """Name an image of the batch: its row, its time, its file."""
    position = (trouble.step - 1) * len(trouble.losses) + row
    index = trainer.data.batch(torch.tensor([position]), trainer.config.train.seed).index
    return f"row {row} at t = {trouble.t[row]:.3f}, '{trainer.data.origins[int(index)]}'"
