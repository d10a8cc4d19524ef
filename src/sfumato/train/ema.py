r"""The average of the weights, which is what one samples from.

A network trained by stochastic gradients hovers around where it should be; an exponential moving average of its weights
sits in the middle of that cloud. After step k

    ema <- d_k ema + (1 - d_k) w_k,        d_k = 1/2 ^ ( B / h_k )

with B the batch size and h a half-life in images: what was learnt h images ago counts half as much as what was learnt
now. A decay of 0.9999 a step says the same in other words, h = B ln 2 / -ln 0.9999 = 6,931 B, but is tied to a batch
size.

Early on a fixed half-life would average in the random initial weights, and the first samples would be noise. So the
half-life ramps up with the images seen (Karras et al. 2022, EDM, as in its code):

    h_k = min( h, ramp n_k ),        n_k = k B, images seen before step k

At k = 0 that is a half-life of zero: the average starts as the weights after the first step, and no trace of the
initialisation is left. The average follows the optimiser's step, never precedes it.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from .clock import in_images

__all__ = ["EMA", "EMAConfig"]


@dataclass(frozen=True)
class EMAConfig:
    """How long the average of the weights remembers.

    Attributes:
        half_life: in images; a value below 1 is a fraction of the planned length.
        ramp: the half-life is at most this share of the images seen so far; None has no ramp.

    Raises:
        ValueError: a value that is not above zero.
    """

    half_life: float = 0.02
    ramp: float | None = 0.05

    def __post_init__(self) -> None:
        if self.half_life <= 0:
            raise ValueError(f"half_life = {self.half_life}: must be above 0 images")
        if self.ramp is not None and self.ramp <= 0:
            raise ValueError(f"ramp = {self.ramp}: must be above 0, or none")

    def decay(self, images: int, batch: int, planned: int) -> float:
        """Return d_k for the step that starts when `images` have been seen.

        Args:
            images: n_k, seen before the step.
            batch: B, images of the step.
            planned: length of the run in images, which a half-life below 1 is a fraction of.
        """
        half_life = in_images(self.half_life, planned)
        if self.ramp is not None:
            half_life = min(half_life, self.ramp * images)
        return cast(float, 0.5 ** (batch / half_life)) if half_life > 0 else 0.0


class EMA:
    """A second network whose weights are the average of the first one's.

    Args:
        net: the network that is trained; its average starts as a copy, on the same device, in evaluation mode.
    """

    def __init__(self, net: nn.Module) -> None:
        self.net = copy.deepcopy(net).eval().requires_grad_(False)
        self._average: list[Tensor] = list(self.net.parameters())
        self._source: list[Tensor] = list(net.parameters())

    @torch.no_grad()
    def update(self, decay: float, applied: Tensor) -> None:
        """Move towards the network's weights: ema + (1 - decay) (w - ema).

        Args:
            decay: d_k.
            applied: () tensor, 1 where the optimiser took the step and 0 where it was skipped; at 0 the average stays
                as it is, bit for bit, and the device is never asked.
        """
        towards = torch._foreach_sub(self._source, self._average)
        torch._foreach_mul_(towards, applied * (1 - decay))
        torch._foreach_add_(self._average, towards)
