"""Image statistics: outliers and typical images.

**Outliers.** Seven numbers describe an image: brightness, contrast, colour (how far apart the channels are), detail
(how much of the contrast a thumbnail loses: noise and fine print lose most), area, proportions (these three as
logarithms), and appearance, the Mahalanobis distance of its 8 x 8 thumbnail from the mean,

    D^2 = sum_k s_k^2 / (lambda_k + lambda_rest),

with s_k the projections on the principal components, lambda_k their variances and lambda_rest the mean of those beyond
the first `COMPONENTS`. Each number becomes a robust z, its distance from the median over 1.4826 times the median of
such distances (which is the standard deviation for normal data; that itself where the median distance is 0). An image's
score is its largest z, and that number is the reason. **Typical** images score no more than the median.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sfumato.data.mirror import evenly, small
from sfumato.diffusion.inverse.operators import LUMA
from sfumato.inspect.scan import Records

FAR = 5.0
"""Robust z from which an image is an outlier; of normal data one in two million is."""
COMPONENTS = 16
FEATURES = ("brightness", "contrast", "colour", "detail", "area", "proportions", "appearance")

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Outliers:
    """How far each of N images is from the others: robust z (N, 7) of `FEATURES`, and the projection on the first
    principal component (N,)."""

    z: Floats
    first: Floats

    @property
    def score(self) -> Floats:
        """(N,): the largest z."""
        return np.asarray(self.z.max(1, initial=0.0))

    def farthest(self) -> list[int]:
        """The rows of all images, the farthest from the others first."""
        return list(map(int, np.argsort(-self.score, kind="stable")))

    def far(self) -> list[int]:
        """The rows of the outliers, the farthest first."""
        return self.farthest()[: int((self.score >= FAR).sum())]

    def typical(self, num: int) -> list[int]:
        """The rows of up to `num` typical images, spread evenly along the first principal component."""
        plain = np.flatnonzero(self.score <= np.median(self.score)) if len(self.score) else np.zeros(0, np.int64)
        order = plain[np.argsort(self.first[plain], kind="stable")]
        return list(map(int, order[evenly(len(order), num)]))

    def reason(self, row: int) -> str:
        """The feature that is farthest from the others'."""
        return FEATURES[int(self.z[row].argmax())]


def luma(colours: NDArray[np.generic]) -> Floats:
    """Return the luma of (..., 3) red, green and blue."""
    return np.asarray(colours @ np.array(LUMA))


def outliers(records: Records) -> Outliers:
    """Measure how far each image is from the others."""
    distance, first = _appearance(records["thumb"])
    height, width = records["height"].astype(float), records["width"].astype(float)
    columns = (
        luma(records["mean"]),
        records["contrast"].astype(float),
        np.ptp(records["thumb"].astype(np.int16), axis=-1).mean((1, 2)),
        np.log((records["contrast"] + 1) / (luma(records["thumb"]).std((1, 2)) + 1)),
        np.log(height * width),
        np.log(width / height),
        np.log1p(distance),
    )
    z = np.stack([_robust(column) for column in columns], axis=1)
    nearer = distance <= np.median(distance) if len(distance) else np.zeros(0, bool)
    z[nearer, -1] = 0  # an image nearer to the mean than most is no outlier
    return Outliers(z, first)


def _appearance(thumbs: NDArray[np.uint8]) -> tuple[Floats, Floats]:
    """The Mahalanobis distance of each thumbnail from the mean, and its projection on the first component."""
    rows = small(thumbs)
    rows -= rows.mean(0) if len(rows) else 0.0
    if len(rows) < 2:
        return np.zeros(len(rows)), np.zeros(len(rows))
    variances, axes = np.linalg.eigh(rows.T @ rows / len(rows))
    variances, axes = variances[::-1].clip(0), axes[:, ::-1]
    kept = min(COMPONENTS, len(rows) // 4 + 1)
    rest = variances[kept:].mean() + 1.0  # a grey level squared: below that, differences are rounding
    projected = rows @ axes
    scale = np.where(np.arange(len(variances)) < kept, variances, 0.0) + rest
    return np.sqrt((projected**2 / scale).sum(1)), projected[:, 0]


def _robust(values: Floats) -> Floats:
    """Distances from the median in robust standard deviations."""
    if not len(values):
        return values
    apart = np.abs(values - np.median(values))
    scale = 1.4826 * np.median(apart)
    if scale < 1e-9:
        scale = values.std()
    return np.asarray(apart / scale if scale > 1e-9 else np.zeros_like(apart))
