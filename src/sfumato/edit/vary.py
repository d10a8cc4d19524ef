r"""Variations: noise an image part of the way, and denoise it again (SDEdit, Meng et al. 2021, 2108.01073, Alg. 1).

    x_t = alpha_t x_0 + sigma_t eps,   t = strength,        then ordinary sampling from t down to 0

Noise hides detail first, so a small t keeps the composition and changes the detail, and a large one keeps little more
than the colours. The two ends are exact: strength 0 is the image, and strength 1 starts from noise alone, so it is the
sample of the same seed in as many steps.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Unpack

import torch
from torch import Tensor

from sfumato.diffusion import Noise, marginal
from sfumato.edit.sampling import Options, check_image, images_of, prepared
from sfumato.errors import UserError
from sfumato.model import Model


@dataclass(frozen=True)
class Varied:
    """Variations of an image, pixels (num, C, H, W), the time that it was noised to, and the sampler's steps below
    that."""

    images: Tensor
    t: float
    steps: int


def vary(model: Model, image: Tensor, strength: float, num: int = 8, **options: Unpack[Options]) -> Varied:
    """Make `num` variations of an image, pixels (C, H, W) of the model's shape; raises `UserError` for another shape.

    The strength, from 0 to 1, is rounded to a step of the chain, but never to 0. Of the recipe's times those below it
    are used.
    """
    check_image(model, image)
    if not 0 <= strength <= 1:
        raise UserError(f"strength is {strength:g}: it must lie from 0 (the image itself) to 1 (nothing of it is left)")
    if strength == 0:
        return Varied(image.float().cpu().expand(num, *image.shape).clone(), 0.0, 0)
    sampling = prepared(model, options)
    if strength == 1:
        return Varied(images_of(model, sampling, num, options), 1.0, len(sampling.times) - 1)
    chain = model.schedule.num_steps
    t = max(1, round(strength * chain)) / chain
    x_0 = model.codec.from_pixels(image[None].to(model.device, torch.float32))

    def start(noise: Noise) -> Tensor:
        eps = noise.prior()
        return marginal(x_0.expand_as(eps), model.schedule(t)).sample(eps)

    part = below(sampling.times, t)
    return Varied(images_of(model, replace(sampling, times=part), num, options, start), t, len(part) - 1)


def below(times: Tensor, t: float) -> Tensor:
    """Return the grid that begins at t and continues with those of `times` that are earlier: (n + 1,) float64."""
    return torch.cat([torch.tensor([t], dtype=torch.float64), times[times < t].to(torch.float64)])
