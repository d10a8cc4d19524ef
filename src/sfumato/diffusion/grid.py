r"""Which times a sampler visits: respacing, apart from the samplers.

A grid is N + 1 decreasing times in float64, the last exactly 0 (data). Three choose N of the chain's own steps i, times
t = i / T, which a network trained on the chain has seen. They differ in where they start and how they round, as do the
samplers of other projects (Lin et al. 2023, 2305.08891, Table 2):

    trailing    i = round(T - k T / N), k = 0..N-1          starts at pure noise; the default
    leading     i = 1 + (N - 1 - k) floor(T / N)            ends at the first step, starts short of T
    uniform     i = 1 + round((N - 1 - k) (T - 1)/(N - 1))  both ends ("linspace")

The others space some function of the level evenly and take the times at which it is reached, between the chain's steps
too:

    quadratic   sqrt(t)                                     DDIM's for CIFAR-10 (2010.02502, App. D.2)
    logsnr      log(alpha^2 / sigma^2)                      DPM-Solver's (2206.00927, Sec. 3.4)
    karras      (sigma / alpha)^(1/7)                       EDM's (2206.00364, Eq. 5)
    visible     log(alpha^2 / sigma^2) from sigma / alpha = 80 to 0.3

from t = 1 to the chain's first step 1/T in N - 1 strides, and from there to 0: below 1/T a network has seen nothing,
and logsnr goes to infinity. karras and visible start where sigma / alpha = 80, as EDM does, if the chain goes beyond: a
cosine chain ends at 20,000, and most of the strides would be spent where an image is a thousandth of the noise. visible
also leaves out the last strides: its image is the one predicted at sigma / alpha = 0.3. A short training's errors below
that level look like grain, and don't enter (docs/choose-a-sampler.md). Where logsnr is infinite at the noisy end (a
zero-terminal-SNR chain), it starts at the last step with some signal left, (T - 1)/T.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from sfumato.diffusion.schedule import Schedule

Grid = Callable[[int, Schedule], Tensor]
"""(N, schedule) -> (N + 1,) float64 times, decreasing to exactly 0; N outside 1..T is a ValueError."""

_RHO, _NOISIEST = 7, 80.0  # EDM, Sec. 3 and Table 1
_VISIBLE = 0.3


def _grid(steps: Tensor, chain: int) -> Tensor:
    """Append the clean end to decreasing chain steps and turn them into times."""
    return torch.cat([steps.to(torch.float64), torch.zeros(1, dtype=torch.float64)]) / chain


def _chain(num_steps: int, schedule: Schedule) -> int:
    """T, after a check that N steps can be chosen from it."""
    chain = schedule.num_steps
    if not 1 <= num_steps <= chain:
        raise ValueError(f"{num_steps} sampling steps on a chain of {chain}: choose from 1 to {chain}")
    return chain


def trailing(num_steps: int, schedule: Schedule) -> Tensor:
    """Return N + 1 times from 1 down to 0, spaced T / N from the noisy end."""
    chain = _chain(num_steps, schedule)
    return _grid((chain - torch.arange(num_steps, dtype=torch.float64) * (chain / num_steps)).round(), chain)


def leading(num_steps: int, schedule: Schedule) -> Tensor:
    """Return N + 1 times that end 1/T, 0, spaced floor(T / N): the first is short of 1."""
    chain = _chain(num_steps, schedule)
    return _grid(1 + torch.arange(num_steps - 1, -1, -1) * (chain // num_steps), chain)


def uniform(num_steps: int, schedule: Schedule) -> Tensor:
    """Return N + 1 times: evenly spaced from 1 to 1/T, then 0; N = 1 starts at pure noise."""
    chain = _chain(num_steps, schedule)
    if num_steps == 1:
        return trailing(1, schedule)
    return _grid(1 + torch.linspace(chain - 1, 0, num_steps, dtype=torch.float64).round(), chain)


def _spaced(num_steps: int, first: float, last: float, back: Callable[[Tensor], Tensor]) -> Tensor:
    """The times of N values evenly from `first` to `last`, and 0."""
    if num_steps > 1 and first == last:
        raise ValueError("a chain of one step has no room for several: take one step, or the trailing grid")
    return _grid(back(torch.linspace(first, last, num_steps, dtype=torch.float64)), 1)


def _ends(num_steps: int, schedule: Schedule) -> tuple[float, float]:
    """logsnr at the first and the last non-zero time where it is finite."""
    chain = _chain(num_steps, schedule)
    first = 1.0 if float(schedule(1.0).alpha) > 0 else (chain - 1) / chain
    if first == 0:
        raise ValueError("a chain of one step that ends in pure noise has no finite logsnr: take the trailing grid")
    return float(schedule(first).logsnr), float(schedule(1 / chain).logsnr)


def quadratic(num_steps: int, schedule: Schedule) -> Tensor:
    """Return N + 1 times with sqrt(t) evenly from 1 to sqrt(1/T), then 0: dense near the data."""
    return _spaced(num_steps, 1.0, _chain(num_steps, schedule) ** -0.5, torch.square)


def logsnr(num_steps: int, schedule: Schedule) -> Tensor:
    """Return N + 1 times with logsnr evenly from t = 1 (see the module for pure noise) to 1/T, then 0."""
    return _spaced(num_steps, *_ends(num_steps, schedule), schedule.time)


def karras(num_steps: int, schedule: Schedule) -> Tensor:
    """Return N + 1 times with (sigma / alpha)^(1/7) evenly from t = 1, or from sigma / alpha = 80 where the chain goes
    beyond, to 1/T, then 0 (EDM Eq. 5).
    """
    first, last = (math.exp(-end / 2) for end in _ends(num_steps, schedule))
    first = max(last, min(first, _NOISIEST))
    return _spaced(
        num_steps, first ** (1 / _RHO), last ** (1 / _RHO), lambda root: schedule.time(-2 * _RHO * root.log())
    )


def visible(num_steps: int, schedule: Schedule) -> Tensor:
    """Return N + 1 times with logsnr evenly from sigma / alpha = 80, or t = 1 where the chain ends before, to 0.3, then
    0."""
    first, last = _ends(num_steps, schedule)
    first = max(first, -2 * math.log(_NOISIEST))
    return _spaced(num_steps, first, max(first, min(last, -2 * math.log(_VISIBLE))), schedule.time)


GRIDS: dict[str, Grid] = {
    "trailing": trailing,
    "leading": leading,
    "uniform": uniform,
    "quadratic": quadratic,
    "logsnr": logsnr,
    "karras": karras,
    "visible": visible,
}
"""The grids by their names on the command line."""


def grid_for(sampler: object, name: str, num_steps: int, schedule: Schedule) -> Tensor:
    """Return the (N + 1,) times of a named grid as a sampler takes them.

    `leading` and `uniform` end with the steps T/N, 1/T, 0: in logsnr the stride before the last is many times longer
    than those before it. A solver that extrapolates its predictions in logsnr (`in_logsnr`) is led astray there, so it
    gets the grid of N + 1 steps without the point 1/T, as other projects give it. The whole chain, N = T, stays whole.
    """
    grid, ends_short = GRIDS[name], name in ("leading", "uniform") and num_steps < schedule.num_steps
    if not (ends_short and getattr(sampler, "in_logsnr", False)):
        return grid(num_steps, schedule)
    times = grid(num_steps + 1, schedule)
    return torch.cat([times[:-2], times[-1:]])
