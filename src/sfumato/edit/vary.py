r"""Variations: noise an image part of the way, and denoise it again (SDEdit, Meng et al. 2021, 2108.01073, Alg. 1).

    x_t = alpha_t x_0 + sigma_t eps,   t = strength,        then the ordinary walk from t down to 0

Noise hides detail first, so a small t keeps the composition and redraws the detail, and a large one keeps little more
than the colours. The two ends are exact: strength 0 is the image, and strength 1 starts from noise alone, so it is what
the same seed draws without any image.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sfumato.diffusion import Noise, marginal
from sfumato.edit.walk import Walk, check_image, device_of, draw
from sfumato.errors import UserError

if TYPE_CHECKING:
    from sfumato.model import Model

__all__ = ["Varied", "below", "vary"]


@dataclass(frozen=True)
class Varied:
    """Variations of an image.

    Attributes:
        images: (num, C, H, W).
        t: the time that the image was noised to: the strength, rounded to a step of the model's chain.
        steps: how many steps of the grid lay below it.
    """

    images: Tensor
    t: float
    steps: int


def vary(model: Model, image: Tensor, strength: float, num: int = 8, seed: int = 0, walk: Walk = Walk()) -> Varied:
    """Draw variations of an image.

    Args:
        model: draws.
        image: (C, H, W) in [-1, 1].
        strength: from 0, the image itself, to 1, images that have nothing to do with it. Rounded to a step of the
            model's chain, but never to 0.
        num: how many.
        seed: of the noise.
        walk: how to draw; of its times those below the strength are used.

    Raises:
        UserError: strength outside [0, 1], or an image of another shape than the model's.
    """
    check_image(model, image)
    if not 0 <= strength <= 1:
        raise UserError(f"strength is {strength:g}: it must lie from 0 (the image itself) to 1 (nothing of it)")
    if strength == 0:
        return Varied(image.float().cpu().expand(num, *image.shape).clone(), 0.0, 0)
    denoiser, times = walk.of(model)
    if strength == 1:
        return Varied(draw(model, walk, num, seed), 1.0, len(times) - 1)
    chain = denoiser.schedule.num_steps
    t = max(1, round(strength * chain)) / chain
    x_0 = image.to(device_of(model), torch.float32)

    def start(noise: Noise) -> Tensor:
        eps = noise.prior()
        return marginal(x_0.expand_as(eps), denoiser.schedule(t)).sample(eps)

    part = below(times, t)
    return Varied(draw(model, replace(walk, times=part), num, seed, start), t, len(part) - 1)


def below(times: Tensor, t: float) -> Tensor:
    """Return the grid that begins at t and goes on with those of `times` that are earlier: (n + 1,) float64."""
    return torch.cat([torch.tensor([t], dtype=torch.float64), times[times < t].to(torch.float64)])
