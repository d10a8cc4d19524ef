"""Time, and how an image was altered, as vectors that every residual block can read.

The network is one function for all noise levels, so its time is an input. A bare number is a poor one: t = 3 and t = 4
are almost equal as numbers, yet the network must tell them apart. As Transformers do for positions (Vaswani et al.
2017, Sec. 3.5), the number becomes a row of sines and cosines,

    e_i(t) = sin(w_i t),  e_{i + h}(t) = cos(w_i t),   w_i = 10000^(-i / (h - 1)),   i = 0 .. h - 1,  h = dim / 2,

the fastest turning by one radian a step, the slowest by one ten-thousandth. The inner product of two rows,
sum_i cos(w_i (s - t)), depends on the distance of the two times alone. The sines come first and the exponent runs to
exactly one (h - 1, not h), as in the published DDPM networks; their weights are useless under another convention. Two
dense layers turn the row into the vector that the blocks share.

What is asked of the image is added to it (`sfumato.conditions.embedding` for attributes). So is a linear map of the
numbers that say how a training image was altered (`data.augment`), without a bias: an image as it is adds nothing.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["AlterationEmbedding", "TimeEmbedding", "sinusoid"]


def sinusoid(time: Tensor, dim: int) -> Tensor:
    """Write times as rows of sines and cosines (DDPM appendix B; Vaswani et al. 2017).

    Args:
        time: (B,) floating point, in steps of the chain: 0 .. T - 1, fractions allowed.
        dim: length of a row, even and at least 4.

    Returns:
        (B, dim), sines then cosines, in the dtype of `time`.
    """
    half = dim // 2
    index = torch.arange(half, dtype=time.dtype, device=time.device)
    angle = time[:, None] * torch.exp(-math.log(10000) * index / (half - 1))
    return torch.cat([angle.sin(), angle.cos()], dim=1)


class TimeEmbedding(nn.Module):
    """The time as a learned vector: W_2 silu(W_1 sinusoid(t) + b_1) + b_2.

    Args:
        dim: length of the sinusoidal row.
        width: length of the vector.
    """

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
    """How an image was altered as a vector, W a (Karras et al. 2022, 2206.00364, Appendix F.2): 0 where a is 0.

    W starts at zero and takes nothing from the random numbers of the other weights.

    Args:
        count: length of a.
        width: length of the vector.
    """

    def __init__(self, count: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width, count))

    def forward(self, numbers: Tensor) -> Tensor:
        """Map (B, count), NaN = 0 = not altered, to (B, width)."""
        return F.linear(numbers.nan_to_num(0.0).to(self.weight.dtype), self.weight)
