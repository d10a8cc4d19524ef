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

from sfumato.train.shards import Shards

N = TypeVar("N", bound=nn.Module)


class EMA(Generic[N]):
    """The average of a network's weights.

    Args:
        net: the network.
        shards: how it is divided over ranks; by default it is not.

    Attributes:
        net: a copy of the network, in evaluation mode, whose weights are the average; None where it is divided.
    """

    def __init__(self, net: N, shards: Shards | None = None) -> None:
        divided = shards is not None and shards.on
        self.net: N | None = None if divided else copy.deepcopy(net).eval().requires_grad_(False)
        weights = dict(net.named_parameters()) if shards is None else shards.weights
        self._source: list[Tensor] = list(weights.values())
        self._state = {name: tensor.detach().clone() for name, tensor in net.named_buffers()} if divided else {}
        if self.net is not None:
            self._state = dict(self.net.state_dict())
            self._average: list[Tensor] = list(self.net.parameters())
        else:
            self._average = [weight.clone() for weight in self._source]
            self._state |= dict(zip(weights, self._average, strict=True))

    def state(self) -> dict[str, Tensor]:
        """Return the average by the names of the weights, with the network's buffers; of divided ones the rows here."""
        return self._state

    @torch.no_grad()
    def update(self, rate: float | Tensor, applied: Tensor) -> None:
        """Move towards the network's weights: ema + applied rate (w - ema), with rate = 1 - d_k; `applied`, () tensor,
        is 1 where the optimiser took the step, and at 0 the average stays as it is, bit for bit."""
        towards = torch._foreach_sub(self._source, self._average)
        torch._foreach_mul_(towards, applied * rate)
        torch._foreach_add_(self._average, towards)
