"""Attributes as a condition: a table with one column an attribute and NaN for "not given" (`attributes`)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Attributes:
    """The attributes of a batch, (B, A) float32; satisfies `Condition`.

    A column holds the index of a value, or a standardised number,
    NaN where it is not given.
    """

    table: Tensor

    def __len__(self) -> int:
        return len(self.table)

    def take(self, index: Tensor) -> Attributes:
        """Return rows."""
        return Attributes(self.table[index.to(self.table.device)])

    def to(self, device: torch.device | str) -> Attributes:
        """Return the same on another device."""
        return Attributes(self.table.to(device))

    def absent(self) -> Attributes:
        """Return as many rows in which nothing is given."""
        return Attributes(torch.full_like(self.table, math.nan))

    def cat(self, other: Attributes) -> Attributes:
        """Return these rows and then the other's."""
        return Attributes(torch.cat([self.table, other.table]))

    @property
    def num_uniforms(self) -> int:
        """Uniform numbers that `dropped` takes for an example: 2 + A."""
        return 2 + self.table.shape[1]

    def dropped(self, u: Tensor, probability: float) -> Attributes:
        """Return the rows with some attributes left out, by numbers u (B, 2 + A) uniform in [0, 1).

        With the given probability all are left out, as guidance needs (Ho, Salimans 2022). Of the other
        examples half keep all, and half keep each attribute with a chance r that is itself uniform in [0, 1]: users
        later give one or two of many attributes, and with r fixed at 1/2 training would hardly ever have so few. With r
        uniform, each number of attributes, 0 to A, is equally likely. A single attribute is left out with the given
        probability. At probability 0 everything is kept.
        """
        kept = (u[:, :1] >= probability).expand(-1, self.table.shape[1])
        if self.table.shape[1] > 1 and probability > 0:
            kept = kept & (u[:, 2:] < 2 * u[:, 1:2])
        return Attributes(self.table.where(kept.to(self.table.device), math.nan))
