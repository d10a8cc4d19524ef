"""Samples: keyed noise through a denoiser, batch by batch.

Image i of seed s is a function of (s, i) alone: its prior x_T and the noise of its every step are the counter-based
random numbers of the key (s, i) (`diffusion.noise`). So the batch size, the order, and where a job was interrupted
change nothing about an image beyond the rounding of matrix kernels. Everything that samples goes through `stream`:

    sample(model, 64, Recipe(), seed=0)              images at once, (64, C, H, W)
    prepare(model, Recipe()).stream(5000, seed=0)    the same, a batch at a time
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from sfumato.conditions.protocol import common
from sfumato.diffusion import (
    Denoiser,
    NetworkDenoiser,
    Noise,
    Prediction,
    Sampler,
    Schedule,
    State,
    Variance,
    trajectory,
)
from sfumato.diffusion.condition import Condition
from sfumato.errors import UserError
from sfumato.generate.recipe import Recipe
from sfumato.generate.variance import measured_variance
from sfumato.model import Model
from sfumato.nets.derived import fixed
from sfumato.nets.replay import Replayed

LOG = logging.getLogger("sfumato")

OnState = Callable[[int, State], None]
"""Called with the index of a batch's first image and each of its states, the prior first."""

Report = Callable[[int, int], None]
"""Called with (steps done, steps in all), both counted over all images."""


@dataclass(frozen=True, eq=False)
class Sampling:
    """A recipe prepared for a model: resolved, its denoiser guided and clipped, its times (N + 1,) decreasing, the
    shape (C, H, W) of x_0."""

    recipe: Recipe
    denoiser: Denoiser
    sampler: Sampler
    times: Tensor
    shape: tuple[int, ...]
    device: torch.device

    @property
    def evaluations(self) -> int:
        """Network evaluations of an image, as `evaluations`."""
        return evaluations(self.recipe, self.sampler, self.denoiser.schedule, self.times)

    def stream(
        self,
        num: int,
        seed: int = 0,
        *,
        condition: Condition | None = None,
        batch: int = 64,
        first: int = 0,
        on_state: OnState | None = None,
        start: Callable[[Noise], Tensor] | None = None,
        report: Report | None = None,
    ) -> Iterator[tuple[int, Tensor]]:
        """Yield images `first` .. `first + num - 1` of a seed, a batch at a time.

        Args:
            condition: rows that the images cycle through, image i taking row i modulo their number; None for nothing.
            batch: images at a time; halved, also for later batches, whenever it does not fit into memory.
            on_state: called with every state; a batch that was too large starts again, halved, from its prior.
            start: returns a batch's images at times[0], (b, C, H, W), from its noise; None is the prior.

        Yields:
            (index of the batch's first image, float32 x_0 (b, C, H, W) on the CPU).

        Raises:
            UserError: not even one image fits into memory.
        """
        if report is not None:
            on_state = counted(report, num * (len(self.times) - 1), on_state)
        done = broken = 0
        while done < num:
            index = first + torch.arange(done, min(done + batch, num))
            rows = None if condition is None else condition.take(index % len(condition)).to(self.device)
            images = self._run(Noise(seed, index.to(self.device), self.shape), rows, first + done, on_state, start)
            if images is not None:
                broken += len(not_finite(images))
                yield first + done, images
                done += len(index)
            elif len(index) == 1:
                size = "x".join(map(str, self.shape[1:]))
                raise UserError(f"one image of {size} does not fit into memory; use --device cpu")
            else:
                batch = len(index) // 2
                LOG.warning(
                    "a batch does not fit into memory; continuing with %d images at a time, with the same results",
                    batch,
                )
        if broken:
            LOG.warning(
                "%d of %d images are not finite numbers: the training may have diverged, or the guidance is too strong",
                broken,
                num,
            )

    @torch.no_grad()
    def _run(
        self,
        noise: Noise,
        condition: Condition | None,
        first: int,
        on_state: OnState | None,
        start: Callable[[Noise], Tensor] | None,
    ) -> Tensor | None:
        """Sample one batch; None when it does not fit into memory."""
        state = None
        try:
            begin = None if start is None else start(noise)
            for state in trajectory(self.denoiser, self.sampler, self.times, noise, condition, begin):
                if on_state is not None:
                    on_state(first, state)
            assert state is not None
            return state.x.float().cpu()
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
        # the cache can free the memory only after the exception and its frames are gone
        state = None
        free_cache(noise.index.device)
        return None


def evaluations(recipe: Recipe, sampler: Sampler, schedule: Schedule, times: Tensor) -> int:
    """Return how many network evaluations an image takes, the guidance of a resolved recipe included: what the sampler
    asks of a denoiser on these times, which is less than its usual number in a last step, and in a first one from pure
    noise."""
    low, high = recipe.interval or (-math.inf, math.inf)
    asked, noise = _Asked(schedule, []), Noise(0, torch.zeros(1, dtype=torch.int64), (1, 1, 1))
    for _ in trajectory(asked, sampler, times, noise):
        pass
    guided = recipe.guidance not in (0, 1)
    return sum(2 if guided and low < t <= high else 1 for t in asked.times)


@dataclass(frozen=True)
class _Asked:
    """A denoiser that only keeps the times at which it is asked."""

    schedule: Schedule
    times: list[float]

    def __call__(self, x_t: Tensor, t: Tensor | float, condition: Condition | None = None) -> Prediction:
        self.times.append(float(t))
        return Prediction(x_t, x_t, torch.zeros_like(x_t))


def not_finite(images: Tensor) -> Tensor:
    """Return the indices of images (B, C, H, W) in which a number is not finite."""
    if math.isfinite(float(images.sum())):  # no sum with such a number is
        return torch.zeros(0, dtype=torch.int64)
    return torch.nonzero(~images.flatten(1).isfinite().all(1)).flatten()


def counted(report: Report, total: int, on_state: OnState | None, each_for: int = 1) -> OnState:
    """Return an `on_state` that reports the progress too, a state standing for those of `each_for` processes."""
    done = 0

    def each(first: int, state: State) -> None:
        nonlocal done
        done += each_for * len(state.x) if state.step else 0
        report(min(done, total), total)
        if on_state is not None:
            on_state(first, state)

    return each


def prepare(
    model: Model,
    recipe: Recipe = Recipe(),
    condition: Condition | None = None,
    *,
    weak: Model | None = None,
    variance: Variance | None = None,
    fitting: Report | None = None,
) -> Sampling:
    """Prepare a recipe for a model; raises `UserError` where it does not fit the model.

    Args:
        condition: for fitting a grid to the model; None is unconditional.
        weak: a worse model to guide away from.
        variance: the measured one, where the recipe says `analytic`; None measures it on the model's own images.
        fitting: called with (done, in all) while a grid is fitted to the model.
    """
    resolved = recipe.resolve(model)
    model, weak = replayed(steady(model)), None if weak is None else replayed(steady(weak))
    if resolved.variance == "analytic" and variance is None:
        variance = measured_variance(model, model.data(), resolved.range == "clip")
    denoiser = resolved.denoiser(model.denoiser, model.codec, None if weak is None else weak.denoiser)
    times = resolved.times(denoiser, model.shape, condition, model.device, fitting)
    return Sampling(resolved, denoiser, resolved.build(variance), times, model.shape, model.device)


def steady(model: Model) -> Model:
    """Return a model for many calls with the same weights: what its network computes from them alone is computed now.

    A network that is compiled, or that another library runs, stays as it is.
    """
    if not isinstance(model.denoiser, NetworkDenoiser) or model.denoiser.net is not model.net:
        return model
    return replace(model, denoiser=replace(model.denoiser, net=fixed(model.net)))


def replayed(model: Model) -> Model:
    """Return a model whose network is launched as a whole on an NVIDIA GPU, once it has been called some times."""
    if model.device.type != "cuda" or not isinstance(model.denoiser, NetworkDenoiser):
        return model
    net: Any = Replayed(model.denoiser.net, model.device, warm_up=30)
    return replace(model, denoiser=replace(model.denoiser, net=net))


def sample(
    model: Model,
    num: int = 64,
    recipe: Recipe = Recipe(),
    *,
    seed: int = 0,
    condition: Condition | str | None = None,
    batch: int = 64,
) -> Tensor:
    """Sample images from a trained model.

    Args:
        model: what `sfumato.load` returned.
        num: how many images.
        recipe: sampler, steps, guidance; the default is the command line's.
        seed: image i of a seed is always the same image.
        condition: a text (`"glasses=dark"`) or a value of the vocabulary; None is what the training images have, and
            `UNCONDITIONAL` nothing.
        batch: images at a time.

    Returns:
        (num, C, H, W) float32 x_0: with the codec of pixels, pixels in [-1, 1]. `model.codec.shown` makes bytes of it,
        and `model.codec.decode` stored values.

    Raises:
        UserError: the recipe or the condition does not fit this model.
    """
    if isinstance(condition, str) or condition is None:
        condition = wanted(model, condition)
    parts = prepare(model, recipe, condition).stream(num, seed, condition=condition, batch=batch)
    return torch.cat([images for _, images in parts])


UNCONDITIONAL = "unconditional"
"""The word for samples without any condition."""


def wanted(model: Model, words: str | None) -> Condition | None:
    """Return the conditions of samples: those that a text means, as `asked`; without one the labels of training images,
    image i those of a fixed random one; none for `UNCONDITIONAL`, or where the model knows no labels.

    A network that learnt from labels has seen an image without them only in a tenth of its steps
    (`train.label_dropout`), and draws worse without: Frechet distance 6.1 with the training images' labels and 23.0
    without for the model `fashion`, 10.0 and 26.5 for `emoji32`.
    """
    if words == UNCONDITIONAL and model.vocabulary is not None:
        return asked(model, None)
    usual = common(model.vocabulary) if words is None else None
    if usual is None or model.config.train.label_dropout == 0:  # which takes complete rows only
        return asked(model, words)
    return usual


def asked(model: Model, words: str | None) -> Condition | None:
    """Return the conditions that a text means for a model, None without any; raises `UserError` for words that its
    vocabulary does not have, or too few for a model trained without label dropout."""
    if model.vocabulary is None:
        if words is not None:
            raise UserError(f"the model was trained without labels: leave out '{words}'")
        return None
    return model.vocabulary.parse(words, complete=model.config.train.label_dropout == 0)


def free_cache(device: torch.device) -> None:
    """Return the memory that torch keeps for later to a GPU."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def out_of_memory(error: BaseException) -> bool:
    """Return whether an error is a failed allocation, for which torch has several exceptions."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text
