r"""What the network predicts: one family, a direction in the plane of x_0 and eps.

The networks of the literature predict the noise, the image, "v", or the mean of the reverse step. All are linear in
the two unknowns:

    output = p x_0 + q eps        eps: (0, 1)     x0: (1, 0)     v: (-sigma_t, alpha_t)     mu~: (alpha_s, a sigma_t)
                                  velocity: (-1, 1)

with a = alpha_ts sigma_s^2 / sigma_t^2, s = t - 1/T: the posterior's mean is a x_t + b x_0 (see `process`);
substituting x_t gives p = a alpha_t + b = alpha_s, q = a sigma_t. Together with x_t = alpha x_0 + sigma eps that makes
two equations for two unknowns, with determinant d = alpha q - sigma p:

    x_0 = ( q x_t - sigma output ) / d,        eps = ( alpha output - p x_t ) / d

so a pair (p, q) is all there is to a parameterisation, and every conversion between two of them follows. The same holds
for errors: since alpha dx_0 + sigma deps = 0 at a given x_t, d(output) = -(d / sigma) dx_0, and a squared error in one
space is the one in another times the ratio of their d^2. That is why "which target" is a question of loss weighting.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from sfumato.diffusion.level import broadcast
from sfumato.diffusion.process import posterior_coefficients
from sfumato.diffusion.schedule import Schedule


class Parameterization(Protocol):
    """A direction (p, q) in the plane of x_0 and eps; implementations are frozen values."""

    def direction(self, schedule: Schedule, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return (p, q) with output = p x_0 + q eps at time t, each float64 of t's shape."""


@dataclass(frozen=True)
class Eps:
    """The noise: output = eps (DDPM Eq. 11-14). It says nothing about x_0 where alpha = 0."""

    def direction(self, schedule: Schedule, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return (0, 1)."""
        zero = torch.zeros_like(schedule(t).alpha)
        return zero, zero + 1


@dataclass(frozen=True)
class X0:
    """The image: output = x_0 (DDPM Sec. 3.2)."""

    def direction(self, schedule: Schedule, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return (1, 0)."""
        zero = torch.zeros_like(schedule(t).alpha)
        return zero + 1, zero


@dataclass(frozen=True)
class Refined:
    """The image, refined by x_t where there is little noise: output = x_0 - width^2 (alpha / sigma) eps.

    Solved for x_0 it is the mean of the posterior of x_0 ~ N(output, width^2) given x_t,

        x_0 = ( width^2 alpha x_t + sigma^2 output ) / ( width^2 alpha^2 + sigma^2 )

    so above sigma = width the network predicts the image, and below it what x_t leaves open.
    """

    width: float = 0.1

    def direction(self, schedule: Schedule, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return (1, -width^2 alpha / sigma)."""
        level = schedule(t)
        return torch.ones_like(level.alpha), -(self.width**2) * level.alpha / level.sigma


@dataclass(frozen=True)
class V:
    """The velocity: output = alpha eps - sigma x_0 (Salimans and Ho 2022, 2202.00512), well-conditioned everywhere."""

    def direction(self, schedule: Schedule, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return (-sigma, alpha)."""
        level = schedule(t)
        return -level.sigma, level.alpha


@dataclass(frozen=True)
class Velocity:
    """The velocity of flow matching: output = eps - x_0 = dz_t/dt for z_t = (1 - t) x_0 + t eps (2210.02747, Eq. 23).

    It is the same on every schedule, since a level alpha, sigma is the flow's t = sigma / (alpha + sigma) rescaled. The
    determinant, alpha + sigma, lies in [1, sqrt 2]: well-conditioned everywhere, and an error is at most twice v's
    squared. On a `FlowPath` with t uniform its loss is flow matching's.
    """

    def direction(self, schedule: Schedule, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return (-1, 1)."""
        one = torch.ones_like(schedule(t).alpha)
        return -one, one


@dataclass(frozen=True)
class Mu:
    """The mean of the posterior of the chain's own step, mu~_t = a x_t + b x_0 (DDPM Eq. 7-8)."""

    def direction(self, schedule: Schedule, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return (a alpha_t + b, a sigma_t) for s = t - 1/T."""
        t = torch.as_tensor(t, dtype=torch.float64)
        level_s, level_t = schedule((t - 1 / schedule.num_steps).clamp(min=0.0)), schedule(t)
        a, b, _ = posterior_coefficients(level_s, level_t)
        return a * level_t.alpha + b, a * level_t.sigma


PARAMETERIZATIONS: dict[str, Parameterization] = {
    "eps": Eps(),
    "x0": X0(),
    "v": V(),
    "mu": Mu(),
    "refined": Refined(),
    "velocity": Velocity(),
}


def target(space: Parameterization, x_0: Tensor, eps: Tensor, schedule: Schedule, t: Tensor) -> Tensor:
    """Return what a network of this parameterisation should output at t, () or (B,): p x_0 + q eps."""
    p, q = space.direction(schedule, t)
    return broadcast(p, x_0) * x_0 + broadcast(q, eps) * eps


def inverse(space: Parameterization, schedule: Schedule, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return (q, sigma, alpha, p) / d of time t, float64: x_0 = q/d x_t - sigma/d output, eps = alpha/d output - p/d
    x_t."""
    level = schedule(t)
    p, q = space.direction(schedule, t)
    determinant = level.alpha * q - level.sigma * p
    return q / determinant, level.sigma / determinant, level.alpha / determinant, p / determinant


def solve(space: Parameterization, output: Tensor, x_t: Tensor, schedule: Schedule, t: Tensor) -> tuple[Tensor, Tensor]:
    """Return (x_0, eps) from a network's output at t, () or (B,): the two equations solved, coefficients in float64."""
    a, b, c, d = (broadcast(value, x_t) for value in inverse(space, schedule, t))
    return a * x_t - b * output, c * output - d * x_t
