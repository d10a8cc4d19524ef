r"""Images that explain a measurement: colours for a grey image, detail for a small or a blurred one.

What is given is y = A x_0 + s_y n, with A a linear operator: the luma, block means, a blur, anything of
`diffusion.inverse`. Wanted are draws from p(x_0 | y): several, since many images explain one measurement. The model's
denoiser is corrected by the gradient of log p(y | x_t) and goes into an ordinary sampler; the methods differ in how
they approximate that likelihood (see `diffusion.inverse.posterior`, where the formulae stand):

    pigdm       one variance for all pixels; one pass backwards a step
    moments     the denoiser's own covariance; six passes backwards a step; the least biased where the truth is known
    dps         the direction of the gradient with a step size; one pass backwards; for walks of many steps

The result is no exact inverse: how far it is from explaining y is reported as the residual, RMSE(A x, y) in grey
levels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sfumato.diffusion import Denoiser
from sfumato.diffusion.inverse import (
    DPS,
    Blur,
    Downscale,
    Grayscale,
    LinearOperator,
    MomentMatching,
    PiGDM,
    gaussian_kernel,
)
from sfumato.edit.walk import STOCHASTIC, Walk, check_image, device_of, draw, rmse
from sfumato.errors import UserError, nearest

if TYPE_CHECKING:
    from sfumato.model import Model

__all__ = [
    "POSTERIORS",
    "ROUNDING",
    "Restored",
    "blur",
    "check_factor",
    "colorize",
    "deblur",
    "posterior",
    "restore",
    "upscale",
]

Posterior = Callable[[Denoiser, LinearOperator, Tensor, float], Denoiser]
"""(denoiser, operator, y, noise_std) -> the denoiser of the images that explain y."""

POSTERIORS: dict[str, Posterior] = {"pigdm": PiGDM, "moments": MomentMatching, "dps": DPS}
"""The posterior methods by name."""

ROUNDING = 2 / 255 / sqrt(12)
"""Standard deviation that rounding to bytes gives a measurement, in units of [-1, 1]: one level is 2 / 255 wide."""


@dataclass(frozen=True)
class Restored:
    """Images that explain a measurement.

    Attributes:
        images: (num, C, H, W).
        residual: (num,) float64, RMSE between the measurement and what each image would measure, in grey levels.
    """

    images: Tensor
    residual: Tensor


def posterior(name: str) -> Posterior:
    """Return a posterior method by name.

    Raises:
        UserError: no such method.
    """
    if name not in POSTERIORS:
        raise UserError(f"there is no method '{name}'{nearest(name, POSTERIORS)}")
    return POSTERIORS[name]


def restore(
    model: Model,
    y: Tensor,
    operator: LinearOperator,
    noise_std: float = ROUNDING,
    num: int = 8,
    seed: int = 0,
    method: str = "pigdm",
    walk: Walk = STOCHASTIC,
) -> Restored:
    """Draw images that explain a measurement.

    Args:
        model: draws; its denoiser needs a gradient, which a network has.
        y: what was measured, the operator's output for one image, without the batch's axis.
        operator: A.
        noise_std: s_y, the measurement's noise, in units of images in [-1, 1].
        num: how many images.
        seed: image i of a seed is always the same.
        method: `pigdm`, `moments` or `dps`.
        walk: how to draw; the correction comes inside of its `wrap`.

    Raises:
        UserError: no such method, y of another shape than the operator's output, negative noise.
    """
    if not 0 <= noise_std < float("inf"):
        raise UserError(f"the measurement's noise is {noise_std:g}: it must be at least 0")
    y = y[None].to(device_of(model), torch.float32)
    try:
        expected = operator.forward(torch.zeros(1, *model.shape, device=y.device)).shape
    except ValueError as error:
        raise UserError(f"this model's images can't be measured so: {error}") from None
    if y.shape != expected:
        got, wanted = ("x".join(map(str, shape[1:])) for shape in (y.shape, expected))
        raise UserError(f"the measurement is {got}, and this model's images give {wanted}: fit it first")
    wrap = posterior(method)
    images = draw(model, walk.through(lambda denoiser: wrap(denoiser, operator, y, noise_std)), num, seed)
    return Restored(images, rmse(operator.forward(images.to(y)), y.expand(num, *y.shape[1:])).cpu())


def colorize(
    model: Model,
    grey: Tensor,
    num: int = 8,
    seed: int = 0,
    noise_std: float = ROUNDING,
    method: str = "pigdm",
    walk: Walk = STOCHASTIC,
) -> Restored:
    """Give a grey image colours whose luma it is (ITU-R BT.601). Arguments as `restore`, with `grey` (1, H, W).

    Raises:
        UserError: as `restore`; a model of grey images.
    """
    if model.shape[0] != 3:
        raise UserError("this model's images are grey: colorize needs a model of colour images")
    return restore(model, grey, Grayscale(), noise_std, num, seed, method, walk)


def upscale(
    model: Model,
    small: Tensor,
    factor: int,
    num: int = 8,
    seed: int = 0,
    noise_std: float = ROUNDING,
    method: str = "pigdm",
    walk: Walk = STOCHASTIC,
) -> Restored:
    """Enlarge an image: find images whose blocks of factor x factor pixels have its pixels as means.

    Args:
        small: (C, H / factor, W / factor) in [-1, 1].
        factor: at least 2, a divisor of the model's height and width.

    Other arguments as `restore`.

    Raises:
        UserError: as `restore`; a factor that can't be.
    """
    check_factor(model, factor)
    return restore(model, small, Downscale(factor), noise_std, num, seed, method, walk)


def deblur(
    model: Model,
    image: Tensor,
    sigma: float,
    num: int = 8,
    seed: int = 0,
    noise_std: float = ROUNDING,
    method: str = "pigdm",
    walk: Walk = STOCHASTIC,
) -> Restored:
    """Sharpen an image that a Gaussian has blurred, around the edges: what leaves on the right comes in on the left.

    Args:
        image: (C, H, W) in [-1, 1], blurred.
        sigma: the Gaussian's standard deviation in pixels of the model's images.

    Other arguments as `restore`.

    Raises:
        UserError: as `restore`; sigma not above 0 or wider than the image.
    """
    check_image(model, image)
    return restore(model, image, blur(model, sigma), noise_std, num, seed, method, walk)


def blur(model: Model, sigma: float) -> Blur:
    """Return a Gaussian blur for a model's images.

    Raises:
        UserError: sigma not above 0, or wider than the image.
    """
    widest = max(model.shape[1:])
    if not 0 < sigma <= widest:
        raise UserError(f"sigma is {sigma:g}: it must be above 0, and at most the image's {widest} pixels")
    return Blur(gaussian_kernel(sigma))


def check_factor(model: Model, factor: int) -> None:
    """Refuse a factor that a model's images can't be divided by.

    Raises:
        UserError: below 2, larger than the image, or no divisor of its sides.
    """
    _, height, width = model.shape
    possible = [str(n) for n in range(2, min(height, width) + 1) if height % n == 0 and width % n == 0]
    if str(factor) not in possible:
        choices = f"choose {', '.join(possible)}" if possible else "no factor divides both sides"
        raise UserError(f"the factor is {factor}, and the model's images are {height}x{width}: {choices}")
