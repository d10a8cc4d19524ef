r"""Inpainting: repaint a part of an image so that it fits the rest.

There are two ways. RePaint puts the known coordinates, noised to the right level, into every step of an ordinary
sampler, and repeats each step until both parts agree (Lugmayr et al. 2022, 2201.09865, Alg. 1). The posterior methods
take the known pixels as a measurement, A = a mask, and sample from p(x_0 | y) as `restore` does. `guided`, the default,
does both: the steps that RePaint repeats are PiGDM's, which see the known pixels without noise, so colours go on across
the border after a few repetitions (docs/editing.md has the figures). In each the known pixels of the result are those
of the image, exactly.

With nothing to paint every result is the image; with everything to paint the results are the samples of the same seed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Unpack

import torch
from torch import Tensor

from sfumato.diffusion import Mask, RePaint
from sfumato.edit.restore import POSTERIORS, on_pixels, posterior, rounding
from sfumato.edit.sampling import STOCHASTIC, Options, check_image, images_of, prepared
from sfumato.errors import UserError, nearest
from sfumato.generate.recipe import Recipe
from sfumato.generate.sample import Sampling
from sfumato.model import Model

INPAINTERS = ("guided", "repaint", *POSTERIORS)
"""The methods by name."""
REPEATS = {"guided": 3, "repaint": 10}
"""How often the methods that repeat steps make each, by default."""
GUIDED_STEPS = 20
"""The steps of `guided` on the grid `visible`; on others, which were not measured, as many as the sampler usually
takes."""


@dataclass(frozen=True)
class Inpainted:
    """Pixels (num, C, H, W), equal to the given image outside the hole, and the hole's fraction of the image."""

    images: Tensor
    painted: float


def inpaint(
    model: Model,
    image: Tensor,
    hole: Tensor,
    num: int = 8,
    method: str = "guided",
    repeats: int | None = None,
    **options: Unpack[Options],
) -> Inpainted:
    """Make `num` images in which the hole, (H, W) bool, of an image, pixels (C, H, W) of the model's shape, is painted
    anew.

    What the image has inside the hole has no effect. `method` is a name of `INPAINTERS`; those of `REPEATS`
    make each step `repeats` times, 1 being plain replacement. The default recipe is ancestral sampling (`usual`).

    Raises `UserError` for an image or a hole of another shape, an unknown method, repeats out of 1 .. 1024, or pixels
    that are not linear in x_0.
    """
    check_image(model, image)
    size = model.codec.image_shape[1:]
    if hole.dtype != torch.bool or tuple(hole.shape) != size:
        raise UserError(f"the hole must be a {size[0]}x{size[1]} bool tensor, True where to paint")
    if method not in INPAINTERS:
        raise UserError(f"there is no method '{method}'{nearest(method, INPAINTERS)}")
    repeats = REPEATS.get(method, 1) if repeats is None else repeats
    if not 1 <= repeats <= 1024:
        raise UserError(f"repeats is {repeats}: choose from 1 (plain replacement) to 1024")
    painted = float(hole.double().mean())
    image, hole = image.float().cpu(), hole.cpu()
    if not painted:
        return Inpainted(image.expand(num, *image.shape).clone(), painted)
    if painted == 1:
        sampling = prepared(model, options, usual(model, method))
    else:
        sampling = _knowing(model, image.to(model.device), ~hole.to(model.device), method, repeats, options)
    return Inpainted(torch.where(hole, images_of(model, sampling, num, options), image), painted)


def usual(model: Model, method: str, recipe: Recipe = STOCHASTIC) -> Recipe:
    """Return a recipe with the steps of a method where it has none."""
    resolved = recipe.resolve(model)
    if recipe.steps is not None or method != "guided" or resolved.grid != "visible":
        return resolved
    return replace(resolved, steps=min(GUIDED_STEPS, model.schedule.num_steps))


def _knowing(model: Model, image: Tensor, known: Tensor, method: str, repeats: int, options: Options) -> Sampling:
    """Return sampling conditioned on the known part of the image."""
    mask = Mask(known[None])
    operator, y = on_pixels(model, mask), mask.forward(image[None])
    inside = None
    if method != "repaint":
        wrap, std = posterior("pigdm" if method == "guided" else method), rounding(model.codec.format)
        inside = lambda denoiser: wrap(denoiser, operator, y, std)  # noqa: E731
    sampling = prepared(model, options, usual(model, method), inside)
    if method not in REPEATS:
        return sampling
    # the coordinates of x_0 that depend on known pixels alone: the codec is linear
    generator, codec = torch.Generator().manual_seed(0), model.codec
    unknown = torch.randn(4, *codec.image_shape, generator=generator, dtype=torch.float64).to(known.device) * ~known
    coordinates = (codec.from_pixels(unknown).abs() < 1e-9).all(0)
    return replace(sampling, sampler=RePaint(sampling.sampler, codec.from_pixels(y), coordinates, repeats))
