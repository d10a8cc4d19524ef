"""What the page has to know of a model: its conditions, and the noise levels of every choice of sampler and steps.

The times of a recipe and their levels are computed here, in float64, by the same functions that `sfumato sample` uses;
the page's own program has only the formulae of a step. A level is

    [t, alpha, sigma, logsnr, a, b, c, d]        x_0 = a x_t + b output,  eps = c x_t + d output

with the solution of `parameterization.solve`; a to d are 0 at t = 0, where nothing is predicted.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import torch

from sfumato.conditions.attributes import plain
from sfumato.diffusion import Parameterization, Schedule
from sfumato.errors import UserError
from sfumato.generate.recipe import Recipe
from sfumato.model import Model
from sfumato.run.locate import ASSETS, run_of
from sfumato.session import num_attributes

SAMPLERS = {"auto": "auto", "ddim": "ddim", "heun": "heun", "ddpm": "ddpm", "dpmpp-sde": "dpmpp-sde"}
"""The samplers that the page offers."""
STEPS = (5, 10, 20, 50, 100, 250)
MOST_PARAMETERS = 10_000_000
MOST_SIDE = 256


def check(model: Model, parameters: int) -> None:
    """Raise `UserError` where a page can't hold the model, with the reason."""
    num_attributes(model.vocabulary)
    channels, height, width = model.shape
    if parameters > MOST_PARAMETERS:
        raise UserError(
            f"this network has {parameters / 1e6:.1f} M parameters, and a page holds {MOST_PARAMETERS / 1e6:.0f} M: a "
            "browser runs it on one core, and a step of a larger one takes seconds; --to onnx holds any size"
        )
    if max(height, width) > MOST_SIDE:
        raise UserError(
            f"its images are {height}x{width}, and a page samples up to {MOST_SIDE}x{MOST_SIDE}: use --to onnx"
        )
    if model.codec.range != (-1.0, 1.0) or model.codec.shape != model.codec.image_shape:
        raise UserError("a page shows pixels, and this model's x_0 is not pixels: use --to onnx")
    if channels not in (1, 3) and not (channels == 4 and model.config.data.channels == 4):
        raise UserError(f"a page shows grey or colour, and these images have {channels} channels: use --to onnx")


def plan(model: Model, name: str) -> dict[str, Any]:
    """Return everything but the levels, as JSON has it; `source` is how a command names the model."""
    run = run_of(model.path)
    source = run.path if run is not None else Path(model.path.stem) if model.path.parent == ASSETS else model.path
    source = Path(source.name) if source.is_absolute() else source  # the page may be shown to others
    dropout, vocabulary = model.config.train.label_dropout, {} if model.vocabulary is None else model.vocabulary.plain()
    return {
        "name": name,
        "source": shlex.quote(str(source)),
        "shape": list(model.shape),
        "outputs": model.net.interface.outputs,
        "chain": model.schedule.num_steps,
        "attributes": [plain(attribute) for attribute in model.attributes],
        "usual": vocabulary.get("usual", []) if dropout else [],
        "complete": bool(model.attributes) and dropout == 0,
        "guidable": bool(model.attributes) and dropout > 0,
        "variance": model.config.diffusion.variance,
        "samplers": [_sampler(model, sampler) for sampler in SAMPLERS],
    }


def _sampler(model: Model, name: str) -> dict[str, Any]:
    """A sampler as the page knows it: of `auto`, the method that it is here."""
    recipe, choices = Recipe(name).resolve(model), _steps(model)
    assert recipe.steps is not None
    usual = max([n for n in choices if n <= min(recipe.steps, 100)] or choices[:1])
    shown = f"auto ({recipe.sampler})" if name == "auto" else name
    return {"sampler": name, "name": shown, "method": recipe.sampler, "grid": recipe.grid, "steps": usual}


def _steps(model: Model) -> list[int]:
    """The numbers of steps to choose from."""
    return [n for n in STEPS if n <= model.schedule.num_steps] or [model.schedule.num_steps]


def levels(model: Model) -> dict[str, dict[str, list[list[float]]]]:
    """Return the levels of each grid and number of steps, noise first."""
    space, table = model.denoiser.parameterization, dict[str, dict[str, list[list[float]]]]()
    for name in SAMPLERS:
        for n in _steps(model):
            recipe = Recipe(name, steps=n).resolve(model)
            times = recipe.times(model.denoiser, model.shape)
            table.setdefault(str(recipe.grid), {})[str(n)] = _levels(model.schedule, space, times)
    return table


def _levels(schedule: Schedule, space: Parameterization, times: torch.Tensor) -> list[list[float]]:
    """The levels of a grid of times, of which the last is 0."""
    level, some = schedule(times), times[:-1]
    p, q = space.direction(schedule, some)
    alpha, sigma = level.alpha[:-1], level.sigma[:-1]
    determinant = alpha * q - sigma * p
    solved = torch.stack([q, -sigma, -p, alpha]) / determinant
    columns = torch.cat([solved, torch.zeros(4, 1, dtype=torch.float64)], 1)
    return torch.stack([times, level.alpha, level.sigma, level.logsnr, *columns], 1).tolist()  # type: ignore[no-any-return]
