"""Samples: addressed noise through a denoiser, batch by batch.

Image i of seed s is a function of (s, i) alone: its prior x_T and the noise of its every step are read from the address
(s, i) of a counter-based generator (`diffusion.noise`). So the batch size, the order, and where a job was interrupted
change nothing about the picture beyond the rounding of the matrix kernels, and a batch that doesn't fit into the memory
may be halved and tried again.

`sfumato sample`, the grids drawn during training and the library's `sfumato.sample` are all this one loop.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sfumato.diffusion import DDIM, Clipped, Denoiser, Noise, Sampler, State, trailing, trajectory
from sfumato.errors import UserError

if TYPE_CHECKING:
    from sfumato.weights import Model

__all__ = ["generate", "in_turn", "sample"]

LOG = logging.getLogger("sfumato")


def generate(
    denoiser: Denoiser,
    shape: tuple[int, int, int],
    num: int,
    seed: int,
    sampler: Sampler,
    times: Tensor,
    batch: int = 64,
    conditions: Tensor | None = None,
    first: int = 0,
    on_state: Callable[[int, State], None] | None = None,
    device: torch.device | str = "cpu",
    start: Callable[[Noise], Tensor] | None = None,
) -> Iterator[tuple[int, Tensor]]:
    """Yield images `first` .. `first + num - 1` of a seed, a batch at a time.

    Args:
        denoiser: predicts; wrap it in `Clipped` to keep the predicted images in [-1, 1].
        shape: (C, H, W) of one image.
        num: how many images.
        seed: their seed.
        sampler: how to step.
        times: (N + 1,) decreasing, as from `diffusion.grid`.
        batch: images at a time; halved, for good, whenever the memory does not hold it.
        conditions: (num, A), what each image should be, NaN = not given; None for nothing.
        first: index of the first image.
        on_state: called with the index of a batch's first image and each of its states, the prior first; a batch that
            was too large for the memory comes again, halved, from its prior.
        device: where the denoiser works.
        start: makes a batch's images at times[0], (b, C, H, W), out of its noise; None is the prior.

    Yields:
        (index of the batch's first image, float (b, C, H, W) on the CPU); the last may be short.

    Raises:
        UserError: not even one image fits into the memory.
    """
    assert conditions is None or len(conditions) == num, f"{num} images want as many conditions"
    done = 0
    while done < num:
        index = torch.arange(done, min(done + batch, num))
        condition = None if conditions is None else conditions[index].to(device)
        noise = Noise(seed, (first + index).to(device), shape)
        images = _walk(denoiser, sampler, times, noise, condition, first + done, on_state, start)
        if images is not None:
            yield first + done, images
            done += len(index)
        elif len(index) == 1:
            raise UserError(f"one image of {shape[1]}x{shape[2]} does not fit into the memory; use --device cpu")
        else:
            batch = len(index) // 2
            LOG.warning("the memory does not hold that batch; going on with --batch %d, the images are the same", batch)


def sample(
    model: Model,
    num: int = 64,
    *,
    seed: int = 0,
    sampler: Sampler = DDIM(),
    steps: int = 50,
    batch: int = 64,
    conditions: Tensor | Sequence[Sequence[float]] | None = None,
    clip: bool = True,
) -> Tensor:
    """Draw images from a trained model.

    Args:
        model: what `sfumato.load` returned.
        num: how many images.
        seed: image i of a seed is always the same image.
        sampler: `DDIM(eta)` or `Ancestral(variance)`.
        steps: how many of the chain's steps to take, evenly spaced.
        batch: images at a time.
        conditions: rows of numbers, which the images take in turn, as `sfumato.attributes.turns(model.attributes,
            "glasses=dark")` returns them; None for nothing.
        clip: keep each predicted x_0 within [-1, 1] on the way.

    Returns:
        (num, C, H, W) float32, in [-1, 1] where clipped; `sfumato.to_bytes` makes it uint8, and
        `model.depth.from_model` what the data were made of.

    Raises:
        UserError: conditions that are none of the model's.
    """
    denoiser: Denoiser = Clipped(model.denoiser) if clip else model.denoiser
    times = trailing(steps, model.denoiser.schedule)
    device = next(model.net.parameters()).device
    told = None if conditions is None else in_turn(_checked(model, conditions), num)
    parts = generate(denoiser, model.shape, num, seed, sampler, times, batch, told, device=device)
    return torch.cat([images for _, images in parts])


def _checked(model: Model, conditions: Tensor | Sequence[Sequence[float]]) -> Tensor:
    """Return conditions as a table (n, A), if they are the model's own; raises `UserError`."""
    table, attributes = torch.as_tensor(conditions, dtype=torch.float32), model.attributes
    if table.ndim != 2 or not len(table) or table.shape[1] != len(attributes):
        raise UserError(f"conditions of {tuple(table.shape)}: the model takes rows of {len(attributes)} numbers")
    for column, attribute in zip(table.T, attributes, strict=True):
        given, count = column[~column.isnan()], len(attribute.values)
        if count and not set(given.tolist()) <= set(range(count)):
            raise UserError(f"{attribute.name} has {count} values: give 0 to {count - 1}, or NaN for none")
        if not bool(given.isfinite().all()):
            raise UserError(f"{attribute.name} is not finite: give numbers, or NaN for none")
    return table


def in_turn(rows: Tensor | Sequence[Sequence[float]], num: int) -> Tensor:
    """Return `num` conditions (num, A): the rows one after another, and again from the first."""
    table = torch.as_tensor(rows, dtype=torch.float32)
    return table[torch.arange(num) % len(table)]


@torch.no_grad()
def _walk(
    denoiser: Denoiser,
    sampler: Sampler,
    times: Tensor,
    noise: Noise,
    condition: Tensor | None,
    first: int,
    on_state: Callable[[int, State], None] | None,
    start: Callable[[Noise], Tensor] | None,
) -> Tensor | None:
    """Walk one batch from noise to images on the CPU; None when the memory does not hold it."""
    state = None
    try:
        for state in trajectory(denoiser, sampler, times, noise, condition, None if start is None else start(noise)):
            if on_state is not None:
                on_state(first, state)
        assert state is not None
        return state.x.float().cpu()
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
    # only now, with the exception and its frames gone, can the cache give the memory back
    state = None
    if noise.index.device.type == "cuda":
        torch.cuda.empty_cache()
    return None


def out_of_memory(error: BaseException) -> bool:
    """Tell a failed allocation, which torch raises under several names, from other errors."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text
