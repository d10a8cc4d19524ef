r"""A sampler is a frozen value, and so is the state that it steps from.

A sampler goes from the image at time t to the image at an earlier time s:

    step(denoiser, state, s, noise) -> State

independently of networks, schedules' tables and the number of steps. One generator goes through a grid of times
and yields every state, so a film, a progress bar or a stream to a browser is the caller's business, and one sampler
object serves any number of runs at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from sfumato.diffusion.condition import Condition
from sfumato.diffusion.denoiser import Denoiser
from sfumato.diffusion.noise import NoiseSource
from sfumato.diffusion.prediction import Prediction
from sfumato.diffusion.schedule import as_time


@dataclass(frozen=True)
class State:
    """A point of a trajectory.

    Attributes:
        x: (B, C, H, W), the image at time t.
        t: from the grid's first time down to 0.
        step: the number of steps so far.
        prediction: the denoiser's at the last step; None at the start.
        history: what a multistep method keeps of earlier steps, opaque to all others.
    """

    x: Tensor
    t: float
    step: int = 0
    prediction: Prediction | None = None
    history: tuple[Any, ...] = ()


class Sampler(Protocol):
    """One step of a sampling method; implementations are frozen values."""

    @property
    def order(self) -> int:
        """The error falls with the number of steps N like N^-order, in distribution where stochastic."""

    @property
    def evaluations(self) -> int:
        """Denoiser evaluations a step; the last step may need fewer."""

    @property
    def stochastic(self) -> bool:
        """Whether steps draw noise, so that the start alone does not decide the image."""

    def step(
        self, denoiser: Denoiser, state: State, s: float, noise: NoiseSource, condition: Condition | None = None
    ) -> State:
        """Go from state.t to s, 0 <= s < state.t; a stochastic method's noise is `noise.step(state.step)`."""


def trajectory(
    denoiser: Denoiser,
    sampler: Sampler,
    times: Tensor | Sequence[float],
    noise: NoiseSource,
    condition: Condition | None = None,
    start: Tensor | None = None,
) -> Iterator[State]:
    """Go through a grid of times and yield every state, the start first and the finished image (t = 0) last.

    Args:
        times: (N + 1,) decreasing, as from `diffusion.grid`.
        noise: prior and step noise of the batch.
        condition: what the images are conditioned on.
        start: (B, C, H, W), the image at times[0]; None is the prior, x_T ~ N(0, I).

    Raises:
        ValueError: times not decreasing.
    """
    times = as_time(times, denoiser.schedule.num_steps)
    if bool((times.diff() >= 0).any()):
        raise ValueError("a sampling grid's times must decrease from noise (1) to data (0)")
    state = State(noise.prior() if start is None else start, float(times[0]))
    yield state
    for s in times[1:].tolist():
        state = sampler.step(denoiser, state, s, noise, condition)
        yield state


@torch.no_grad()
def sample(
    denoiser: Denoiser,
    sampler: Sampler,
    times: Tensor | Sequence[float],
    noise: NoiseSource,
    condition: Condition | None = None,
    start: Tensor | None = None,
) -> Tensor:
    """Return the last state's image, (B, C, H, W), without recording gradients. Arguments as `trajectory`."""
    return deque(trajectory(denoiser, sampler, times, noise, condition, start), maxlen=1)[0].x
