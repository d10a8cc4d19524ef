"""Chains that no formula of the diffusion papers gives: other libraries' tables, and noise spaced in its logarithm."""

from __future__ import annotations

import math
from collections import ChainMap
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.diffusion.level import Level
from sfumato.diffusion.schedule import SCHEDULES, Chain, Time, as_time


@dataclass(frozen=True)
class Table(Chain):
    """A chain given by its own beta_1..beta_T, such as another library's; `num_steps` is their number."""

    num_steps: int = 0
    values: tuple[float, ...] = (0.02,)

    def __post_init__(self) -> None:
        if self.num_steps not in (0, len(self.values)):
            raise ValueError(f"num_steps = {self.num_steps}, but there are {len(self.values)} betas: leave it out")
        object.__setattr__(self, "num_steps", len(self.values))
        for beta in self.values:
            if not 0 < beta <= 1:
                raise ValueError(f"values holds {beta}: a beta lies above 0 and at most at 1")

    def betas(self) -> Tensor:
        """Return beta_1..beta_T."""
        return torch.tensor(self.values, dtype=torch.float64)


@dataclass(frozen=True)
class LogNoise(Chain):
    """sigma / alpha rises geometrically from `least` at the first step to `most` at the last, as networks that take any
    noise level are sampled (EDM, 2206.00364, Table 1): exact at every t from 1/T on.

    log(sigma / alpha) = log least + (log most - log least) (t T - 1) / (T - 1)
    """

    least: float = 0.002
    most: float = 80.0

    def __post_init__(self) -> None:
        if not (0 < self.least < self.most < math.inf and self.num_steps >= 2):
            raise ValueError(
                f"least = {self.least}, most = {self.most}, num_steps = {self.num_steps}: give two levels of noise, "
                "the lower first, and at least 2 steps"
            )

    def log_noise(self, step: Tensor) -> Tensor:
        """Return log(sigma / alpha) at a step of the chain counted from 0, as networks count."""
        low, high = math.log(self.least), math.log(self.most)
        return low + (high - low) * step / (self.num_steps - 1)

    def log_abar(self) -> Tensor:
        """Return log abar_0..log abar_T."""
        steps = torch.arange(self.num_steps, dtype=torch.float64)
        zero = torch.zeros(1, dtype=torch.float64)
        return torch.cat([zero, torch.nn.functional.logsigmoid(-2 * self.log_noise(steps))])

    def __call__(self, t: Time) -> Level:
        """Return the level at t in [0, 1]; below 1/T the angle is interpolated. Raises ValueError for t outside."""
        level, t = super().__call__(t), as_time(t, self.num_steps)
        exact = Level.from_logsnr(-2 * self.log_noise(t * self.num_steps - 1))
        return exact.where(t * self.num_steps >= 1, level)

    def time(self, logsnr: Tensor) -> Tensor:
        """Return the time at which logsnr is reached; beyond the chain's ends, 0 or 1."""
        logsnr = torch.as_tensor(logsnr, dtype=torch.float64)
        low, high = math.log(self.least), math.log(self.most)
        exact = ((-logsnr / 2 - low) / (high - low) * (self.num_steps - 1) + 1) / self.num_steps
        return torch.where(exact * self.num_steps >= 1, exact.clamp(max=1.0), super().time(logsnr))


CHAINS: Mapping[str, type[Chain]] = ChainMap(SCHEDULES, {"table": Table, "log-noise": LogNoise})
"""Every chain by the name that a configuration gives it: the schedules by formula, also ones added later, and these."""
