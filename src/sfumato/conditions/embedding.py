"""Attributes as a vector: the sum of one learned vector for each attribute.

For an attribute with values it is a row of a table (for a class: Dhariwal, Nichol 2021), for a number a dense layer of
its sines and cosines. Each attribute also has a vector for "not given", as classifier-free guidance (Ho, Salimans 2022)
needs, and sampling with only some attributes given.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sfumato.conditions.table import Attributes
from sfumato.errors import UserError

WAVES = 6
"""Sines, and cosines, of a number."""


class ValueEmbedding(nn.Module):
    """A table of one vector for each of `count` values, with "not given" in row 0."""

    def __init__(self, count: int, width: int) -> None:
        super().__init__()
        self.table = nn.Embedding(count + 1, width)

    def forward(self, number: Tensor) -> Tensor:
        """Look up (B,) indices of values, NaN = not given: (B, width); raises IndexError for an unknown one."""
        rows: Tensor = self.table(torch.where(number.isnan(), 0.0, number + 1).long())
        return rows


class NumberEmbedding(nn.Module):
    """A standardised number x as a learned vector, and one for "not given".

    A dense layer of WAVES sines and cosines of pi/8 2^k x. The slowest is one to one within 8 standard deviations of
    the mean, the fastest has two periods in one.
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


class AttributeEmbedding(nn.Module):
    """The sum of one vector an attribute; `conditions` says how many values each attribute has, 0 for a number."""

    def __init__(self, conditions: Sequence[int], width: int) -> None:
        super().__init__()
        self.parts = nn.ModuleList(ValueEmbedding(n, width) if n else NumberEmbedding(width) for n in conditions)

    def forward(self, condition: Attributes | None, num: int) -> Tensor:
        """Embed `num` conditions, None for nothing given: (num, width); raises `UserError` for conditions of another
        number of images or attributes, IndexError for a value outside its table."""
        count, device = len(self.parts), next(self.parameters()).device
        table = torch.full((num, count), math.nan, device=device) if condition is None else condition.table
        if table.shape != (num, count):
            raise UserError(
                f"a condition of shape {tuple(table.shape)} does not fit {num} images and {count} attributes: give "
                f"({num}, {count})"
            )
        total: Tensor = sum(part(column) for part, column in zip(self.parts, table.unbind(1), strict=True))
        return total
