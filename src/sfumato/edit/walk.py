"""How an edit walks from noise to images: the part that all edits share.

An edit is plain sampling with something changed: where the walk begins (`vary`), what the denoiser says (`restore`), or
how a step is made (`inpaint`). So every edit takes a `Walk`, which has a default for everything, and calls `draw`,
which is `sfumato.generate`'s loop: image i of a seed is the same image for any batch size, and a batch that the memory
does not hold is halved.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sfumato.diffusion import DDIM, Clipped, Denoiser, Noise, Sampler, State, trailing
from sfumato.errors import UserError
from sfumato.generate.sample import generate, in_turn

if TYPE_CHECKING:
    from sfumato.model import Model

__all__ = ["STOCHASTIC", "Report", "Walk", "check_image", "device_of", "draw", "psnr", "rmse"]

Report = Callable[[int, int], None]
"""Called with (steps walked, in all), both counted over all images."""


def _silent(done: int, total: int) -> None:
    """Report nothing."""


@dataclass(frozen=True)
class Walk:
    """How to go from noise to images.

    Attributes:
        sampler: how to step.
        times: (N + 1,) decreasing from 1 to 0, as from `diffusion.grid`; None is 50 steps evenly spaced on the
            chain, or the whole of a shorter one.
        wrap: what is put around the model's denoiser: guidance, and a limit that keeps predicted images in range, as
            `Recipe.denoiser` does; what an edit itself does to a denoiser comes inside.
        conditions: (R, A), what the images should be, the rows in turn, NaN for "not given"; None asks for nothing.
        batch: images at a time; halved, for good, whenever the memory does not hold it.
        report: told how far the walk is.
    """

    sampler: Sampler = DDIM()
    times: Tensor | None = None
    wrap: Callable[[Denoiser], Denoiser] = Clipped
    conditions: Tensor | None = None
    batch: int = 64
    report: Report = _silent

    def of(self, model: Model) -> tuple[Denoiser, Tensor]:
        """Return the denoiser and the times for a model, the defaults filled in."""
        schedule = model.denoiser.schedule
        times = trailing(min(50, schedule.num_steps), schedule) if self.times is None else self.times
        return self.wrap(model.denoiser), times

    def through(self, inside: Callable[[Denoiser], Denoiser]) -> Walk:
        """Return the walk with something put around the model's denoiser, inside of `wrap`."""
        return replace(self, wrap=lambda denoiser: self.wrap(inside(denoiser)))

    def told(self, num: int) -> Tensor | None:
        """Return the condition of each of `num` images, (num, A), or None."""
        return None if self.conditions is None else in_turn(self.conditions, num)


STOCHASTIC = Walk(DDIM(1.0))
"""An ancestral walk: its noise makes good what the approximate likelihoods of the inverse methods do badly."""


def draw(model: Model, walk: Walk, num: int, seed: int, start: Callable[[Noise], Tensor] | None = None) -> Tensor:
    """Walk from noise, or from given images, to `num` images.

    Args:
        model: whose shape and device are used.
        walk: how.
        num: how many.
        seed: image i of a seed is always the same.
        start: makes a batch's images at times[0] out of its noise; None is the noise itself.

    Returns:
        (num, C, H, W) float32 on the CPU.
    """
    denoiser, times = walk.of(model)
    total, walked = num * (len(times) - 1), 0

    def on_state(first: int, state: State) -> None:
        nonlocal walked
        walked += len(state.x) if state.step else 0
        walk.report(min(walked, total), total)

    parts = generate(
        denoiser, model.shape, num, seed, walk.sampler, times, walk.batch, walk.told(num),
        on_state=on_state, device=device_of(model), start=start,
    )  # fmt: skip
    return torch.cat([images for _, images in parts])


def device_of(model: Model) -> torch.device:
    """Return where a model's network lives."""
    return next(model.net.parameters()).device


def check_image(model: Model, image: Tensor, what: str = "the image") -> None:
    """Refuse an image that is not of the model's shape.

    Raises:
        UserError: another shape than (C, H, W).
    """
    if tuple(image.shape) != tuple(model.shape):
        got, wanted = ("x".join(map(str, shape)) for shape in (image.shape, model.shape))
        raise UserError(
            f"{what} is {got}, and the model's images are {wanted} (channels x height x width): fit it first"
        )


def rmse(a: Tensor, b: Tensor) -> Tensor:
    """Return the root of the mean squared difference, image by image, in grey levels of 0 to 255: (B,) float64."""
    return (127.5 * (a.double() - b.double())).square().flatten(1).mean(1).sqrt()


def psnr(error: Tensor) -> Tensor:
    """Return the peak signal-to-noise ratio of an RMSE in grey levels, 20 log10(255 / RMSE), in dB; inf for 0."""
    return 20 * torch.log10(255 / error)
