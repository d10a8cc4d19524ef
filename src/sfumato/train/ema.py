r"""The exponential moving average of the weights, from which samples are made by default.

After step k, with a batch of B images and a half-life of h images,

    ema <- d_k ema + (1 - d_k) w_k,        d_k = 1/2 ^ ( B / h_k ),        h_k = min( h, ramp n_k )

A decay of 0.9999 a step is a half-life of 6,931 steps, but tied to a batch size. The half-life ramps up with the images
n_k = k B seen before the step (Karras et al. 2022, EDM, as in its code), since otherwise the first samples would be
those of the random initial weights; at k = 0 it is zero, and no trace of them is left.
"""

from __future__ import annotations

import copy
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

N = TypeVar("N", bound=nn.Module)


class EMA(Generic[N]):
    """A copy `net` of a network, in evaluation mode, whose weights are the average of the other's."""

    def __init__(self, net: N) -> None:
        self.net: N = copy.deepcopy(net).eval().requires_grad_(False)
        self._average: list[Tensor] = list(self.net.parameters())
        self._source: list[Tensor] = list(net.parameters())

    @torch.no_grad()
    def update(self, rate: float | Tensor, applied: Tensor) -> None:
        """Move towards the network's weights: ema + applied rate (w - ema).

        Args:
            rate: 1 - d_k.
            applied: () tensor, 1 where the optimiser took the step; at 0 the average stays as it is, bit for bit.
        """
        towards = torch._foreach_sub(self._source, self._average)
        torch._foreach_mul_(towards, applied * rate)
        torch._foreach_add_(self._average, towards)
