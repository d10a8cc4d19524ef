r"""Painting a part of an image anew so that it fits the rest.

Two ways. RePaint puts the known pixels, noised to the right level, into every step of an ordinary walk, and repeats
each step until both parts agree (Lugmayr et al. 2022, 2201.09865, Alg. 1). The posterior methods take the known pixels
for a measurement, A = a mask, and draw from p(x_0 | y) as `restore` does. In either the known pixels of the result are,
in the end, those of the image: exactly, byte by byte.

Two ends are exact: with nothing to paint every result is the image; with everything to paint nothing is known, and the
results are what the same seed draws without an image.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sfumato.diffusion.inverse import Mask, RePaint
from sfumato.edit.restore import POSTERIORS, ROUNDING, posterior
from sfumato.edit.walk import STOCHASTIC, Walk, check_image, device_of, draw
from sfumato.errors import UserError, nearest

if TYPE_CHECKING:
    from sfumato.model import Model

__all__ = ["INPAINTERS", "Inpainted", "inpaint"]

INPAINTERS = ("repaint", *POSTERIORS)
"""The methods by name."""


@dataclass(frozen=True)
class Inpainted:
    """Images painted anew in part.

    Attributes:
        images: (num, C, H, W), equal to the given image outside the hole.
        painted: how much of the image the hole is, in [0, 1].
    """

    images: Tensor
    painted: float


def inpaint(
    model: Model,
    image: Tensor,
    hole: Tensor,
    num: int = 8,
    seed: int = 0,
    method: str = "repaint",
    repeats: int = 10,
    walk: Walk = STOCHASTIC,
) -> Inpainted:
    """Paint a part of an image anew.

    Args:
        model: draws.
        image: (C, H, W) in [-1, 1]; what it holds inside the hole does not matter.
        hole: (H, W) bool, True where to paint.
        num: how many results.
        seed: image i of a seed is always the same.
        method: `repaint`, or a posterior method: `moments`, `pigdm`, `dps`.
        repeats: how often RePaint makes each step; 1 is plain replacement. The posterior methods ignore it.
        walk: how to draw.

    Raises:
        UserError: an image or a hole of another shape than the model's, no such method, repeats below 1.
    """
    check_image(model, image)
    if hole.dtype != torch.bool or tuple(hole.shape) != tuple(model.shape[1:]):
        raise UserError(f"the hole must be {model.shape[1]}x{model.shape[2]} truth values, True where to paint")
    if method not in INPAINTERS:
        raise UserError(f"there is no method '{method}'{nearest(method, INPAINTERS)}")
    if not 1 <= repeats <= 1024:
        raise UserError(f"repeats is {repeats}: choose from 1 (plain replacement) to 1024")
    painted = float(hole.double().mean())
    image, hole = image.float().cpu(), hole.cpu()
    if not painted:
        return Inpainted(image.expand(num, *image.shape).clone(), painted)
    if painted < 1:
        walk = _knowing(model, image, ~hole, method, repeats, walk)
    return Inpainted(torch.where(hole, draw(model, walk, num, seed), image), painted)


def _knowing(model: Model, image: Tensor, known: Tensor, method: str, repeats: int, walk: Walk) -> Walk:
    """Return the walk made to know a part of the image."""
    image, known = image[None].to(device_of(model)), known[None].to(device_of(model))
    if method == "repaint":
        return replace(walk, sampler=RePaint(walk.sampler, image, known, repeats))
    wrap = posterior(method)
    y = torch.where(known, image, 0.0)
    return walk.through(lambda denoiser: wrap(denoiser, Mask(known), y, ROUNDING))
