"""Embeddings of the time, and of how an image was altered, for every residual block.

The network is one function for all noise levels, so its time is an input. A bare number is a poor input: t = 3 and t =
4 are almost equal as numbers, yet the network must distinguish them. As Transformers do for positions (Vaswani et al.
2017, Sec. 3.5), the number becomes a row of sines and cosines,

    e_i(t) = sin(w_i t),  e_{i + h}(t) = cos(w_i t),   w_i = 10000^(-i / (h - 1)),   i = 0 .. h - 1,  h = dim / 2,

the fastest turning by one radian a step, the slowest by one ten-thousandth. The inner product of two rows,
sum_i cos(w_i (s - t)), depends on the distance of the two times alone. The sines come first and the exponent runs to
exactly one (h - 1, not h), as in the published DDPM networks; their weights do not work with another convention. Two
dense layers turn the row into the vector that the blocks share.

The embedding of the condition is added to it (`sfumato.conditions.embedding` for attributes). So is a linear map of the
numbers that describe how a training image was altered (`data.augment`), without a bias: an unaltered image adds 0.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def sinusoid(time: Tensor, dim: int) -> Tensor:
    """Return times (B,), in steps of the chain, as rows (B, dim) of sines then cosines; dim even and at least 4."""
    half = dim // 2
    index = torch.arange(half, dtype=time.dtype, device=time.device)
    angle = time[:, None] * torch.exp(-math.log(10000) * index / (half - 1))
    return torch.cat([angle.sin(), angle.cos()], dim=1)


class TimeEmbedding(nn.Module):
    """The time as a learned vector of length `width`: W_2 silu(W_1 sinusoid(t, dim) + b_1) + b_2."""

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.dim = dim
        self.first = nn.Linear(dim, width)
        self.second = nn.Linear(width, width)

    def forward(self, time: Tensor) -> Tensor:
        """Map (B,) times to (B, width), in the dtype of the weights."""
        row = sinusoid(time, self.dim).to(self.first.weight.dtype)
        hidden: Tensor = self.first(row)
        out: Tensor = self.second(F.silu(hidden))
        return out


class AlterationEmbedding(nn.Module):
    """How an image was altered, `count` numbers a, as a vector W a (Karras et al. 2022, 2206.00364, Appendix F.2).

    W starts at zero and takes no random number of another weight's.
    """

    def __init__(self, count: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width, count))

    def forward(self, numbers: Tensor) -> Tensor:
        """Map (B, count), NaN = 0 = not altered, to (B, width)."""
        return F.linear(numbers.nan_to_num(0.0).to(self.weight.dtype), self.weight)
