"""Image statistics: outliers, typical images, and a test whether mirroring changes the distribution.

**Outliers.** Seven numbers describe an image: brightness, contrast, colour (how far apart the channels are), detail
(how much of the contrast a thumbnail loses: noise and fine print lose most), area, proportions (these three as
logarithms), and appearance, the Mahalanobis distance of its 8 x 8 thumbnail from the mean,

    D^2 = sum_k s_k^2 / (lambda_k + lambda_rest),

with s_k the projections on the principal components, lambda_k their variances and lambda_rest the mean of those beyond
the first `COMPONENTS`. Each number becomes a robust z, its distance from the median over 1.4826 times the median of
such distances (which is the standard deviation for normal data; that itself where the median distance is 0). An image's
score is its largest z, and that number is the reason. **Typical** images score no more than the median.

**Mirror test.** Where left and right do not matter, an image and its mirror image are equally likely to be nearer to
the nearest other image. The fraction of images whose mirror image is the farther one is then 1/2 with a standard error
of 1/(2 sqrt n); text and digits are far above. Images that are their own mirror image are not counted. The size of the
effect is the median of (distance of the mirror image) / (distance of the image): 1.8 for handwritten digits, 1.2 for
clothes and 1.0 for emoji.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sfumato.diffusion.inverse.operators import LUMA
from sfumato.inspect.scan import THUMB, Records

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


@dataclass(frozen=True)
class Mirror:
    """The outcome of the mirror test.

    Attributes:
        num: images that were counted.
        fraction: of them whose mirror image is farther from the others than they are; 1/2 where sides do not matter.
        farther: the median of the ratio of the two distances.
        symmetric: fraction of the images tried that are their own mirror image.
    """

    num: int
    fraction: float
    farther: float
    symmetric: float

    @property
    def z(self) -> float:
        """How many standard errors the fraction is above 1/2."""
        return float((self.fraction - 0.5) * 2 * np.sqrt(self.num))

    @property
    def verdict(self) -> str:
        """`symmetric`, `unsure`, `flip`, `some` (a part of the images has a side) or `keep`."""
        if self.symmetric > 0.9:
            return "symmetric"
        if self.num < 100:
            return "unsure"
        if self.z < 4 or self.farther < 1.1:
            return "flip"
        return "some" if self.farther < 1.4 else "keep"


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


def mirror_test(records: Records, num: int = 1000, among: int = 5000) -> Mirror:
    """Test whether the mirror images of `num` images look like members of the collection, `among` so many of it; the
    records are of images without duplicates."""
    thumbs = records["thumb"][evenly(len(records), among)]
    tried, others = evenly(len(thumbs), num), _small(thumbs)
    own = _nearest(others[tried], others, tried)
    there = _nearest(_small(thumbs[tried][:, :, ::-1]), others, tried)
    same = (thumbs[tried] == thumbs[tried][:, :, ::-1]).all((1, 2, 3))
    counted = ~same & np.isfinite(there) & (there != own)
    symmetric = float(same.mean()) if len(same) else 0.0
    if not counted.any():
        return Mirror(0, 0.5, 1.0, symmetric)
    there, own = there[counted].clip(0), own[counted].clip(1e-9)
    return Mirror(len(own), float((there > own).mean()), float(np.sqrt(np.median(there / own))), symmetric)


def evenly(count: int, num: int) -> NDArray[np.int64]:
    """Return at most `num` of the indices below `count`, spread evenly."""
    return np.linspace(0, count - 1, min(count, num)).round().astype(np.int64) if count else np.zeros(0, np.int64)


def _nearest(rows: Floats, others: Floats, own: NDArray[np.int64]) -> Floats:
    """The squared distance of each row from the nearest of the others, but for the one that it is itself."""
    distance = (rows**2).sum(1)[:, None] + (others**2).sum(1) - 2 * rows @ others.T
    distance[np.arange(len(rows)), own] = np.inf
    return np.asarray(distance.min(1, initial=np.inf))


def _small(thumbs: NDArray[np.uint8]) -> Floats:
    """(N, 192) thumbnails of 8 x 8."""
    parts = [thumbs[n : n + 8192] for n in range(0, len(thumbs), 8192)]
    half = THUMB // 2
    blocks = [part.reshape(-1, half, 2, half, 2, 3).mean((2, 4)).reshape(len(part), -1) for part in parts]
    return np.concatenate([np.zeros((0, 3 * half * half)), *blocks])


def _appearance(thumbs: NDArray[np.uint8]) -> tuple[Floats, Floats]:
    """The Mahalanobis distance of each thumbnail from the mean, and its projection on the first component."""
    rows = _small(thumbs)
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
