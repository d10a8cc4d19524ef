"""Pictures that explain diffusion, drawn from a schedule, a denoiser or a run folder.

- `forward`: one image becomes noise, by the chain's steps q(x_t | x_{t-1}) and at once by q(x_t | x_0) (DDPM Eq. 2, 4).
  The two rows have different noise and the same distribution.
- `reverse`: noise becomes images; above what the sampler has, x_t, below what the network thinks it will become, x0^.
- `through_training`: the same noise drawn by the network at several moments of its training.
- `album`: all of these from a trained run, written into a folder; it is what `sfumato demo` shows.

Each takes a seed, so it can be drawn again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from PIL import Image
from torch import Tensor

from sfumato.codec.pixels import to_bytes
from sfumato.conditions.attributes import every_value
from sfumato.diffusion import (
    DDIM,
    Clipped,
    Denoiser,
    Noise,
    Sampler,
    Schedule,
    State,
    forward_step,
    marginal,
    trailing,
    trajectory,
)
from sfumato.generate import pictures
from sfumato.generate.sample import generate, in_turn
from sfumato.generate.writers import Frames, film, save_png
from sfumato.run.folder import Run

if TYPE_CHECKING:
    from sfumato.data import Dataset
    from sfumato.model import Model

__all__ = ["Album", "album", "forward", "reverse", "through_training"]


def forward(x_0: Tensor, schedule: Schedule, seed: int = 0, columns: int = 10) -> Image.Image:
    """Draw one image at `columns` times, noised step by step above and in closed form below.

    Args:
        x_0: (C, H, W) in [-1, 1].
        schedule: what noises it.
        seed: of the noise; the chain's steps and the closed form take different noise of it.
        columns: how many times t, evenly spaced up to T; the clean image stands before them.
    """
    total, shape = schedule.num_steps, tuple(x_0.shape)
    marks = [round(total * k / columns) for k in range(columns + 1)]
    noise = Noise(seed, torch.zeros(1, dtype=torch.int64), shape)
    chain, stepped = x_0[None].float(), [x_0[None].float()]
    for i in range(1, total + 1):
        chain = forward_step(chain, schedule((i - 1) / total), schedule(i / total)).sample(noise.step(i - 1))
        if i in marks:
            stepped.append(chain)
    eps = noise.prior()
    at_once = [marginal(x_0[None].float(), schedule(i / total)).sample(eps) for i in marks]
    labels = ["step by step,\nt times", "at once,\nclosed form"]
    return pictures.strip([_bytes(stepped), _bytes(at_once)], labels, [f"t = {i}" for i in marks])


@torch.no_grad()
def reverse(
    denoiser: Denoiser,
    shape: tuple[int, int, int],
    seed: int = 0,
    num: int = 2,
    steps: int = 50,
    columns: int = 11,
    sampler: Sampler = DDIM(),
    condition: Tensor | None = None,
) -> Image.Image:
    """Draw the way from noise to `num` images: x_t above, the predicted x_0 below.

    Args:
        denoiser: predicts.
        shape: (C, H, W) of an image.
        seed: of the noise; the images are 0 .. num - 1 of this seed.
        num: how many images.
        steps: of the sampler.
        columns: how many times are shown, the last being 0.
        sampler: how to step.
        condition: handed to the denoiser, (num, A) or None.
    """
    total = denoiser.schedule.num_steps
    noise = Noise(seed, torch.arange(num), shape)
    states = list(trajectory(denoiser, sampler, trailing(steps, denoiser.schedule), noise, condition))
    chosen = pictures.evenly(len(states), columns)
    rows = []
    for n in range(num):
        rows.append(_bytes([states[k].x[n : n + 1] for k in chosen]))
        # the prediction made at state k is carried by state k + 1; at t = 0 the image is its own
        ahead = [states[k + 1].prediction for k in chosen[:-1]]
        guesses = [p.x0[n : n + 1] for p in ahead if p is not None]
        rows.append(_bytes([*guesses, states[-1].x[n : n + 1]]))
    captions = [f"t = {round(states[k].t * total)}" for k in chosen]
    return pictures.strip(rows, ["the sample\nx_t", "the guess\nat x_0"] * num, captions, group=2)


def through_training(grids: Sequence[Path], labels: Sequence[str], columns: int = 10) -> Image.Image:
    """Draw the first tiles of several sample grids, a row a grid.

    Args:
        grids: PNG files that `pictures.grid` laid out, from the same seeds.
        labels: one a grid, such as "12,800 images".
        columns: tiles in a row, at most.

    Raises:
        UserError: a file is not such a grid.
    """
    rows = []
    for path in grids:
        with Image.open(path) as picture:
            rows.append(pictures.tiles(picture)[:columns])
    return pictures.strip(rows, labels)


@dataclass(frozen=True)
class Album:
    """Where the pictures of a run lie.

    Attributes:
        samples: a grid of new images.
        training: the same noise drawn at several moments of the training; None where no grids were drawn.
        forward: an image of the data becoming noise.
        reverse: noise becoming images.
        film: the samples emerging, as a GIF.
    """

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
    steps: int = 50,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Album:
    """Draw every picture of a trained run into a folder.

    Args:
        run: whose sample grids show the training.
        model: draws.
        data: gives the image that becomes noise.
        folder: where the pictures go.
        seed: of all of them.
        steps: of the DDIM sampler.
        report: called with (steps done, in all) while the samples are drawn.

    Raises:
        OSError: the folder can't be written.
    """
    denoiser, schedule = Clipped(model.denoiser), model.denoiser.schedule
    steps = min(steps, schedule.num_steps)
    frames = Frames(model.codec.shown, 25, steps)

    def on_state(first: int, state: State) -> None:
        frames(first, state)
        report(state.step, steps)

    conditions = in_turn(every_value(model.attributes), 100) if model.attributes else None
    times = trailing(steps, schedule)
    drawn = generate(denoiser, model.shape, 100, seed, DDIM(), times, 100, conditions, on_state=on_state)
    samples = torch.cat([to_bytes(images) for _, images in drawn])
    x_0 = data.depth.to_model(torch.from_numpy(data.images[data.train[seed % len(data.train)]].copy()))
    grids = run.list_grids()
    moments = [f"{int(path.stem):,}\nimages seen" for path in grids]
    return Album(
        save_png(pictures.grid(samples, 10), folder / "samples.png", {"seed": seed, "steps": steps}),
        save_png(through_training(grids, moments), folder / "through-training.png") if grids else None,
        save_png(forward(x_0, schedule, seed), folder / "forward.png"),
        save_png(
            reverse(denoiser, model.shape, seed, steps=steps, condition=None if conditions is None else conditions[:2]),
            folder / "reverse.png",
        ),
        film(frames.pictures(5), folder / "film.gif"),
    )


def _bytes(images: Sequence[Tensor]) -> Tensor:
    """One row of a strip: (1, C, H, W) floats become (N, C, H, W) bytes."""
    return to_bytes(torch.cat(list(images)).float().cpu())
