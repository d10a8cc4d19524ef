r"""Inpainting: repaint a part of an image so that it fits the rest.

There are two ways. RePaint puts the known coordinates, noised to the right level, into every step of an ordinary
sampler, and repeats each step until both parts agree (Lugmayr et al. 2022, 2201.09865, Alg. 1). The posterior methods
take the known pixels as a measurement, A = a mask, and sample from p(x_0 | y) as `restore` does. In either, the known
pixels of the result are those of the image, exactly.

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
from sfumato.generate.sample import Sampling
from sfumato.model import Model

INPAINTERS = ("repaint", *POSTERIORS)
"""The methods by name."""


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
    method: str = "repaint",
    repeats: int = 10,
    **options: Unpack[Options],
) -> Inpainted:
    """Make `num` images in which the hole, (H, W) bool, of an image, pixels (C, H, W) of the model's shape, is painted
    anew.

    What the image has inside the hole has no effect. `method` is a name of `INPAINTERS`; RePaint makes each step
    `repeats` times, 1 being plain replacement. The default recipe is ancestral sampling.

    Raises `UserError` for an image or a hole of another shape, an unknown method, repeats out of 1 .. 1024, or pixels
    that are not linear in x_0.
    """
    check_image(model, image)
    size = model.codec.image_shape[1:]
    if hole.dtype != torch.bool or tuple(hole.shape) != size:
        raise UserError(f"the hole must be a {size[0]}x{size[1]} bool tensor, True where to paint")
    if method not in INPAINTERS:
        raise UserError(f"there is no method '{method}'{nearest(method, INPAINTERS)}")
    if not 1 <= repeats <= 1024:
        raise UserError(f"repeats is {repeats}: choose from 1 (plain replacement) to 1024")
    painted = float(hole.double().mean())
    image, hole = image.float().cpu(), hole.cpu()
    if not painted:
        return Inpainted(image.expand(num, *image.shape).clone(), painted)
    if painted == 1:
        sampling = prepared(model, options, STOCHASTIC)
    else:
        sampling = _knowing(model, image.to(model.device), ~hole.to(model.device), method, repeats, options)
    return Inpainted(torch.where(hole, images_of(model, sampling, num, options), image), painted)


def _knowing(model: Model, image: Tensor, known: Tensor, method: str, repeats: int, options: Options) -> Sampling:
    """Return sampling conditioned on the known part of the image."""
    mask = Mask(known[None])
    operator, y = on_pixels(model, mask), mask.forward(image[None])
    if method != "repaint":
        wrap, std = posterior(method), rounding(model.codec.format)
        return prepared(model, options, STOCHASTIC, lambda denoiser: wrap(denoiser, operator, y, std))
    sampling = prepared(model, options, STOCHASTIC)
    # the coordinates of x_0 that depend on known pixels alone: the codec is linear
    generator, codec = torch.Generator().manual_seed(0), model.codec
    unknown = torch.randn(4, *codec.image_shape, generator=generator, dtype=torch.float64).to(known.device) * ~known
    coordinates = (codec.from_pixels(unknown).abs() < 1e-9).all(0)
    return replace(sampling, sampler=RePaint(sampling.sampler, codec.from_pixels(y), coordinates, repeats))
