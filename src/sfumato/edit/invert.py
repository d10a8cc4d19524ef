r"""From an image back to the noise that it would be drawn from: DDIM run in reverse.

DDIM with eta = 0 is a deterministic map from x_T to x_0. With alpha = cos(phi), sigma = sin(phi) and v = alpha eps -
sigma x_0, one step of it, from t to the earlier s, is a rotation by delta = phi_t - phi_s (Salimans and Ho 2022,
2202.00512, App. D):

    x_s = cos(delta) x_t - sin(delta) v(x_t, t)

Backwards x_s is known and x_t is wanted, but v is needed at x_t. Taking v at x_s instead gives plain inversion (DDIM
Sec. 5.4), whose error falls with the number of steps only:

    x_t ~ cos(delta) x_s + sin(delta) v(x_s, t)

Solved for x_t the step is a fixed-point equation, so each further evaluation corrects the guess (as in AIDI, Pan et
al. 2023, 2309.04907, which fixes eps in place of v):

    x_t <- ( x_s + sin(delta) v(x_t, t) ) / cos(delta)

For Gaussian data of variance s^2 the error shrinks by tan(delta) alpha sigma (1 - s^2) / (alpha^2 s^2 + sigma^2) each
time, at most tan(delta) / tan(phi_t) where s^2 <= 1. That is 1 for the last step: there the denoiser removes whatever
the model does not generate, and no noise can bring it back. So the reconstruction of a real image has an error, and
the error says how well the model knows the image.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Unpack

import torch
from torch import Tensor

from sfumato.diffusion import Denoiser
from sfumato.diffusion.condition import Condition
from sfumato.edit.sampling import Options, check_image, images_of, prepared, psnr, rmse
from sfumato.errors import UserError
from sfumato.generate.recipe import Recipe
from sfumato.generate.sample import Sampling
from sfumato.model import Model

__all__ = ["CORRECTIONS", "Inverted", "decode", "deterministic", "encode", "inverse_step", "invert"]

CORRECTIONS = 4
"""Evaluations that correct each step."""


@dataclass(frozen=True)
class Inverted:
    """An image as noise.

    Attributes:
        noise: x_T (C, H, W), from which DDIM makes approximately the image.
        reconstruction: pixels (C, H, W), what it makes.
        rmse: of the reconstruction, in units of stored values.
        psnr: the same in dB.
        std: standard deviation of the noise's coordinates; 1 for an image like the model's own.
    """

    noise: Tensor
    reconstruction: Tensor
    rmse: float
    psnr: float
    std: float


def invert(model: Model, image: Tensor, corrections: int = CORRECTIONS, **options: Unpack[Options]) -> Inverted:
    """Find the noise of an image, and what the model makes of it.

    Args:
        model: whose noise.
        image: pixels (C, H, W).
        corrections: fixed-point corrections of each step; 0 is plain DDIM inversion.
        options: `Options`; the sampler is DDIM with eta = 0.

    Raises:
        UserError: an image of another shape than the model's, a grid of a single step, another sampler.
    """
    check_image(model, image)
    noise = encode(model, image[None], corrections, **options)
    reconstruction = decode(model, noise, **options)
    error = rmse(model, reconstruction, image[None].cpu())
    decibels, std = float(psnr(model, error)), float(noise.std(correction=0))
    return Inverted(noise[0].cpu(), reconstruction[0], float(error), decibels, std)


@torch.no_grad()
def encode(model: Model, images: Tensor, corrections: int = CORRECTIONS, **options: Unpack[Options]) -> Tensor:
    """Return the noise of images, (B, C, H, W) on the model's device. Arguments as `invert`, for a batch.

    Raises:
        UserError: a grid of a single step, which keeps too little of an image; another sampler than DDIM.
    """
    sampling, condition, report = _ddim(model, options), options.get("condition"), options.get("report")
    steps = len(sampling.times) - 1
    if steps < 2:
        raise UserError("a single step can't be inverted: take at least 2, better 20 or more")
    if condition is not None:
        condition = condition.take(torch.arange(len(images)) % len(condition)).to(model.device)
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
    """Return a recipe for DDIM with eta = 0, which `auto` means here.

    Raises:
        UserError: another sampler, or noise.
    """
    if recipe.sampler not in ("auto", "ddim") or recipe.eta:
        raise UserError("inversion is possible with ddim without noise alone: leave the sampler and eta out")
    return replace(recipe, sampler="ddim")


def _ddim(model: Model, options: Options) -> Sampling:
    """Make DDIM ready for a model."""
    return prepared(model, {**options, "recipe": deterministic(options.get("recipe", Recipe()))}, Recipe())


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
