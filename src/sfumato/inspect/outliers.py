"""Image statistics: outliers and typical images.

**Outliers.** Eight numbers describe an image: brightness, contrast, colour (how far apart the channels are), detail
(half the mean squared difference of neighbouring pixels over the variance: 1 for noise, near 0 for flat areas), border
(the luma of the thumbnail's edge), area and proportions (both as logarithms), and appearance, the distance to
the second nearest image in the space of

    s_k / sqrt(lambda_k + lambda_rest), k < `COMPONENTS`,    and `WEIGHT` z_j of the first five numbers,

with s_k the projections of the 8 x 8 thumbnail on the principal components, lambda_k their variances, lambda_rest the
mean of the others, and z_j distances from the median in robust standard deviations.

Real collections have long tails: a fixed number of standard deviations makes outliers of ordinary images. So each side
of each number has a limit of its own, where an exponential tail, the longest that is usual, would end. Such a tail
gives 0.05 N exp(-(x - q_95) / b) of N images beyond x, which is 1 / `RARE` at

    limit = q_95 + b ln(0.05 N RARE),    b = max((q_95 - q_85) / ln 3, (q_95 - q_50) / ln 10),

with q_p the percentiles, and b the larger of two estimates of the tail's scale. Differences below `LEAST` do not
count. An image's score is its largest distance from the median as a multiple of the limit's, and that
number is the reason; 1 and more is an outlier. Up to a twentieth of the images may be outliers on one side.
**Typical** images score no more than the median.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sfumato.data.mirror import evenly, small
from sfumato.diffusion.inverse.operators import LUMA
from sfumato.inspect.scan import Records

RARE = 5.0
"""One image in this many collections is beyond a limit where the tail is exponential; fewer where it is shorter."""
FEW = 20
"""Fewer images have no outliers."""
AMONG = 3000
"""Images among which the nearest are looked for, spread evenly."""
COMPONENTS = 16
LEAST = {
    "brightness": 16.0,
    "contrast": 8.0,
    "colour": 8.0,
    "detail": 0.05,
    "border": 16.0,
    "area": math.log(2),
    "proportions": math.log(1.25),
    "appearance": 2.0,
}
"""The least distance of a limit from the median: grey levels, logarithms of ratios, standard deviations."""
FEATURES = tuple(LEAST)
WEIGHT = 1.5
"""The weight of a number beside a component in the appearance."""
_SEEN = 5  # the numbers of what the pixels look like come first

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Outliers:
    """How far each of N images is from the others: the distance from the median as a multiple of the limit's (N, 8) of
    `FEATURES`, and the projection on the first principal component (N,)."""

    far_by: Floats
    first: Floats

    @property
    def score(self) -> Floats:
        """(N,): the largest distance, 1 at the limit."""
        return np.asarray(self.far_by.max(1, initial=0.0))

    def farthest(self) -> list[int]:
        """The rows of all images, the farthest from the others first."""
        return list(map(int, np.argsort(-self.score, kind="stable")))

    def far(self) -> list[int]:
        """The rows of the outliers, the farthest first."""
        return self.farthest()[: int((self.score >= 1).sum())]

    def typical(self, num: int) -> list[int]:
        """The rows of up to `num` typical images, spread evenly along the first principal component."""
        plain = np.flatnonzero(self.score <= np.median(self.score)) if len(self.score) else np.zeros(0, np.int64)
        order = plain[np.argsort(self.first[plain], kind="stable")]
        return list(map(int, order[evenly(len(order), num)]))

    def reason(self, row: int) -> str:
        """The feature that is farthest from the others'."""
        return FEATURES[int(self.far_by[row].argmax())]


def luma(colours: NDArray[np.generic]) -> Floats:
    """Return the luma of (..., 3) red, green and blue."""
    return np.asarray(colours @ np.array(LUMA))


def outliers(records: Records) -> Outliers:
    """Measure how far each image is from the others."""
    coordinates = _coordinates(records["thumb"])
    if len(records) < FEW:
        return Outliers(np.zeros((len(records), len(FEATURES))), coordinates[:, 0])
    height, width = records["height"].astype(float), records["width"].astype(float)
    columns = [
        luma(records["mean"]),
        records["contrast"].astype(float),
        np.ptp(records["thumb"].astype(np.int16), axis=-1).mean((1, 2)),
        records["roughness"].astype(float),
        _border(luma(records["thumb"])),
        np.log(height * width),
        np.log(width / height),
    ]
    seen = np.stack([_robust(column, LEAST[name]) for name, column in zip(FEATURES, columns, strict=False)], axis=1)
    columns.append(_second_nearest(np.concatenate([coordinates, WEIGHT * seen], axis=1)))
    far_by = [_far(column, least) for column, least in zip(columns, LEAST.values(), strict=True)]
    far_by[-1][columns[-1] < np.median(columns[-1])] = 0  # an image that has near ones is no outlier
    return Outliers(np.stack(far_by, axis=1), coordinates[:, 0])


def _far(values: Floats, least: float) -> Floats:
    """The distances from the median as multiples of the limit's, which is `least` or more, of the values' side."""
    apart = values - np.median(values)
    limits = [max(least, _limit(side)) for side in (apart, -apart)]
    return np.where(apart >= 0, apart / limits[0], -apart / limits[1])


def _limit(apart: Floats) -> float:
    """Where an exponential tail of values, from their median on, would end."""
    upper, middle = np.quantile(apart, [0.95, 0.85], method="lower")
    scale = max((upper - middle) / math.log(3), upper / math.log(10))
    return float(upper + scale * math.log(0.05 * len(apart) * RARE))


def _border(rows: Floats) -> Floats:
    """The mean of each thumbnail's edge, (N,) of (N, S, S)."""
    edges = (rows[:, 0], rows[:, -1], rows[:, 1:-1, 0], rows[:, 1:-1, -1])
    return np.asarray(np.concatenate(edges, axis=1).mean(1))


def _coordinates(thumbs: NDArray[np.uint8]) -> Floats:
    """The projections of each thumbnail on the principal components, (N, K), each in its own standard deviations."""
    rows = small(thumbs)
    rows -= rows.mean(0) if len(rows) else 0.0
    if len(rows) < 2:
        return np.zeros((len(rows), 1))
    variances, axes = np.linalg.eigh(rows.T @ rows / len(rows))
    variances, axes = variances[::-1].clip(0), axes[:, ::-1]
    kept = min(COMPONENTS, len(rows) // 4 + 1)
    rest = variances[kept:].mean() + 1.0  # a grey level squared: below that, differences are rounding
    return np.asarray(rows @ axes[:, :kept] / np.sqrt(variances[:kept] + rest))


def _robust(values: Floats, least: float) -> Floats:
    """Distances from the median in standard deviations of a normal with the same 10th and 90th percentiles, or in
    `least` where that is more."""
    low, median, high = np.quantile(values, [0.1, 0.5, 0.9])
    return np.asarray((values - median) / max((high - low) / 2.563, least))


def _second_nearest(rows: Floats) -> Floats:
    """The distance of each row to the second nearest of the others (of `AMONG`), (N,)."""
    chosen, out = evenly(len(rows), AMONG), np.zeros(len(rows))
    rows = rows.astype(np.float32)
    others = rows[chosen]
    for n in range(0, len(rows), 2048):
        part = rows[n : n + 2048]
        squares = (part**2).sum(1)[:, None] + (others**2).sum(1) - 2 * part @ others.T
        own = np.flatnonzero((chosen >= n) & (chosen < n + len(part)))
        squares[chosen[own] - n, own] = np.inf
        squares[np.arange(len(part)), squares.argmin(1)] = np.inf
        out[n : n + len(part)] = np.sqrt(squares.min(1).clip(0))
    return out
