r"""Between two images: along the arc between the noises that they are drawn from.

Noise of d coordinates has a norm of about sqrt(d), whatever its direction; the straight line between two noises passes
through shorter ones that the model never meets. The arc stays at their length (Shoemake 1985; DDIM Sec. 5.3):

    slerp(a, b; w) = sin((1 - w) theta) / sin(theta) a  +  sin(w theta) / sin(theta) b,     cos(theta) = a.b / (|a| |b|)

Every noise on it becomes an image by a deterministic sampler, which is continuous, so neighbours look alike. A real
image takes part by the noise that `invert` finds for it; the ends of the row are then its reconstructions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sfumato.diffusion import Noise
from sfumato.edit.invert import decode, encode
from sfumato.edit.walk import Walk, check_image, device_of, rmse
from sfumato.errors import UserError

if TYPE_CHECKING:
    from sfumato.model import Model

__all__ = ["Interpolated", "interpolate", "slerp"]


@dataclass(frozen=True)
class Interpolated:
    """The way from one image to another.

    Attributes:
        images: (num, C, H, W), the two ends included.
        angle: between the two noises, in degrees; independent noises of many coordinates have about 90.
        rmse: of each end's reconstruction, in grey levels of 0 to 255; None for an end that was a seed.
    """

    images: Tensor
    angle: float
    rmse: tuple[float | None, float | None]


def interpolate(model: Model, a: Tensor | int, b: Tensor | int, num: int = 8, walk: Walk = Walk()) -> Interpolated:
    """Draw the images between two.

    Args:
        model: draws.
        a: where to begin: an image (C, H, W) in [-1, 1], or a seed, whose image 0 is meant.
        b: where to end, likewise.
        num: how many images, the two ends included.
        walk: the times, the denoiser and the condition; the sampler is always DDIM with eta = 0.

    Raises:
        UserError: fewer than 2 images, or an image of another shape than the model's.
    """
    if num < 2:
        raise UserError(f"{num} images between two: ask for at least 2, the ends")
    noises = [_noise(model, end, walk) for end in (a, b)]
    images = decode(model, slerp(noises[0], noises[1], torch.linspace(0, 1, num, dtype=torch.float64)), walk)
    errors = [None if isinstance(end, int) else _error(end, images[n]) for end, n in ((a, 0), (b, -1))]
    return Interpolated(images, float(_angle(noises[0], noises[1]).rad2deg()), (errors[0], errors[1]))


def slerp(a: Tensor, b: Tensor, weights: Tensor) -> Tensor:
    """Return points on the arc from a to b; of one and the same length where a and b have it.

    Args:
        a: any shape.
        b: the same shape. Where it points exactly along a or against it there is no one arc, and the line is taken.
        weights: (N,), 0 for a and 1 for b.

    Returns:
        (N, *shape) in a's dtype.
    """
    theta, w = _angle(a, b), weights.to(a.device, torch.float64)
    if float(theta.sin()) > 1e-6:
        of_a, of_b = ((1 - w) * theta).sin() / theta.sin(), (w * theta).sin() / theta.sin()
    else:
        of_a, of_b = 1 - w, w
    each = (-1, *[1] * a.ndim)
    return (of_a.reshape(each) * a.double() + of_b.reshape(each) * b.double()).to(a.dtype)


def _angle(a: Tensor, b: Tensor) -> Tensor:
    """The angle between two tensors seen as vectors, in radians, float64, exact near 0 too (Kahan)."""
    a, b = a.double().flatten(), b.double().flatten()
    a, b = a / a.norm(), b / b.norm()
    return 2 * torch.atan2((a - b).norm(), (a + b).norm())


def _noise(model: Model, end: Tensor | int, walk: Walk) -> Tensor:
    """The noise (C, H, W) of a seed or an image, on the model's device."""
    if isinstance(end, int):
        return Noise(end, torch.zeros(1, dtype=torch.int64, device=device_of(model)), model.shape).prior()[0]
    check_image(model, end)
    return encode(model, end[None], walk)[0]


def _error(image: Tensor, drawn: Tensor) -> float:
    """RMSE of one end."""
    return float(rmse(image[None].cpu(), drawn[None]))
