r"""What a metric is, and how its value gets an interval.

A metric is a function f of two samples. Giving image i a little more weight changes f by its influence psi_i (Hampel
1974), and to first order a sample drawn anew, with replacement, changes it by the mean of psi over the draw:

    f* = f + mean over the first draw of psi + mean over the second draw of psi',    both psi centred

Drawing many times gives the bootstrap distribution of f (Efron 1979; with the first-order f, Efron 1982's infinitesimal
jackknife): its quantiles are the interval, its deviation is the standard error. The metric itself is computed once.

The plain bootstrap, which recomputes f on each draw, misleads here: a draw holds two thirds of the images, some of them
twice, so distances between finite samples, which are biased upwards, are biased once more, and nearest-neighbour radii
collapse on the copies. The first-order distribution stays centred on f.

Such an interval is about chance, not about bias, which the baseline beside it shows (`measurement`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from sfumato.diffusion.noise import Purpose, uniform
from sfumato.errors import UserError
from sfumato.evaluate.cache import derived_seed
from sfumato.evaluate.features import check_finite

LEVEL = 0.95
REPLICATES = 1000
_AT_ONCE = 1 << 22


class Interval(NamedTuple):
    """The interval that holds 95 % of the replicates, and their standard deviation."""

    low: float
    high: float
    error: float


@dataclass(frozen=True, eq=False)
class MetricValue:
    """A measured number and each image's influence on it.

    Attributes:
        influences: for each of the sets, (N,) float64; () where the metric has no influence function.
        least, most: the values that the metric can take at all.
        better: `lower` or `higher`; empty where neither is.
        note: what the reader must know of the number, in one sentence.
    """

    value: float
    influences: tuple[Tensor, ...] = ()
    least: float = -math.inf
    most: float = math.inf
    note: str | None = None
    better: str = ""

    def __repr__(self) -> str:
        return f"MetricValue({self.value:.6g}{', ' + self.better + ' is better' if self.better else ''})"

    def interval(self, seed: int = 0, replicates: int = REPLICATES) -> Interval | None:
        """Return the bootstrap interval of a number of replicates; None without influences."""
        if not self.influences:
            return None
        shift = torch.zeros(replicates, dtype=torch.float64)
        for group, influence in enumerate(self.influences):
            psi, count = influence.double() - influence.double().mean(), len(influence)
            for part in torch.split(torch.arange(replicates), max(1, _AT_ONCE // count)):
                shift[part] += psi[resamples(seed, part, count, group)].mean(1)
        tail = (1 - LEVEL) / 2
        ends = torch.quantile(shift, torch.tensor([tail, 1 - tail], dtype=torch.float64)).tolist()
        low, high = (min(max(self.value + end, self.least), self.most) for end in ends)
        return Interval(low, high, float(shift.std()))


class Metric(Protocol):
    """A comparison of two sets of features, which gives one number or several."""

    def __call__(self, real: Tensor, generated: Tensor, seed: int, /) -> dict[str, MetricValue]:
        """Return numbers by name of features (N, D) and (M, D), in random order; the seed is of the metric's own."""


def resamples(seed: int, replicates: Tensor, count: int, group: int) -> Tensor:
    """Return draws with replacement from `count` images for some replicates (R,): (R, count) int64."""
    u = uniform(derived_seed(f"evaluate bootstrap {seed}"), Purpose.ORDER, replicates, (count,), step=group)
    return u.mul_(count).long()


def check_sets(metric: str, first: Tensor, second: Tensor, fewest: int) -> None:
    """Refuse sets of fewer images than the metric needs, features of different extractors, and what is not finite."""
    if min(len(first), len(second)) < fewest:
        raise UserError(
            f"{metric}: the sets have {len(first)} and {len(second)} images; at least {fewest} of each are needed"
        )
    if first.shape[1] != second.shape[1]:
        raise UserError(
            f"{metric}: features of {first.shape[1]} and of {second.shape[1]} numbers can't be compared: use one "
            "extractor for both sets"
        )
    for features in (first, second):
        check_finite(features, "the extractor")
