"""Statistics of a set of images, and the distances of their images.

Noise, grey, tint, blur and collapse are words for statistics of a set of images x^(1) .. x^(N), pixels in [-1, 1]:

    level         mean and standard deviation of each channel, and the values below which 1 % and 99 % of its pixels lie
    grain         the standard deviation of (a - b - c + d) / 2 over every square of pixels  a b / c d; for white noise
                  of standard deviation sigma it is sigma, for anything smooth next to nothing
    correlation   of neighbouring pixels, about the mean of their channel: 0 for white noise, near 1 for photographs
    diversity     mean root-mean-square difference of two images of the set: 0 when all are one

Distances of images whose sides are above 32 pixels are taken after averaging over squares, so that they are cheap. How
far two sets are apart is measured by `evaluate.verdict`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from sfumato.evaluate.verdict import clamped

EDGE = 1 - 1 / 255
"""Beyond it a pixel becomes byte 0 or 255."""
SIDE = 32
"""Largest side of the images whose distances are taken."""


@dataclass(frozen=True)
class ImageStatistics:
    """Statistics of a set of images, pixels in [-1, 1], defined above: `low` and `high` are the values below which 1 %
    and 99 % of a channel's pixels lie, `black` and `white` the fractions of values that become byte 0 and 255."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    black: float
    white: float
    grain: float
    correlation: float
    diversity: float

    @property
    def contrast(self) -> float:
        """Standard deviation of a pixel, root mean square over the channels."""
        return float(torch.tensor(self.std).square().mean().sqrt())

    @property
    def brightness(self) -> float:
        """Mean of all values."""
        return sum(self.mean) / len(self.mean)


def image_statistics(images: Tensor) -> ImageStatistics:
    """Measure a set of pixels (N, C, H, W), N > 1, clamped to [-1, 1], as they are when they are shown; NaN is -1."""
    x = clamped(images.double())
    channels = x.transpose(0, 1).flatten(1)
    ordered = channels.sort(1).values  # torch.quantile takes 2^24 values at most
    low, high = (ordered[:, round(q * (channels.shape[1] - 1))] for q in (0.01, 0.99))
    return ImageStatistics(
        mean=tuple(channels.mean(1).tolist()),
        std=tuple(channels.std(1, unbiased=False).tolist()),
        low=tuple(low.tolist()),
        high=tuple(high.tolist()),
        black=float((x < -EDGE).double().mean()),
        white=float((x > EDGE).double().mean()),
        grain=_grain(x),
        correlation=_correlation(x - channels.mean(1)[:, None, None]),
        diversity=_within(x),
    )


def nearest(x: Tensor, y: Tensor) -> Tensor:
    """Return (N,), the root-mean-square difference of each image of x (N, C, H, W) from the nearest of y."""
    return _distances(clamped(x.double()), clamped(y.double())).min(1).values


def _distances(x: Tensor, y: Tensor) -> Tensor:
    """Root-mean-square differences of all pairs, (N, M); by differences, since the usual product loses digits."""
    x, y = reduced(x), reduced(y)
    distances: Tensor = torch.cdist(x.flatten(1), y.flatten(1), compute_mode="donot_use_mm_for_euclid_dist")
    return distances.div_(x[0].numel() ** 0.5)


def reduced(x: Tensor, side: int = SIDE) -> Tensor:
    """Return images averaged over squares until their sides are at most `side`; bytes stay bytes."""
    factor = -(-max(x.shape[-2:]) // side)
    if x.dtype == torch.uint8 and factor > 1:
        return reduced(x.float(), side).round().to(x.dtype)
    pooled: Tensor = F.avg_pool2d(x, factor, ceil_mode=True) if factor > 1 else x
    return pooled


def _within(x: Tensor) -> float:
    """Mean distance of two different images of a set."""
    return float(_distances(x, x).sum()) / (len(x) * (len(x) - 1))


def _grain(x: Tensor) -> float:
    """The diagonal Haar coefficient's standard deviation; 0 for images of one row or column."""
    if min(x.shape[-2:]) < 2:
        return 0.0
    diagonal = x[..., :-1, :-1] - x[..., :-1, 1:] - x[..., 1:, :-1] + x[..., 1:, 1:]
    return float((diagonal / 2).square().mean().sqrt())


def _correlation(centred: Tensor) -> float:
    """Correlation of neighbours along the rows and the columns; 0 where nothing varies."""
    products = [(centred[..., 1:, :], centred[..., :-1, :]), (centred[..., :, 1:], centred[..., :, :-1])]
    pairs = [(a, b) for a, b in products if a.numel()]
    top = sum(float((a * b).sum()) for a, b in pairs)
    bottom = sum(float((a.square().sum() * b.square().sum()).sqrt()) for a, b in pairs)
    return top / bottom if bottom > 0 else 0.0
