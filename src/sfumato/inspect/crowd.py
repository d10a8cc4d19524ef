"""Where each picture stands among the others: which are odd, which are typical, and whether mirroring belongs.

**Odd.** Seven numbers say what a picture is like: brightness, contrast, colour (how far apart the channels are), detail
(how much of the contrast a thumbnail loses: noise and fine print lose most), area, proportions (these three as
logarithms), and appearance, the Mahalanobis distance of its 8 x 8 thumbnail from the mean,

    D^2 = sum_k s_k^2 / (lambda_k + lambda_rest),

with s_k the projections on the principal components, lambda_k their variances and lambda_rest the mean of those beyond
the first `COMPONENTS`. Each number becomes a robust z, its distance from the median over 1.4826 times the median of
such distances (which is the standard deviation for normal data). A picture is as odd as its largest z, and that is
said to be why. Where all pictures but a few agree exactly, the standard deviation stands in.

**Typical** are pictures no odder than the median, spread evenly along the first principal component.

**Mirror.** If a collection doesn't care for left and right, a picture and its mirror image are equally likely members,
so it is a toss-up which of the two is nearer to its nearest other picture. The share of pictures whose mirror image is
the farther one is therefore 1/2 with a standard error of 1/(2 sqrt n), whatever the pictures show; text and digits lie
far above. Pictures that are their own mirror image say nothing and are not counted. How much it matters is another
question: the median of (distance of the mirror image) / (distance of the picture) is 1.8 for handwritten digits, 1.2
for clothes (2 to 3 for shoes, all of which point one way, and 1.0 for shirts) and 1.0 for emoji.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sfumato.inspect.look import THUMB, Sights

__all__ = ["LUMA", "ODD", "Mirror", "Oddness", "mirror_test", "oddness", "typical"]

ODD = 5.0
"""Robust z from which a picture is called odd; of normal data one in two million is."""
COMPONENTS = 16
FEATURES = ("brightness", "contrast", "colour", "detail", "area", "proportions", "appearance")

LUMA = np.array([0.299, 0.587, 0.114])
"""What red, green and blue add to the luma (BT.601)."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Oddness:
    """How far each of N pictures is from the others.

    Attributes:
        z: (N, 7) robust z of `FEATURES`.
        first: (N,) projection on the first principal component.
    """

    z: Floats
    first: Floats

    @property
    def score(self) -> Floats:
        """(N,): the largest z."""
        best: Floats = self.z.max(1, initial=0.0)
        return best

    def odd(self, most: int | None = None) -> list[int]:
        """The places of odd pictures, the oddest first."""
        order = np.argsort(-self.score, kind="stable")
        return [int(place) for place in order if self.score[place] >= ODD][:most]

    def reason(self, place: int) -> str:
        """Which number makes a picture odd."""
        return FEATURES[int(self.z[place].argmax())]


@dataclass(frozen=True)
class Mirror:
    """The outcome of the test of left and right.

    Attributes:
        num: pictures that say anything.
        share: of them, how many have a mirror image that is farther from the others than they are; 1/2 where sides
            don't matter.
        farther: the median of the ratio of the two distances.
        symmetric: share of pictures that are their own mirror image, of those tried.
    """

    num: int
    share: float
    farther: float
    symmetric: float

    @property
    def z(self) -> float:
        """How many standard errors the share is above 1/2."""
        return float((self.share - 0.5) * 2 * np.sqrt(self.num))

    @property
    def verdict(self) -> str:
        """`symmetric`, `unsure`, `flip`, `some` (part of the pictures have a side) or `keep`."""
        if self.symmetric > 0.9:
            return "symmetric"
        if self.num < 100:
            return "unsure"
        if self.z < 4 or self.farther < 1.1:
            return "flip"
        return "some" if self.farther < 1.4 else "keep"


def oddness(sights: Sights) -> Oddness:
    """Measure how far each picture is from the others."""
    distance, first = _appearance(sights["thumb"])
    apart = np.ptp(sights["thumb"].astype(np.int16), axis=-1).mean((1, 2))
    height, width = sights["height"].astype(float), sights["width"].astype(float)
    shades = sights["thumb"] @ LUMA
    columns = (
        sights["mean"] @ LUMA,
        sights["contrast"].astype(float),
        apart,
        np.log((sights["contrast"] + 1) / (shades.std((1, 2)) + 1)),
        np.log(height * width),
        np.log(width / height),
        np.log1p(distance),
    )
    z = np.stack([_robust(column) for column in columns], axis=1)
    nearer = distance <= np.median(distance) if len(distance) else np.zeros(0, bool)
    z[nearer, -1] = 0  # to be nearer to the mean than most is not odd
    return Oddness(z, first)


def typical(found: Oddness, num: int) -> list[int]:
    """The places of typical pictures."""
    plain = np.flatnonzero(found.score <= np.median(found.score)) if len(found.score) else np.zeros(0, np.int64)
    order = plain[np.argsort(found.first[plain], kind="stable")]
    spread = np.linspace(0, len(order) - 1, min(num, len(order))).round().astype(int)
    return [int(place) for place in order[spread]]


def mirror_test(sights: Sights, num: int = 1000, among: int = 5000) -> Mirror:
    """Test whether the mirror images of pictures look like members of the collection.

    Args:
        sights: the pictures; copies should have been left out.
        num: how many are tried.
        among: how many others they are compared with; both are spread evenly over the collection.
    """
    some = sights[_spread(len(sights), among)]
    tried = _spread(len(some), num)
    crowd = _small(some["thumb"])
    apart = {}
    for mirrored, thumbs in ((False, some["thumb"]), (True, some["thumb"][:, :, ::-1])):
        own = _small(thumbs)[tried]
        distance = (own**2).sum(1)[:, None] + (crowd**2).sum(1) - 2 * own @ crowd.T
        distance[np.arange(len(tried)), tried] = np.inf  # neither may choose the picture itself
        apart[mirrored] = distance.min(1, initial=np.inf)
    same = (some["thumb"][tried] == some["thumb"][tried][:, :, ::-1]).all((1, 2, 3))
    counted = ~same & np.isfinite(apart[True]) & (apart[True] != apart[False])
    if not counted.any():
        return Mirror(0, 0.5, 1.0, float(same.mean()) if len(same) else 0.0)
    there, own = apart[True][counted].clip(0), apart[False][counted].clip(1e-9)
    return Mirror(
        int(counted.sum()), float((there > own).mean()), float(np.sqrt(np.median(there / own))), float(same.mean())
    )


def _spread(count: int, num: int) -> NDArray[np.int64]:
    """At most `num` of `count` places, spread evenly."""
    return np.linspace(0, count - 1, min(count, num)).round().astype(np.int64) if count else np.zeros(0, np.int64)


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
    z: Floats = apart / scale if scale > 1e-9 else np.zeros_like(apart)
    return z
