"""Pictures that explain diffusion, made from a schedule, a recipe or a run folder; each takes a seed, so it can be made
again.

- `forward`: one image becomes noise, by the chain's steps q(x_t | x_{t-1}) and at once by q(x_t | x_0) (DDPM Eq. 2, 4).
  The two rows have different noise and the same distribution. Times are even in logsnr, so something happens in each.
- `reverse`: noise becomes images; above what the sampler has, x_t, below the network's prediction of x_0.
- `through_training`: the same seeds sampled by the network at several moments of its training.
- `contact_sheet`: images of a data set, a row a value of its first attribute.
- `album`: the first three from a trained run, written into a folder, with a film; `sfumato demo` shows it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from sfumato.codec.pixels import to_bytes
from sfumato.data import Dataset
from sfumato.data.mirror import evenly
from sfumato.diffusion import Noise, Schedule, State, forward_step, marginal
from sfumato.diffusion.condition import Condition
from sfumato.generate import pictures
from sfumato.generate.recipe import Recipe
from sfumato.generate.sample import Report, Sampling, prepare
from sfumato.generate.writers import Frames, film, save_png
from sfumato.model import Model
from sfumato.run.folder import Run

Shown = Callable[[Tensor], Tensor]
"""Converts x to bytes, as `Codec.shown`."""


def spaced(schedule: Schedule, count: int, low: float = -7.0, high: float = 9.0) -> Tensor:
    """Return up to `count` steps of a chain, evenly in logsnr between two bounds as far as it reaches, increasing,
    (K,) int64."""
    total = schedule.num_steps
    logsnr = schedule(torch.arange(1, total + 1, dtype=torch.float64) / total).logsnr
    most, least = min(high, float(logsnr[0])), max(low, float(logsnr[-1]))
    wanted = torch.linspace(most, least, count, dtype=torch.float64)
    steps: Tensor = torch.unique((schedule.time(wanted) * total).round().clamp(1, total).long())  # type: ignore[no-untyped-call]
    return steps


def forward(x_0: Tensor, schedule: Schedule, seed: int = 0, columns: int = 10, shown: Shown = to_bytes) -> Image.Image:
    """Show one image x_0 (C, H, W) at up to `columns` times after the clean one, the last of them T, noised step by
    step above and in closed form below.

    The chain's steps and the closed form take different noise of the seed.
    """
    total, shape = schedule.num_steps, tuple(x_0.shape)
    marks = sorted({0, total, *spaced(schedule, columns - 1).tolist()})
    noise = Noise(seed, torch.zeros(1, dtype=torch.int64), shape)
    chain, stepped = x_0[None].float(), [x_0[None].float()]
    for i in range(1, total + 1):
        chain = forward_step(chain, schedule((i - 1) / total), schedule(i / total)).sample(noise.step(i - 1))
        if i in marks:
            stepped.append(chain)
    eps = noise.prior()
    at_once = [marginal(x_0[None].float(), schedule(i / total)).sample(eps) for i in marks]
    labels = ["step by step,\nt times", "at once,\nclosed form"]
    rows = [shown(torch.cat(row)) for row in (stepped, at_once)]
    return pictures.strip(rows, labels, [f"t = {i}" for i in marks])


def reverse(
    sampling: Sampling,
    seed: int = 0,
    num: int = 2,
    columns: int = 11,
    condition: Condition | None = None,
    shown: Shown = to_bytes,
) -> Image.Image:
    """Show images 0 .. num - 1 of a seed at `columns` times, the last being 0: x_t above, the predicted x_0 below."""
    states: list[State] = []
    for _ in sampling.stream(num, seed, condition=condition, on_state=lambda first, state: states.append(state)):
        pass
    chosen = in_logsnr([state.t for state in states], sampling.denoiser.schedule, columns)
    # the prediction made at state k is carried by state k + 1; at t = 0 the image is its own
    predictions = [states[k + 1].prediction for k in chosen[:-1]]
    seen = [states[k].x for k in chosen]
    guessed = [*(p.x0 for p in predictions if p is not None), seen[-1]]
    rows = [shown(torch.stack([x[n] for x in row]).float().cpu()) for n in range(num) for row in (seen, guessed)]
    captions = [f"t = {round(states[k].t * sampling.denoiser.schedule.num_steps)}" for k in chosen]
    return pictures.strip(rows, ["the sample\nx_t", "the guess\nat x_0"] * num, captions, group=2)


def in_logsnr(times: Sequence[float], schedule: Schedule, count: int) -> list[int]:
    """Return at most `count` indices of decreasing times, evenly in logsnr, with both ends."""
    logsnr = [float(schedule(t).logsnr) for t in times]
    middle = [min(max(value, -7.0), 9.0) for value in logsnr]
    # the last step may be a long one, to the image itself
    wanted = np.linspace(middle[0], middle[-2 if len(times) > 2 else -1], max(2, count - 1))
    nearest = (min(range(len(times)), key=lambda k, w=w: abs(middle[k] - w)) for w in wanted)  # type: ignore[misc]
    return sorted({0, len(times) - 1, *nearest})


class Pairs(Frames):
    """Frames that show, beside each sample, the predicted image that its step was made with."""

    def seen(self, state: State, count: int) -> Tensor:
        """Return the samples with the predictions at their right, bytes."""
        x = super().seen(state, count)
        guess = x if state.prediction is None else self.shown(state.prediction.x0[:count]).cpu()
        return torch.cat([x, guess if state.t > 0 else x], dim=3)


def through_training(grids: Sequence[Path], labels: Sequence[str], columns: int = 10) -> Image.Image:
    """Show the first tiles of several sample grids of the same seeds, a row a grid with a label such as "12,800
    images".

    Raises `UserError` for a file that is not such a grid.
    """
    rows = []
    for path in grids:
        with Image.open(path) as picture:
            rows.append(pictures.tiles(picture)[:columns])
    return pictures.strip(rows, labels)


def contact_sheet(data: Dataset, num: int) -> Image.Image:
    """Show about `num` images of a data set, evenly spaced through it: a row for each value of the first attribute
    where it has 2 to 20, else a grid."""

    def some(rows: NDArray[np.int64], most: int) -> Any:
        return data.shown(rows[evenly(len(rows), most)])

    values = data.attributes[0].values if data.attributes else ()
    if not 2 <= len(values) <= 20:
        return pictures.grid(some(np.arange(len(data)), num))
    columns = max(1, round(num / len(values)))
    rows = []
    for value in range(len(values)):
        images = some(np.flatnonzero(data.table[:, 0] == value), columns)
        blank = np.full((columns - len(images), *data.shape), pictures.PAPER, np.uint8)
        rows.append(np.concatenate([images, blank]))
    return pictures.strip(rows, [name if len(name) <= 24 else name[:23] + "…" for name in values])


@dataclass(frozen=True)
class Album:
    """The paths of the pictures of a run; `training` is None where the run has no sample grids."""

    samples: Path
    training: Path | None
    forward: Path
    reverse: Path
    film: Path


def album(
    run: Run,
    model: Model,
    data: Dataset,
    folder: Path,
    seed: int = 0,
    recipe: Recipe = Recipe("ddim"),
    report: Report | None = None,
) -> Album:
    """Make every picture of a trained run in a folder; one image of its training data becomes noise.

    DDIM in 50 steps shows the way; they are even in logsnr, so something happens in each. `report` is called with
    (steps done, in all), counted over the 100 samples. Raises `OSError` where the folder can't be written.
    """
    shown, condition = model.codec.shown, None if model.vocabulary is None else model.vocabulary.every()
    if recipe.grid is None and recipe.resolve(model).grid == "trailing":
        recipe = replace(recipe, grid="logsnr")
    sampling = prepare(model, recipe, condition)
    steps = len(sampling.times) - 1
    frames = Pairs(shown, 20, steps)
    made = sampling.stream(100, seed, condition=condition, batch=100, on_state=frames, report=report)
    samples = torch.cat([shown(x) for _, x in made])
    values = torch.from_numpy(data.images[data.train[seed % len(data.train)]].copy())
    x_0 = model.codec.encode(values[None])[0]
    grids = sorted(path for path in run.samples.glob("*.png") if path.stem.isdecimal())
    moments = [f"{int(path.stem):,}\nimages seen" for path in grids]
    way = reverse(sampling, seed, condition=condition, shown=shown)
    return Album(
        save_png(pictures.grid(samples, 10), folder / "samples.png", {"seed": seed, "steps": steps}),
        save_png(through_training(grids, moments), folder / "through-training.png") if grids else None,
        save_png(forward(x_0, model.schedule, seed, shown=shown), folder / "forward.png"),
        save_png(way, folder / "reverse.png"),
        film(frames.pictures(4, 640), folder / "film.gif"),
    )
