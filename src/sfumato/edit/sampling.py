"""The sampling of all edits.

An edit is sampling with one thing changed: where it begins (`vary`), what the denoiser predicts (`restore`), or how a
step is made (`inpaint`). All take `Options` as keywords and go through the loop of `generate.sample`, so image i of a
seed is the same for any batch size.

Images go in and come out as pixels, float (C, H, W) from -1 to 1, for any codec.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypedDict

import torch
from torch import Tensor

from sfumato.diffusion import Denoiser, Noise, Variance
from sfumato.diffusion.condition import Condition
from sfumato.errors import UserError
from sfumato.generate.recipe import AUTO_STEPS, Recipe
from sfumato.generate.sample import Report, Sampling, prepare, steady
from sfumato.model import Model

STOCHASTIC = Recipe(sampler="ddim", eta=1.0)
"""Ancestral sampling: its fresh noise corrects the errors of approximate likelihoods."""


class Options(TypedDict, total=False):
    """The keywords of every edit, as `prepare` and `Sampling.stream` have them; each edit has its own default
    recipe."""

    recipe: Recipe
    condition: Condition | None
    variance: Variance | None
    seed: int
    batch: int
    report: Report


def prepared(
    model: Model, options: Options, recipe: Recipe = Recipe(), inside: Callable[[Denoiser], Denoiser] | None = None
) -> Sampling:
    """Make the recipe of the options, or a default one, ready for a model, with `inside` put around its denoiser,
    inside of guidance and clipping."""
    recipe, variance = resolved(options.get("recipe", recipe), model), options.get("variance")
    sampling = prepare(model, recipe, options.get("condition"), variance=variance)
    if inside is None:
        return sampling
    return replace(sampling, denoiser=sampling.recipe.denoiser(inside(steady(model).denoiser), model.codec))


def resolved(recipe: Recipe, model: Model) -> Recipe:
    """Return a recipe with every default filled in for an edit: `auto` takes its larger number of steps on every grid,
    since an edit begins late on it, or takes gradients."""
    if recipe.sampler == "auto" and recipe.steps is None:
        recipe = replace(recipe, steps=min(AUTO_STEPS[recipe.quality], model.schedule.num_steps))
    return recipe.resolve(model)


def images_of(
    model: Model, sampling: Sampling, num: int, options: Options, start: Callable[[Noise], Tensor] | None = None
) -> Tensor:
    """Return `num` images, pixels (num, C, H, W) on the CPU; `start` as `Sampling.stream`."""
    condition, batch, report = options.get("condition"), options.get("batch", 64), options.get("report")
    parts = sampling.stream(num, options.get("seed", 0), condition=condition, batch=batch, start=start, report=report)
    return model.codec.to_pixels(torch.cat([x for _, x in parts]))


def check_image(model: Model, image: Tensor) -> None:
    """Raise `UserError` for an image that is not of the model's shape."""
    if tuple(image.shape) != tuple(model.codec.image_shape):
        got, expected = ("x".join(map(str, shape)) for shape in (image.shape, model.codec.image_shape))
        raise UserError(
            f"the image is {got}, and the model's are {expected} (channels x height x width): read it with "
            "read_image, which resizes it"
        )


def rmse(model: Model, a: Tensor, b: Tensor) -> Tensor:
    """Return the root mean squared difference of pixels, image by image, in units of stored values: (B,) float64."""
    return model.codec.format.scale * (a.double() - b.double()).square().flatten(1).mean(1).sqrt()
