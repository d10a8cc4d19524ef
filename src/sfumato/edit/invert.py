r"""Inversion: from an image to its noise; and interpolation between two images through their noises.

DDIM with eta = 0 is a deterministic map from x_T to x_0. With alpha = cos(phi), sigma = sin(phi) and v = alpha eps -
sigma x_0, one step of it, from t to the earlier s, is a rotation by delta = phi_t - phi_s (Salimans and Ho 2022,
2202.00512, App. D):

    x_s = cos(delta) x_t - sin(delta) v(x_t, t)

Backwards x_s is known and x_t is unknown, but v is needed at x_t. Taking v at x_s instead gives plain inversion (DDIM
Sec. 5.4), whose error falls with the number of steps only:

    x_t ~ cos(delta) x_s + sin(delta) v(x_s, t)

Solved for x_t the step is a fixed-point equation, so each further evaluation corrects the guess (as in AIDI, Pan et
al. 2023, 2309.04907, which fixes eps in place of v):

    x_t <- ( x_s + sin(delta) v(x_t, t) ) / cos(delta)

For Gaussian data of variance s^2 the error shrinks by tan(delta) alpha sigma (1 - s^2) / (alpha^2 s^2 + sigma^2) each
time, at most tan(delta) / tan(phi_t) where s^2 <= 1. That is 1 for the last step: there the denoiser removes everything
that the model does not generate, and no noise can restore it. So the reconstruction of a real image has an error, which
measures how well the model represents the image.

**Interpolation.** Noise of d coordinates has a norm of about sqrt(d), whatever its direction; the straight line between
two noises passes through shorter ones that never occur in sampling. The arc keeps their length (Shoemake 1985; DDIM
Sec. 5.3):

    slerp(a, b; w) = sin((1 - w) theta) / sin(theta) a  +  sin(w theta) / sin(theta) b,     cos(theta) = a.b / (|a| |b|)

A deterministic sampler is continuous in the noise, so neighbours on the arc become images that look alike. A given
image enters by the noise that `invert` finds for it; that end of the row is its reconstruction.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Unpack

import torch
from torch import Tensor

from sfumato.conditions.protocol import cycled
from sfumato.diffusion import Denoiser, Noise
from sfumato.diffusion.condition import Condition
from sfumato.edit.sampling import Options, check_image, images_of, prepared, rmse
from sfumato.errors import UserError
from sfumato.generate.recipe import Recipe
from sfumato.generate.sample import Sampling
from sfumato.model import Model

CORRECTIONS = 4
"""Evaluations that correct each step."""


@dataclass(frozen=True)
class Inverted:
    """The noise of an image, and its reconstruction.

    Attributes:
        noise: x_T (C, H, W), from which DDIM makes approximately the image.
        reconstruction: pixels (C, H, W), what it makes; `rmse` is its error in units of stored values.
        psnr: the same as a peak signal-to-noise ratio, 20 log10((high - low) / RMSE), in dB.
        std: standard deviation of the noise's coordinates; 1 for an image like the model's own.
    """

    noise: Tensor
    reconstruction: Tensor
    rmse: float
    psnr: float
    std: float


def invert(model: Model, image: Tensor, corrections: int = CORRECTIONS, **options: Unpack[Options]) -> Inverted:
    """Find the noise of an image, pixels (C, H, W) of the model's shape, and what the model makes of it by DDIM with
    eta = 0.

    Each step has so many fixed-point corrections; 0 is plain inversion. Raises `UserError` for an image of another
    shape, a grid of a single step, or another sampler.
    """
    check_image(model, image)
    noise = encode(model, image[None], corrections, **options)
    reconstruction = decode(model, noise, **options)
    error = float(rmse(model, reconstruction, image[None].cpu()))
    psnr = 20 * math.log10(2 * model.codec.format.scale / error) if error else math.inf
    return Inverted(noise[0].cpu(), reconstruction[0], error, psnr, float(noise.std(correction=0)))


@torch.no_grad()
def encode(model: Model, images: Tensor, corrections: int = CORRECTIONS, **options: Unpack[Options]) -> Tensor:
    """Return the noise of a batch of images, on the model's device; arguments and errors as `invert`."""
    sampling, condition, report = _ddim(model, options), options.get("condition"), options.get("report")
    steps = len(sampling.times) - 1
    if steps < 2:
        raise UserError("a single step can't be inverted: take at least 2, better 20 or more")
    if condition is not None:
        condition = cycled(condition, len(images)).to(model.device)
    x = model.codec.from_pixels(images.to(model.device, torch.float32))
    for k, (s, t) in enumerate(pairwise(sampling.times.flip(0).tolist())):
        x = inverse_step(sampling.denoiser, x, s, t, condition, corrections)
        if report is not None:
            report(k + 1, steps)
    return x


def decode(model: Model, noise: Tensor, **options: Unpack[Options]) -> Tensor:
    """Return the images that DDIM with eta = 0 makes of noise (B, C, H, W): pixels on the CPU."""
    start = noise.to(model.device)
    return images_of(model, _ddim(model, options), len(noise), options, lambda batch: start[batch.index])


def deterministic(recipe: Recipe) -> Recipe:
    """Return a recipe for DDIM with eta = 0, which `auto` means here, on a grid that leaves out no level; raises
    `UserError` for any other."""
    if recipe.sampler not in ("auto", "ddim") or recipe.eta:
        raise UserError("inversion needs deterministic ddim: leave the sampler and eta out")
    return replace(recipe, sampler="ddim", grid=recipe.grid or "trailing")


def _ddim(model: Model, options: Options) -> Sampling:
    return prepared(model, {**options, "recipe": deterministic(options.get("recipe", Recipe()))})


def inverse_step(
    denoiser: Denoiser, x_s: Tensor, s: float, t: float, condition: Condition | None, corrections: int
) -> Tensor:
    """Return x_t of x_s at the earlier s: the plain inverse step, then the corrections."""
    level_t = denoiser.schedule(t)
    delta = level_t.angle - denoiser.schedule(s).angle
    cos, sin = float(delta.cos()), float(delta.sin())
    level = level_t.like(x_s)

    def v(x: Tensor) -> Tensor:
        prediction = denoiser(x, t, condition)
        return level.alpha * prediction.eps - level.sigma * prediction.x0

    x_t = cos * x_s + sin * v(x_s)
    for _ in range(corrections):
        x_t = (x_s + sin * v(x_t)) / cos
    return x_t


@dataclass(frozen=True)
class Interpolated:
    """Images from one to another: pixels (num, C, H, W), the two ends included.

    The angle is that between the two noises, in degrees; independent noises of many coordinates have about 90. `rmse`
    is that of each end's reconstruction, in units of stored values; None for an end that was a seed.
    """

    images: Tensor
    angle: float
    rmse: tuple[float | None, float | None]


def interpolate(
    model: Model, a: Tensor | int, b: Tensor | int, num: int = 8, **options: Unpack[Options]
) -> Interpolated:
    """Make `num` images between two, the ends included, by DDIM with eta = 0.

    An end is an image, pixels (C, H, W), or a seed, of which image 0 is meant. Raises `UserError` as `invert`, or for
    fewer than 2 images.
    """
    if num < 2:
        raise UserError(f"num is {num}: ask for at least 2 images, the ends")
    if isinstance(a, int) and isinstance(b, int):  # nothing is inverted: the grid of sampling will do
        recipe = options.get("recipe", Recipe())
        options["recipe"] = replace(recipe, grid=recipe.grid or Recipe("ddim").resolve(model).grid)
    one, other = (_noise(model, end, options) for end in (a, b))
    images = decode(model, slerp(one, other, torch.linspace(0, 1, num, dtype=torch.float64)), **options)
    first, last = (
        None if isinstance(end, int) else float(rmse(model, end[None].cpu(), images[n][None]))
        for end, n in ((a, 0), (b, -1))
    )
    return Interpolated(images, float(_angle(one, other).rad2deg()), (first, last))


def slerp(a: Tensor, b: Tensor, weights: Tensor) -> Tensor:
    """Return points on the arc from a to b, (N, *shape): weights (N,) are 0 at a and 1 at b.

    All are as long as a and b where these are equally long. Where b points along a or against it there is no unique
    arc, and the line is taken.
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
