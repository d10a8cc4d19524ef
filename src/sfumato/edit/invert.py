r"""From an image back to the noise that it would be drawn from: DDIM run in reverse.

DDIM with eta = 0 is a deterministic map from x_T to x_0. With alpha = cos(phi), sigma = sin(phi) and v = alpha eps -
sigma x_0, one step of it, from t to the earlier s, is a rotation by delta = phi_t - phi_s (Salimans and Ho 2022,
2202.00512, App. D):

    x_s = cos(delta) x_t - sin(delta) v(x_t, t)

Backward x_s is known and x_t is wanted, but v is asked at x_t. Taking v at x_s instead gives the plain inversion (DDIM
Sec. 5.4), whose error falls with the number of steps only:

    x_t ~ cos(delta) x_s + sin(delta) v(x_s, t)

Solving the step for x_t leaves an equation that is a fixed point, so each further evaluation corrects the guess (the
idea of AIDI, Pan et al. 2023, 2309.04907, who hold eps and not v fixed):

    x_t <- ( x_s + sin(delta) v(x_t, t) ) / cos(delta)

For Gaussian data of variance s^2 the error shrinks by tan(delta) alpha sigma (1 - s^2) / (alpha^2 s^2 + sigma^2) each
time, at most tan(delta) / tan(phi_t) where s^2 <= 1. That is 1 for the step at the clean end, and rightly: there the
denoiser removes whatever is no image of the model's, which no noise can bring back. It is why the reconstruction of a
real image has an error, and why that error says how well the model knows the image.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sfumato.diffusion import DDIM, Denoiser
from sfumato.edit.walk import Walk, check_image, device_of, draw, psnr, rmse
from sfumato.errors import UserError

if TYPE_CHECKING:
    from sfumato.model import Model

__all__ = ["CORRECTIONS", "Inverted", "decode", "encode", "invert"]

CORRECTIONS = 4
"""Evaluations spent on correcting each step."""


@dataclass(frozen=True)
class Inverted:
    """An image as noise.

    Attributes:
        noise: (C, H, W), the x_T that DDIM turns into about the image.
        reconstruction: (C, H, W), what it turns it into.
        rmse: of the reconstruction, in grey levels of 0 to 255.
        psnr: the same in dB.
        spread: standard deviation of the noise's coordinates; 1 for an image that looks like the model's own.
    """

    noise: Tensor
    reconstruction: Tensor
    rmse: float
    psnr: float
    spread: float


def invert(model: Model, image: Tensor, walk: Walk = Walk(), corrections: int = CORRECTIONS) -> Inverted:
    """Find the noise of an image, and see what becomes of it.

    Args:
        model: whose noise.
        image: (C, H, W) in [-1, 1].
        walk: the times, the denoiser and the condition; the sampler is always DDIM with eta = 0.
        corrections: fixed-point corrections of each step; 0 is plain DDIM inversion.

    Raises:
        UserError: an image of another shape than the model's, or a grid of a single step.
    """
    check_image(model, image)
    noise = encode(model, image[None], walk, corrections)
    reconstruction = decode(model, noise, walk)
    error = rmse(reconstruction, image[None].cpu())
    return Inverted(noise[0].cpu(), reconstruction[0], float(error), float(psnr(error)), float(noise.std(correction=0)))


@torch.no_grad()
def encode(model: Model, images: Tensor, walk: Walk = Walk(), corrections: int = CORRECTIONS) -> Tensor:
    """Return the noise of images, (B, C, H, W) on the model's device. Arguments as `invert`, for a batch.

    Raises:
        UserError: a grid of a single step, which keeps too little of an image to go back by.
    """
    denoiser, times = walk.of(model)
    if len(times) < 3:
        raise UserError("a single step can't be inverted: take at least 2, better 20 or more")
    condition = walk.told(len(images))
    x = images.to(device_of(model), torch.float32)
    condition = None if condition is None else condition.to(x.device)
    upward = times.flip(0).tolist()
    for k, (s, t) in enumerate(pairwise(upward)):
        x = _step(denoiser, x, s, t, condition, corrections)
        walk.report(k + 1, len(times) - 1)
    return x


def decode(model: Model, noise: Tensor, walk: Walk = Walk()) -> Tensor:
    """Return the images that DDIM with eta = 0 makes of given noise: (B, C, H, W) float32 on the CPU.

    Args:
        model: draws.
        noise: (B, C, H, W).
        walk: the times, the denoiser and the condition.
    """
    return draw(
        model, replace(walk, sampler=DDIM()), len(noise), 0, lambda batch: noise.to(batch.index.device)[batch.index]
    )


def _step(denoiser: Denoiser, x_s: Tensor, s: float, t: float, condition: Tensor | None, corrections: int) -> Tensor:
    """Go from s to the later t: the plain inverse step, then the corrections."""
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
