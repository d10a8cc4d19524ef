r"""Layout and detail of an image: no network, so it works for any data, and it sees grain, which means of blocks hide.

    layout    the means of each channel over a grid of at most 8x8 cells, in [-1, 1]
    detail    log of the root mean square of Haar's three differences, at three scales, in each of 4x4 regions,

        1/2 log( mean over the region of d^2 + FLOOR^2 ),
        d = (a - b + c - e)/2,  (a + b - c - e)/2,  (a - b - c + e)/2     for every square of pixels  a b / c e

The next scale takes the means of 2x2 squares. Noise of deviation sigma has a detail of at least log sigma everywhere,
where images have flat regions; blurred images lack it at the first scale. Each part is scaled as if it had all
numbers, the layout then by `WEIGHT`, so that both matter: with the layout alone, noise around the mean of
32x32 pictures has precision 1, since means are near everything. `parts` takes the two apart again.

A texture is described by its strength and direction, not by its shape: features of a network that knows objects
(`dinov2:PATH`) see more.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from sfumato.codec.format import EIGHT, PixelFormat
from sfumato.evaluate.extractors.weights import fingerprint
from sfumato.evaluate.features import Extractor, Shape

GRID, REGIONS, SCALES = 8, 4, 3
FLOOR = 0.1
"""Added to the root mean square of a difference, of a range of 2: noise below 13 of 255 hardly counts."""
WEIGHT = 1.4
FEW_CHANNELS = 4
"""With more channels than this the detail is that of all channels together, and the grid is 4x4."""


def open_features(path: Path, shape: Shape, device: str = "cpu", format: PixelFormat = EIGHT) -> Extractor:
    """Return layout and detail of images of a shape; no file is read."""
    cells, (channels, height, width) = _cells(shape), shape
    words = "" if format == EIGHT else f" ({format.words})"
    recipe = (
        f"{channels}x{height}x{width} pixels{words} in [-1, 1]: means of {cells[0]}x{cells[1]} cells, strength of "
        "detail at up to 3 scales"
    )
    return Extractor(
        name="wavelets",
        sha256=fingerprint(f"{recipe} 1"),
        dim=sum(sizes(shape)),
        recipe=recipe,
        features=lambda images: features(format.to_model(images).to(device)),
        format=format,
        device=device,
    )


def features(x: Tensor) -> Tensor:
    """Return layout and detail, (N, D), of pixels (N, C, H, W) in [-1, 1]."""
    shape = (x.shape[1], x.shape[2], x.shape[3])
    layout = F.adaptive_avg_pool2d(x, _cells(shape)).flatten(1)
    scales, low = [], x
    for _ in range(_scales(shape)):
        scales.append(_detail(low))
        low = F.avg_pool2d(low, 2, ceil_mode=True)
    detail = torch.cat(scales, 1) if scales else x.new_zeros(len(x), 0)
    total = layout.shape[1] + detail.shape[1]
    own = WEIGHT * math.sqrt(total / layout.shape[1])
    return torch.cat([layout * own, detail * math.sqrt(total / max(1, detail.shape[1]))], 1)


def parts(both: Tensor, shape: Shape) -> dict[str, Tensor]:
    """Return layout and detail of `features` (N, D) of images of a shape (C, H, W); the detail may be empty."""
    layout, detail = torch.split(both, sizes(shape), 1)  # type: ignore[no-untyped-call]
    return {"layout": layout, "detail": detail}


def sizes(shape: Shape) -> list[int]:
    """Return how many numbers are layout, and how many detail."""
    rows, columns = _cells(shape)
    channels = shape[0] if shape[0] <= FEW_CHANNELS else 1
    regions = 0
    height, width = shape[1:]
    for _ in range(_scales(shape)):
        regions += min(REGIONS, height - 1) * min(REGIONS, width - 1)
        height, width = -(-height // 2), -(-width // 2)
    return [shape[0] * rows * columns, 3 * channels * regions]


def _cells(shape: Shape) -> tuple[int, int]:
    """Rows and columns of the layout's grid."""
    most = GRID if shape[0] <= FEW_CHANNELS else GRID // 2
    return min(most, shape[1]), min(most, shape[2])


def _scales(shape: Shape) -> int:
    """Scales at which both sides have at least two pixels."""
    return min(SCALES, (min(shape[1:]) - 1).bit_length())


def _detail(x: Tensor) -> Tensor:
    """The detail of pixels (N, C, H, W) at their own scale, flat."""
    a, b, c, e = x[..., :-1, :-1], x[..., :-1, 1:], x[..., 1:, :-1], x[..., 1:, 1:]
    regions = min(REGIONS, x.shape[2] - 1), min(REGIONS, x.shape[3] - 1)
    strengths = []
    for difference in (a - b + c - e, a + b - c - e, a - b - c + e):
        square = (difference / 2).square()
        square = square if x.shape[1] <= FEW_CHANNELS else square.mean(1, keepdim=True)
        strengths.append(0.5 * torch.log(F.adaptive_avg_pool2d(square, regions) + FLOOR**2).flatten(1))
    return torch.cat(strengths, 1)
