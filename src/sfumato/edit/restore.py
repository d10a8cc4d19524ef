r"""Restoration, sampling from p(x | y): colours for a grey image, detail for a small or a blurred one.

Given is y = A x + s_y n, with A a linear operator on pixels: the luma, block means, a blur, anything of
`diffusion.inverse`. The results are samples of p(x | y). The model's denoiser is corrected by the gradient of log p(y |
x_t) and goes into an ordinary sampler; the methods differ in how they approximate that likelihood:

    pigdm       one variance for all pixels; one backward pass a step
    moments     the denoiser's own covariance; six backward passes a step; the least biased where the truth is known
    dps         the direction of the gradient with a step size; one backward pass; for many steps

Where pixels are an orthonormal linear map T of x_0, the operator on x_0 is A T. Other codecs are refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite, sqrt
from typing import Unpack

import torch
from torch import Tensor

from sfumato.codec.format import PixelFormat
from sfumato.codec.pixels import Pixels
from sfumato.codec.protocol import Codec
from sfumato.diffusion import (
    DPS,
    Blur,
    Denoiser,
    Downscale,
    Grayscale,
    LinearOperator,
    MomentMatching,
    PiGDM,
    Purpose,
    gaussian_kernel,
)
from sfumato.diffusion.noise import normal
from sfumato.edit.sampling import STOCHASTIC, Options, images_of, prepared, rmse
from sfumato.errors import UserError, nearest
from sfumato.model import Model

Posterior = Callable[[Denoiser, LinearOperator, Tensor, float], Denoiser]
"""(denoiser, operator, y, noise_std) -> the denoiser of the images that explain y."""

POSTERIORS: dict[str, Posterior] = {"pigdm": PiGDM, "moments": MomentMatching, "dps": DPS}
"""The posterior methods by name."""


class Restoring(Options, total=False):
    """`Options`, and `noise_std` and `method` of `restore`."""

    noise_std: float | None
    method: str


@dataclass(frozen=True)
class Restored:
    """Images that explain a measurement, pixels (num, C, H, W), and for each the RMSE between y and A x in units of
    stored values, (num,) float64."""

    images: Tensor
    residual: Tensor


def restore(
    model: Model,
    y: Tensor,
    operator: LinearOperator,
    num: int = 8,
    noise_std: float | None = None,
    method: str = "pigdm",
    **options: Unpack[Options],
) -> Restored:
    """Find `num` images that explain a measurement y: the operator's output for one image, without the batch's axis.

    The operator takes pixels from -1 to 1. `noise_std` is s_y in the same units; None is what rounding to the model's
    format gives. The default recipe is ancestral sampling.

    Raises `UserError` for an unknown method, y of another shape than the operator's output, negative noise, or pixels
    that are not linear in x_0.
    """
    std = rounding(model.codec.format) if noise_std is None else noise_std
    if not (std >= 0 and isfinite(std)):
        raise UserError(f"noise_std is {std:g}: the measurement's noise must be at least 0")
    y = y[None].to(model.device, torch.float32)
    try:
        expected = operator.forward(torch.zeros(1, *model.codec.image_shape, device=y.device)).shape
    except ValueError as error:
        raise UserError(f"the operator does not fit the model's images: {error}") from None
    if y.shape != expected:
        got, wanted = ("x".join(map(str, shape[1:])) for shape in (y.shape, expected))
        raise UserError(
            f"the measurement has shape {got}, and the operator's output on this model's images {wanted}: resize "
            "it first"
        )
    wrap, whole = posterior(method), on_pixels(model, operator)
    sampling = prepared(model, options, STOCHASTIC, lambda denoiser: wrap(denoiser, whole, y, std))
    images = images_of(model, sampling, num, options)
    return Restored(images, rmse(model, operator.forward(images.to(y)), y.expand(num, *y.shape[1:])).cpu())


def colorize(model: Model, grey: Tensor, num: int = 8, **options: Unpack[Restoring]) -> Restored:
    """Find images whose luma is a grey image (1, H, W). Arguments and errors as `restore`."""
    return restore(model, grey, luma(model), num, **options)


def upscale(model: Model, small: Tensor, factor: int, num: int = 8, **options: Unpack[Restoring]) -> Restored:
    """Find images whose block means are a small one (C, H / factor, W / factor). Arguments and errors as `restore`."""
    return restore(model, small, downscale(model, factor), num, **options)


def deblur(model: Model, image: Tensor, sigma: float, num: int = 8, **options: Unpack[Restoring]) -> Restored:
    """Find images that a Gaussian of `sigma` pixels, around the edges, blurs to the given one. Arguments and errors as
    `restore`."""
    return restore(model, image, blur(model, sigma), num, **options)


def posterior(name: str) -> Posterior:
    """Return a posterior method by name; raises `UserError` for an unknown one."""
    if name not in POSTERIORS:
        raise UserError(f"there is no method '{name}'{nearest(name, POSTERIORS)}")
    return POSTERIORS[name]


def rounding(form: PixelFormat) -> float:
    """Return the standard deviation that rounding to a format's levels gives pixels in [-1, 1]; 0 for floats."""
    return 0.0 if form.levels is None else 1 / form.scale / sqrt(12)


def luma(model: Model) -> Grayscale:
    """Return the luma (ITU-R BT.601) of a model's images; raises `UserError` where they are not red, green, blue."""
    channels = model.codec.image_shape[0]
    if channels != 3:
        what = "grey" if channels == 1 else f"{channels}-channel"
        raise UserError(f"this model makes {what} images: colorize needs a model of colour images (3 channels)")
    return Grayscale()


def downscale(model: Model, factor: int) -> Downscale:
    """Return block means of a model's images; raises `UserError` for a factor that does not divide both sides."""
    _, height, width = model.codec.image_shape
    possible = [n for n in range(2, min(height, width) + 1) if height % n == 0 and width % n == 0]
    if factor not in possible:
        choices = f"choose {', '.join(map(str, possible))}" if possible else "no factor divides both sides"
        raise UserError(f"the factor is {factor}, and the model's images are {height}x{width}: {choices}")
    return Downscale(factor)


def blur(model: Model, sigma: float) -> Blur:
    """Return a Gaussian blur of a model's images; raises `UserError` for sigma not above 0 or wider than they are."""
    widest = max(model.codec.image_shape[1:])
    if not 0 < sigma <= widest:
        raise UserError(f"sigma is {sigma:g}: it must be above 0, and at most the image's {widest} pixels")
    return Blur(gaussian_kernel(sigma))


def degraded(model: Model, image: Tensor, operator: LinearOperator, noise_std: float = 0.0, seed: int = 0) -> Tensor:
    """Return y for `restore`: pixels (C, H, W) after the operator and noise, rounded to the model's format."""
    y = operator.forward(image[None])
    z = normal(seed, Purpose.MEASUREMENT, torch.zeros(1, dtype=torch.int64), tuple(y.shape[1:]))
    form = model.codec.format
    return form.to_model(form.from_model(y + noise_std * z))[0]


def enlarged(model: Model, y: Tensor) -> Tensor:
    """Return a measurement (C', H', W') to look at: as pixels of the model's shape, its numbers repeated."""
    channels, height, width = model.codec.image_shape
    y = y.expand(channels, *y.shape[1:])
    return y.repeat_interleave(height // y.shape[1], 1).repeat_interleave(width // y.shape[2], 2)


def on_pixels(model: Model, operator: LinearOperator) -> LinearOperator:
    """Return an operator on pixels as one on x_0; raises `UserError` where pixels are not linear in x_0."""
    if isinstance(model.codec, Pixels):
        return operator
    if not model.codec.linear:
        raise UserError(
            "this edit needs pixels that are linear in x_0, and this model's codec is not: use vary, interpolate "
            "or invert"
        )
    return _OnPixels(operator, model.codec)


@dataclass(frozen=True)
class _OnPixels(LinearOperator):
    """A T, where T is the codec's orthonormal map to pixels: (A T)^T = T^T A^T and (A T)+ = T^T A+."""

    operator: LinearOperator
    codec: Codec

    def forward(self, x: Tensor) -> Tensor:
        return self.operator.forward(self.codec.to_pixels(x))

    def adjoint(self, y: Tensor) -> Tensor:
        return self.codec.from_pixels(self.operator.adjoint(y))

    def pseudoinverse(self, y: Tensor) -> Tensor:
        return self.codec.from_pixels(self.operator.pseudoinverse(y))

    def solve(self, residual: Tensor, prior_variance: Tensor, noise_variance: float) -> Tensor:
        if prior_variance.shape[-3:].numel() == 1:  # A T v T^T A^T = v A A^T
            return self.operator.solve(residual, prior_variance, noise_variance)
        return super().solve(residual, prior_variance, noise_variance)
