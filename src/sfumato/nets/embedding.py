"""Time and conditions as vectors that every residual block can read.

The network is one function for all noise levels, so it must be told which one it looks at. A bare number is a poor
input: a network sees t = 3 and t = 4 as almost equal, yet must tell them apart, and t = 999 is no 999 times larger than
t = 1 in any useful sense. As Transformers do for positions (Vaswani et al. 2017, section 3.5), the number is written as
a row of clock hands,

    e_i(t) = sin(w_i t),  e_{i + h}(t) = cos(w_i t),   w_i = 10000^(-i / (h - 1)),   i = 0 .. h - 1,  h = dim / 2,

the fastest turning by one radian a step, the slowest by one ten-thousandth. The inner product of two rows,
sum_i cos(w_i (s - t)), depends on the distance of the two times alone. The sines stand first and the exponent runs to
exactly one (h - 1, not h): so it stands in the published DDPM networks, whose weights mean nothing under another
convention.

Two dense layers turn the row into the vector that the blocks share. What is asked of the image is added to it, one
vector an attribute (for a class: Dhariwal, Nichol 2021): of an attribute with values a row of a table, of a number a
dense layer of its own row of clock hands. Each attribute has a vector for "not given" too, which classifier-free
guidance (Ho, Salimans 2022) needs, and so does whoever asks for some attributes and leaves the rest to the model.

Where training images are altered (`train.augment`), the numbers that say how are a condition too: a linear map of them,
without a bias, so that an image that nothing was done to adds nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sfumato.errors import UserError

__all__ = [
    "AlterationEmbedding",
    "ConditionEmbedding",
    "NumberEmbedding",
    "TimeEmbedding",
    "ValueEmbedding",
    "sinusoid",
]

WAVES = 6
"""Sines, and cosines, of a number."""


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


class ValueEmbedding(nn.Module):
    """A table of one vector a value, with "not given" in row 0.

    Args:
        count: how many values there are.
        width: length of a vector.
    """

    def __init__(self, count: int, width: int) -> None:
        super().__init__()
        self.table = nn.Embedding(count + 1, width)

    def forward(self, number: Tensor) -> Tensor:
        """Look up (B,) places in the list of values, NaN = not given: (B, width); raises IndexError beyond the list."""
        rows: Tensor = self.table(torch.where(number.isnan(), -1.0, number).long() + 1)
        return rows


class NumberEmbedding(nn.Module):
    """A standardised number x as a learned vector, and one for "not given".

    As with the time, a bare number is a poor input; it is written as WAVES sines and cosines of pi/8 2^k x, whose
    slowest tells apart all of (-8, 8) deviations and whose fastest repeats twice within one, before a dense layer.

    Args:
        width: length of the vector.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(2 * WAVES, width)
        self.absent = nn.Embedding(1, width)

    def forward(self, number: Tensor) -> Tensor:
        """Map (B,) numbers, NaN = not given, to (B, width)."""
        waves = torch.arange(WAVES, dtype=number.dtype, device=number.device)
        # before the sines, so that no NaN reaches the gradient
        angle = number.nan_to_num(0.0)[:, None] * (math.pi / 8 * 2.0**waves)
        row = torch.cat((angle.sin(), angle.cos()), dim=1).to(self.dense.weight.dtype)
        return torch.where(number.isnan()[:, None], self.absent.weight, self.dense(row))


class ConditionEmbedding(nn.Module):
    """The sum of one vector an attribute.

    Args:
        conditions: how many values each attribute has; 0 = a number.
        width: length of the vector.
    """

    def __init__(self, conditions: Sequence[int], width: int) -> None:
        super().__init__()
        self.parts = nn.ModuleList(ValueEmbedding(n, width) if n else NumberEmbedding(width) for n in conditions)

    def forward(self, condition: Tensor | None, num: int) -> Tensor:
        """Embed conditions.

        Args:
            condition: (B, A) floating point, NaN = not given; None = nothing given for all.
            num: B.

        Returns:
            (B, width).

        Raises:
            UserError: a condition of another number of attributes.
            IndexError: a value outside its table.
        """
        count = len(self.parts)
        if condition is None:
            device = next(self.parameters()).device
            condition = torch.full((num, count), math.nan, device=device)
        if condition.shape != (num, count):
            raise UserError(f"a condition of {tuple(condition.shape)} for {num} images and {count} attributes")
        total: Tensor = sum(part(column) for part, column in zip(self.parts, condition.unbind(1), strict=True))
        return total


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
