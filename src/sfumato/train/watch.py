r"""Watching the held-out loss: which weights were best, and when a model starts to learn its images by heart.

The held-out images meet the same times and noise at every pass, so two passes can be compared example by example. With
d_j = loss_j(now) - loss_j(best),

    z = mean(d) / ( std(d) / sqrt(N) )

says how surely the average has become worse, far more sharply than two means with their own spreads would. Overfitting
is said when z is above 3 while the loss on as many training images has gone on falling: what the network still learns
then is those images and no longer what they have in common.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["SURE", "Watch"]

SURE = 3.0
"""Standard errors by which the held-out loss must have risen."""


@dataclass(frozen=True, eq=False)
class Watch:
    """The best pass so far.

    Attributes:
        held_out: (N,) float64, the loss of each held-out image then; empty before the first pass.
        train: mean loss on training images then.
        images: when it was.
        warned: whether overfitting has been said.
    """

    held_out: Tensor
    train: float = math.inf
    images: int = -1
    warned: bool = False

    @classmethod
    def new(cls) -> Watch:
        """Return the watch before the first pass."""
        return cls(torch.zeros(0, dtype=torch.float64))

    def look(self, held_out: Tensor, train: float, images: int) -> tuple[Watch, bool, str | None]:
        """Take a pass in.

        Args:
            held_out: (N,) the loss of each held-out image.
            train: mean loss on training images, with the same times and noise.
            images: the clock.

        Returns:
            The next watch, whether this pass is the best so far, and a warning to pass on, if any.
        """
        now = held_out.detach().double().cpu()
        if len(self.held_out) != len(now) or float(now.mean()) < float(self.held_out.mean()):
            return Watch(now, train, images, self.warned), True, None
        difference = now - self.held_out
        error = float(difference.std()) / math.sqrt(len(now)) if len(now) > 1 else math.inf
        z = float(difference.mean()) / error if error > 0 else 0.0
        if self.warned or z < SURE or train >= self.train:
            return self, False, None
        warning = (
            f"overfitting: the held-out loss rose from {float(self.held_out.mean()):.4f} (at {self.images} images) "
            f"to {float(now.mean()):.4f}, {z:.0f} standard errors, while the loss on training images fell from "
            f"{self.train:.4f} to {train:.4f}; the best weights are kept as weights/best.safetensors; more images, "
            "flips (data.flip), dropout (net.dropout) or a smaller network would help"
        )
        return Watch(self.held_out, self.train, self.images, True), False, warning

    def state(self) -> dict[str, Tensor]:
        """Return the watch as tensors, for a checkpoint."""
        facts = torch.tensor([self.train, float(self.images), float(self.warned)], dtype=torch.float64)
        return {"watch/held_out": self.held_out, "watch/facts": facts}

    @classmethod
    def from_state(cls, tensors: dict[str, Tensor]) -> Watch:
        """Return the watch that a checkpoint holds; a new one where it holds none."""
        if "watch/facts" not in tensors:
            return cls.new()
        train, images, warned = tensors["watch/facts"].tolist()
        return cls(tensors["watch/held_out"].cpu(), train, int(images), bool(warned))
