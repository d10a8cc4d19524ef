r"""Which times a sampler visits: respacing, apart from the samplers.

A grid is N + 1 decreasing times in float64, the last exactly 0 (data). A network trained on a chain of T steps has
seen the times i / T, so the grids here pick N of the chain's own steps. They differ in where they start and how they
round, which is worth a name each, since samplers of other projects differ by it (Lin et al. 2023, 2305.08891, Table 2):

    trailing    i = round(T - k T / N), k = 0..N-1          starts at pure noise; the default
    leading     i = 1 + (N - 1 - k) floor(T / N)            ends at the first step, starts short of T
    uniform     i = 1 + round((N - 1 - k) (T - 1)/(N - 1))  both ends ("linspace")
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .schedule import Schedule

__all__ = ["GRIDS", "Grid", "leading", "trailing", "uniform"]


def _grid(steps: Tensor, chain: int) -> Tensor:
    """Append the clean end to decreasing chain steps and turn them into times."""
    return torch.cat([steps.to(torch.float64), torch.zeros(1, dtype=torch.float64)]) / chain


def _check(num_steps: int, schedule: Schedule) -> int:
    """Return T after seeing that N steps can be chosen from it."""
    chain = schedule.num_steps
    if not 1 <= num_steps <= chain:
        raise ValueError(f"{num_steps} sampling steps on a chain of {chain}: choose from 1 to {chain}")
    return chain


def trailing(num_steps: int, schedule: Schedule) -> Tensor:
    """Return N + 1 times from 1 down to 0, spaced T / N from the noisy end.

    Args:
        num_steps: N, from 1 to T.
        schedule: of the denoiser, with a chain of T steps.

    Returns:
        (N + 1,) float64.

    Raises:
        ValueError: N outside 1..T.
    """
    chain = _check(num_steps, schedule)
    return _grid((chain - torch.arange(num_steps, dtype=torch.float64) * (chain / num_steps)).round(), chain)


def leading(num_steps: int, schedule: Schedule) -> Tensor:
    """Return N + 1 times that end 1/T, 0, spaced floor(T / N): the first is short of 1. Arguments as `trailing`."""
    chain = _check(num_steps, schedule)
    return _grid(1 + torch.arange(num_steps - 1, -1, -1) * (chain // num_steps), chain)


def uniform(num_steps: int, schedule: Schedule) -> Tensor:
    """Return N + 1 times: evenly spaced from 1 to 1/T, then 0; N = 1 starts at pure noise. Arguments as `trailing`."""
    chain = _check(num_steps, schedule)
    if num_steps == 1:
        return trailing(1, schedule)
    return _grid(1 + torch.linspace(chain - 1, 0, num_steps, dtype=torch.float64).round(), chain)


Grid = Callable[[int, Schedule], Tensor]
"""(num_steps, schedule) -> (N + 1,) float64 times, decreasing to exactly 0."""

GRIDS: dict[str, Grid] = {"trailing": trailing, "leading": leading, "uniform": uniform}
"""The grids by the name that the command line knows them by."""
