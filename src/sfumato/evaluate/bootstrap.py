r"""Intervals: how much a measured number would change with other images.

Every measure here is a function f of two samples. Giving image i a little more weight changes it by its influence psi_i
(Hampel 1974), and to first order a sample drawn anew, with replacement, changes it by the mean of psi over the draw:

    f* = f + mean over the first draw of psi + mean over the second draw of psi',    both psi centred

Drawing many times gives the bootstrap distribution of f (Efron 1979; with the first-order f, Efron 1982's infinitesimal
jackknife), its quantiles the interval, its deviation the standard error. The measure itself is computed once.

This is not only cheap. The plain bootstrap, which recomputes f on each draw, misleads here: a draw holds two thirds of
the images, some of them twice, so distances between finite samples, which are biased upwards, are biased once more, and
nearest-neighbour radii collapse on the copies. The first-order distribution stays centred on f.

An interval so made is about chance, not about bias: that of N images is shown by the floor beside it (`measure`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.evaluate.address import resamples

__all__ = ["Interval", "Linearised"]

LEVEL = 0.95
REPLICATES = 1000
_AT_ONCE = 1 << 22


@dataclass(frozen=True)
class Interval:
    """What chance does to a number.

    Attributes:
        low, high: the interval that holds 95 % of the replicates.
        error: their standard deviation.
    """

    low: float
    high: float
    error: float


@dataclass(frozen=True, eq=False)
class Linearised:
    """A measured number and each image's influence on it.

    Attributes:
        value: the number.
        influences: for each independent sample, (N,) float64.
        least, most: the values that the measure can take at all.
    """

    value: float
    influences: tuple[Tensor, ...]
    least: float = -math.inf
    most: float = math.inf

    def interval(self, seed: int = 0, replicates: int = REPLICATES) -> Interval:
        """Return the bootstrap interval.

        Args:
            seed: of the draws.
            replicates: how many.
        """
        shift = sum_of_means(self.influences, seed, replicates)
        tail = (1 - LEVEL) / 2
        low, high = torch.quantile(shift, torch.tensor([tail, 1 - tail], dtype=torch.float64)).tolist()
        low, high = (min(max(self.value + end, self.least), self.most) for end in (low, high))
        return Interval(low, high, float(shift.std()))


def sum_of_means(influences: Sequence[Tensor], seed: int, replicates: int) -> Tensor:
    """Return the sum over samples of the mean influence of a draw, (replicates,) float64."""
    shift = torch.zeros(replicates, dtype=torch.float64)
    for group, influence in enumerate(influences):
        psi, count = influence.double() - influence.double().mean(), len(influence)
        for part in torch.split(torch.arange(replicates), max(1, _AT_ONCE // count)):
            shift[part] += psi[resamples(seed, part, count, group)].mean(1)
    return shift
