r"""Augmentation: random crops, mirroring, and alterations whose parameters the network gets as an input.

**Crop and mirror** make images that could be in the data. With `data.crop=random` an image is cut out of a larger
picture at `uniform(s, CROP, n)`, and with `data.flip` it is mirrored where `uniform(s, FLIP, n) < 1/2`, s the seed and
n the position in the training stream.

**Augmentation that doesn't leak.** A network trained on few images memorises them. Moving, rotating and stretching
makes them many more, but a model of such images would also sample moved, rotated and stretched ones. Karras et al. 2022
(EDM, arXiv 2206.00364, Appendix F.2 and Table 6) give the network the alteration as nine more inputs, all zero for an
unaltered image. Zeros at sampling time then give unaltered images. The rows of the table are applied from top to
bottom:

    kind        chance   alteration                                              numbers
    x-flip      1/2      mirrored left to right                                  1
    y-flip      p/2      mirrored top to bottom                                  1
    scale       p        enlarged 2^(0.2 w)-fold, w ~ N(0, 1)                    w
    rotate      p        turned anticlockwise by phi ~ U(-pi, pi)                cos phi - 1, sin phi
    stretch     p        2^(0.2 w)-fold along a direction r, 2^(-0.2 w) across   w cos 2r, w sin 2r
    translate   p        moved by W/8 w_x to the right, H/8 w_y down             w_x, w_y

r is 0 in half of the cases and any direction in the other half. Chances and strengths are those of the paper's code for
CIFAR-10 (NVlabs/edm, train.py and training/augment.py), where p = 0.12. One thing differs: there the numbers of a
stretch are w cos r, w sin r, which are the same for (w, r) and (-w, r + pi) though one stretch undoes the other. The
doubled angle has no such pairs, so here the numbers determine the alteration, and `augment` is a function of them.

Mirroring moves pixels. The rest is one affine map an image, and one resampling: the pixel at d from the middle of the
result is the original at M^-1 (d - shift) from its middle, M = stretch rotate scale. Between pixels the image is the
cubic spline through them (Unser 1999, "Splines: a perfect fit for signal and image processing"): a sum of B-splines
whose coefficients are the pixels times the inverse of a band matrix, a product a side. Beyond its edge the image
continues as its mirror image about the last pixel's middle, and so do the coefficients. A B-spline covers 4 x 4 pixels,
and since its weights are positive, two of a row at a time are one bilinear sample between them: four samples in all
(Sigg, Hadwiger 2005, GPU Gems 2, chapter 20). Unaltered images stay as they are, bit for bit.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from sfumato.config.augment import KINDS, AugmentConfig
from sfumato.data.sources.protocol import Pixels
from sfumato.diffusion.noise import Purpose, normal, uniform

BLOCK = 1024
"""Positions whose mirroring is computed at once."""
_SCALE, _STRETCH, _SHIFT = 0.2, 0.2, 1 / 8


def cut_out(
    whole: Pixels, size: tuple[int, int], rows: NDArray[np.int64], seed: int, positions: Tensor
) -> NDArray[Any]:
    """Cut images (B, C, *size) out of rows (B,) of larger pictures (N, C, H', W'), anywhere with the same chance."""
    height, width = size
    room = torch.tensor(whole.shape[2:]) - torch.tensor(size)
    corners = (uniform(seed, Purpose.CROP, positions, (2,)) * (room + 1)).long().tolist()
    return np.stack(
        [whole[row, :, top : top + height, left : left + width] for row, (top, left) in zip(rows, corners, strict=True)]
    )


def mirror(x: Tensor, seed: int, positions: Tensor) -> None:
    """Mirror half of the images (B, C, H, W) left to right, in place: those whose own random number is below 1/2."""
    blocks, mirrored = positions // BLOCK, torch.empty(positions.shape, dtype=torch.bool)
    for block in set(blocks.tolist()):
        here = blocks == block
        mirrored[here] = _mirrored(seed, block)[positions[here] - block * BLOCK]
    plain = x.view(torch.int16) if x.dtype == torch.uint16 else x  # torch can't mirror uint16
    plain[mirrored] = plain[mirrored].flip(-1)


@lru_cache(maxsize=4)
def _mirrored(seed: int, block: int) -> Tensor:
    """Which positions of a block are mirrored; cached, since sixteen random numbers cost as much as a thousand."""
    return uniform(seed, Purpose.FLIP, torch.arange(block * BLOCK, (block + 1) * BLOCK), ()) < 0.5


def draw(config: AugmentConfig, seed: int, positions: Tensor) -> Tensor:
    """Return the alterations of examples, (B, NUMBERS) float32 in the order of the module's table; zeros for none.

    Each kind has random numbers of its own (of purpose AUGMENT), so leaving one out changes nothing about the others.

    Args:
        config: the kinds and their probability.
        seed: the run's.
        positions: (B,) int64, of the training stream.
    """
    u = uniform(seed, Purpose.AUGMENT, positions, (len(KINDS) + 2,))
    scale, stretch, x, y = normal(seed, Purpose.AUGMENT, positions, (4,), step=1, dtype=torch.float64).unbind(1)
    angle, doubled = 2 * math.pi * u[:, -2], 2 * math.pi * (2 * u[:, -1] - 1).clamp_min(0)
    chances = (0.5, config.p / 2, config.p, config.p, config.p, config.p)
    numbers = (
        (torch.ones_like(x),),
        (torch.ones_like(x),),
        (scale,),
        (angle.cos() - 1, angle.sin()),
        (stretch * doubled.cos(), stretch * doubled.sin()),
        (x, y),
    )
    columns = []
    for k, kind in enumerate(KINDS):
        done = u[:, k] < (chances[k] if kind in config.kinds else 0)
        columns += [torch.where(done, number, 0.0) for number in numbers[k]]
    return torch.stack(columns, dim=1).float()


def augment(x: Tensor, numbers: Tensor) -> Tensor:
    """Alter images; rows of zeros leave their image as it is, and x's memory layout is kept.

    Args:
        x: (B, C, H, W) float32, on any device. numbers: (B, NUMBERS) from `draw`, on the CPU, so that finding the
        images that change does not wait for the device.
    """
    x = x.clone()
    for column, axis in ((0, -1), (1, -2)):
        rows = numbers[:, column].nonzero()[:, 0]
        x[rows] = x[rows].flip(axis)
    rows = numbers[:, 2:].any(dim=1).nonzero()[:, 0]
    if len(rows):
        x[rows] = resample(x[rows], inverse(numbers[rows], *x.shape[-2:]))
    return x


def inverse(numbers: Tensor, height: int, width: int) -> Tensor:
    """Return the map from each pixel of a result to its origin, without mirroring: (M^-1, -M^-1 shift), (B, 2, 3)
    float64.

    It maps (x, y, 1) to (x, y), pixels to the right of the middle and below it.
    """
    scale, cos, sin, a, b, x, y = numbers[:, 2:].double().unbind(1)
    cos = cos + 1
    # A stretch is exp(k [[a, -b], [-b, -a]]) with y downwards, whose square is k^2 (a^2 + b^2) times the identity.
    size, k = torch.hypot(a, b), _STRETCH * math.log(2)
    even, odd = torch.cosh(k * size), torch.sinh(k * size) / size.clamp_min(1e-12)
    unstretch = _matrix(even - odd * a, odd * b, odd * b, even + odd * a)
    linear = torch.exp2(-_SCALE * scale)[:, None, None] * _matrix(cos, -sin, sin, cos) @ unstretch
    shift = torch.stack((_SHIFT * width * x, _SHIFT * height * y), dim=1)[:, :, None]
    return torch.cat((linear, -linear @ shift), dim=2)


def _matrix(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    """(B, 2, 2) matrices of their four entries (B,), row by row."""
    return torch.stack((a, b, c, d), dim=1).reshape(-1, 2, 2)


def resample(x: Tensor, matrix: Tensor) -> Tensor:
    """Resample images (B, C, H, W) float32 by cubic splines, mirrored beyond their edge.

    `matrix` (B, 2, 3) maps each pixel to its origin, as `inverse` returns it. No value leaves the range that its
    channel of the image had.
    """
    height, width = x.shape[-2:]
    coefficients = _unmixing(height).to(x) @ x @ _unmixing(width).to(x).T
    down, right = (torch.arange(n, dtype=x.dtype, device=x.device) - (n - 1) / 2 for n in (height, width))
    (a, b, c), (d, e, f) = matrix.to(x).permute(1, 2, 0)[..., None, None].unbind()
    columns = _looks(a * right + b * down[:, None] + c + (width - 1) / 2, width)
    rows = _looks(d * right + e * down[:, None] + f + (height - 1) / 2, height)
    total = torch.zeros_like(coefficients)
    for across, weight_x in columns:
        for along, weight_y in rows:
            seen = F.grid_sample(
                coefficients, torch.stack((across, along), -1), padding_mode="reflection", align_corners=True
            )
            total += (weight_x * weight_y)[:, None] * seen
    return total.clamp_(x.amin((2, 3), keepdim=True), x.amax((2, 3), keepdim=True))


def _looks(point: Tensor, count: int) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return two points between pixels, and their weights, that are equivalent to the four B-splines around a point.

    The point lies along a side of so many pixels; those returned go from -1 to 1, as `grid_sample` counts them.
    """
    before = point.floor()
    f = point - before
    first, last = (1 - f) ** 3 / 6, f**3 / 6
    second = 2 / 3 - f.square() + f**3 / 2
    left, right = first + second, 1 - first - second
    unit = 2 / max(count - 1, 1)
    return ((before - 1 + second / left) * unit - 1, left), ((before + 1 + last / right) * unit - 1, right)


@lru_cache(maxsize=8)
def _unmixing(count: int) -> Tensor:
    """Return the matrix (count, count) that turns a row of pixels into its spline's coefficients.

    A spline's value at a pixel is 2/3 of that pixel's coefficient and 1/6 of each neighbour's; the neighbour beyond an
    edge is the one within it.
    """
    mixing, pixels = torch.zeros(count, count, dtype=torch.float64), torch.arange(count)
    inner = min(1, count - 1)
    for neighbour, weight in ((pixels, 2 / 3), ((pixels - 1).abs(), 1 / 6), (pixels + 1, 1 / 6)):
        columns = neighbour.where(neighbour < count, count - 1 - inner).clamp_max(count - 1)
        mixing.index_put_((pixels, columns), torch.tensor(weight, dtype=torch.float64), accumulate=True)
    unmixing: Tensor = torch.linalg.inv(mixing).float()
    return unmixing
