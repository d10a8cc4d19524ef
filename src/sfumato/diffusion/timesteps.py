r"""The distribution of t in training.

DDPM draws t uniformly on the chain (Algorithm 1). Which noise levels a network is trained on decides what it learns in
a short training: near the data there is little to see in a picture, near pure noise little to learn. A logit-normal
distribution (Esser et al. 2024, 2403.03206, Sec. 3.1) concentrates on the levels between,

    t = sigmoid(z),    z ~ N(mean, std^2)

A log-normal one (Karras et al. 2022, 2206.00364, Eq. 8 and Table 1) is of the noise itself, the same on every chain,

    log(sigma / alpha) ~ N(mean, std^2)

Each distribution turns a uniform number u into a time by the inverse of its distribution function, so a training stays
a function of its random keys. Drawing t with probability p_t weights the loss at t by T p_t; an objective whose weights
matter, such as the bound, divides by that.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from sfumato.diffusion.schedule import Schedule


class Timesteps(Protocol):
    """A distribution of t on the chain's steps 1/T .. 1; implementations are frozen values."""

    def draw(self, u: Tensor, schedule: Schedule) -> Tensor:
        """Return times, (B,) float64 on the chain's steps, for u (B,) uniform in [0, 1)."""

    def probabilities(self, schedule: Schedule) -> Tensor:
        """Return the probability of each step 1/T .. 1, (T,) float64."""


def sample_timesteps(u: Tensor, num_steps: int) -> Tensor:
    """Return t = (floor(u T) + 1) / T: uniform on the chain's steps 1/T .. 1 for u (B,) uniform in [0, 1)."""
    return (torch.floor(u.to(torch.float64) * num_steps).clamp(max=num_steps - 1) + 1) / num_steps


@dataclass(frozen=True)
class Uniform:
    """t ~ Uniform{1/T .. 1} (DDPM, Algorithm 1)."""

    def draw(self, u: Tensor, schedule: Schedule) -> Tensor:
        """Return the step that holds u."""
        return sample_timesteps(u, schedule.num_steps)

    def probabilities(self, schedule: Schedule) -> Tensor:
        """Return 1 / T for each step."""
        return torch.full((schedule.num_steps,), 1 / schedule.num_steps, dtype=torch.float64)


@dataclass(frozen=True)
class LogitNormal:
    """t = sigmoid(z) for z ~ N(mean, std^2), rounded up to the chain (2403.03206, Sec. 3.1); a higher mean is noisier.
    Raises ValueError where `std` is not above 0."""

    mean: float = 0.5
    std: float = 1.0

    def __post_init__(self) -> None:
        _require_normal(self.mean, self.std)

    def draw(self, u: Tensor, schedule: Schedule) -> Tensor:
        """Return the step that holds sigmoid(mean + std Phi^-1(u))."""
        return sample_timesteps(torch.sigmoid(_normal(u, self.mean, self.std)), schedule.num_steps)

    def probabilities(self, schedule: Schedule) -> Tensor:
        """Return the mass of each step: differences of Phi((logit t - mean) / std)."""
        edges = torch.arange(schedule.num_steps + 1, dtype=torch.float64) / schedule.num_steps
        below: Tensor = torch.special.ndtr((torch.logit(edges) - self.mean) / self.std)
        return below.diff()


@dataclass(frozen=True)
class LogNormal:
    """log(sigma / alpha) = z for z ~ N(mean, std^2) (EDM, 2206.00364, Eq. 8 and Table 1), rounded to the nearest of the
    chain's steps; noise beyond its ends counts as its first or last step. Raises ValueError where `std` is not above 0.
    """

    mean: float = -1.2
    std: float = 1.2

    def __post_init__(self) -> None:
        _require_normal(self.mean, self.std)

    def draw(self, u: Tensor, schedule: Schedule) -> Tensor:
        """Return the step whose log(sigma / alpha) is nearest to mean + std Phi^-1(u), as t counts distance."""
        steps = (schedule.time(-2 * _normal(u, self.mean, self.std)) * schedule.num_steps).round()
        return steps.clamp(1, schedule.num_steps) / schedule.num_steps

    def probabilities(self, schedule: Schedule) -> Tensor:
        """Return the mass of each step: differences of Phi((log(sigma / alpha) - mean) / std) halfway between steps."""
        halfway = (torch.arange(1, schedule.num_steps, dtype=torch.float64) + 0.5) / schedule.num_steps
        below = torch.special.ndtr((-schedule(halfway).logsnr / 2 - self.mean) / self.std)
        ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
        return torch.cat([ends[:1], below, ends[1:]]).diff()


def _require_normal(mean: float, std: float) -> None:
    if not math.isfinite(mean):
        raise ValueError(f"mean = {mean}: must be finite")
    if not 0 < std < math.inf:
        raise ValueError(f"std = {std}: must be above 0 and finite")


def _normal(u: Tensor, mean: float, std: float) -> Tensor:
    """The numbers of N(mean, std^2) below which fractions u of it lie."""
    numbers: Tensor = mean + std * torch.special.ndtri(u.double())
    return numbers


@dataclass(frozen=True)
class Importance(Uniform):
    """By the losses seen at each t (IDDPM Eq. 18): uniform, then by `objective.LossHistory`; meant for the bound."""


TIMESTEPS: dict[str, type[Uniform] | type[LogitNormal] | type[LogNormal] | type[Importance]] = {
    "uniform": Uniform,
    "logit-normal": LogitNormal,
    "log-normal": LogNormal,
    "importance": Importance,
}
