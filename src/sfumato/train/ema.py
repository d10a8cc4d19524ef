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
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

__all__ = ["EMA"]


N = TypeVar("N", bound=nn.Module)


class EMA(Generic[N]):
    """A second network whose weights are the average of the first one's.

    Args:
        net: the network that is trained; its average starts as a copy, on the same device, in evaluation mode.
    """

    def __init__(self, net: N) -> None:
        self.net: N = copy.deepcopy(net).eval().requires_grad_(False)
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
