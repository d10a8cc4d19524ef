r"""Between two images: along the arc between the noises that they are drawn from.

Noise of d coordinates has a norm of about sqrt(d), whatever its direction; the straight line between two noises passes
through shorter ones that the model never meets. The arc stays at their length (Shoemake 1985; DDIM Sec. 5.3):

    slerp(a, b; w) = sin((1 - w) theta) / sin(theta) a  +  sin(w theta) / sin(theta) b,     cos(theta) = a.b / (|a| |b|)

A deterministic sampler is continuous in the noise, so neighbours on the arc become images that look alike. A given
image enters by the noise that `invert` finds for it; that end of the row is its reconstruction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Unpack

import torch
from torch import Tensor

from sfumato.diffusion import Noise
from sfumato.edit.invert import decode, encode
from sfumato.edit.sampling import Options, check_image, rmse
from sfumato.errors import UserError
from sfumato.model import Model

__all__ = ["Interpolated", "interpolate", "slerp"]


@dataclass(frozen=True)
class Interpolated:
    """Images from one to another.

    Attributes:
        images: pixels (num, C, H, W), the two ends included.
        angle: between the two noises, in degrees; independent noises of many coordinates have about 90.
        rmse: of each end's reconstruction, in units of stored values; None for an end that was a seed.
    """

    images: Tensor
    angle: float
    rmse: tuple[float | None, float | None]


def interpolate(
    model: Model, a: Tensor | int, b: Tensor | int, num: int = 8, **options: Unpack[Options]
) -> Interpolated:
    """Make the images between two.

    Args:
        model: what it samples from.
        a: the first end: an image, pixels (C, H, W), or a seed, of which image 0 is meant.
        b: the last end, likewise.
        num: how many images, the two ends included.
        options: `Options`; the sampler is DDIM with eta = 0.

    Raises:
        UserError: fewer than 2 images, an image of another shape than the model's, another sampler.
    """
    if num < 2:
        raise UserError(f"num is {num}: ask for at least 2 images, the ends")
    one, other = (_noise(model, end, options) for end in (a, b))
    images = decode(model, slerp(one, other, torch.linspace(0, 1, num, dtype=torch.float64)), **options)
    errors = [None if isinstance(end, int) else _error(model, end, images[n]) for end, n in ((a, 0), (b, -1))]
    return Interpolated(images, float(_angle(one, other).rad2deg()), (errors[0], errors[1]))


def slerp(a: Tensor, b: Tensor, weights: Tensor) -> Tensor:
    """Return points on the arc from a to b, (N, *shape) in a's dtype; all as long as a and b where these are equal.

    Args:
        a: any shape.
        b: the same shape. Where it points along a or against it there is no unique arc, and the line is taken.
        weights: (N,), 0 for a and 1 for b.
    """
    theta, w = _angle(a, b), weights.to(a.device, torch.float64)
    if float(theta.sin()) > 1e-6:
        of_a, of_b = ((1 - w) * theta).sin() / theta.sin(), (w * theta).sin() / theta.sin()
    else:
        of_a, of_b = 1 - w, w
    each = (-1, *[1] * a.ndim)
    return (of_a.reshape(each) * a.double() + of_b.reshape(each) * b.double()).to(a.dtype)


def _angle(a: Tensor, b: Tensor) -> Tensor:
    """Return the angle between two tensors seen as vectors, in radians, float64, exact near 0 too (Kahan)."""
    a, b = a.double().flatten(), b.double().flatten()
    a, b = a / a.norm(), b / b.norm()
    return 2 * torch.atan2((a - b).norm(), (a + b).norm())


def _noise(model: Model, end: Tensor | int, options: Options) -> Tensor:
    """Return the noise (C, H, W) of a seed or an image, on the model's device."""
    if isinstance(end, int):
        return Noise(end, torch.zeros(1, dtype=torch.int64, device=model.device), model.shape).prior()[0]
    check_image(model, end)
    return encode(model, end[None], **options)[0]


def _error(model: Model, image: Tensor, made: Tensor) -> float:
    """Return the RMSE of one end."""
    return float(rmse(model, image[None].cpu(), made[None]))
