r"""Averages of the weights by power functions, from which an average of any length is computed after training.

Karras et al. 2024 (EDM2, 2312.02696), section 3. The average over t steps with the exponent gamma is, their eq. 1,

    w_gamma(t) = (gamma + 1) / t^(gamma + 1)  integral_0^t tau^gamma w(tau) d tau

and is tracked by eq. 2,

    w_gamma(t) = beta w_gamma(t - 1) + (1 - beta) w(t),        beta = (1 - 1/t)^(gamma + 1),

which gives step j exactly the weight of its unit of time, (j/t)^(gamma + 1) - ((j - 1)/t)^(gamma + 1). Its length is
the standard deviation of that profile relative to the time trained, eq. 3,

    sigma_rel = sqrt( (gamma + 1) / ((gamma + 2)^2 (gamma + 3)) ).

Two such averages, of lengths 0.05 and 0.10, are tracked, and snapshots of both are kept on the way. An average of
another length is the combination of snapshots whose profile is nearest to the wanted one in the least-squares sense
(section 3.2 and appendix C): sum_i x_i p_i ~ p, A x = b with A_ij = <p_i, p_j>, b_i = <p_i, p>, and in closed form

    <p_a, p_b> = (gamma_a + 1)(gamma_b + 1) / (gamma_a + gamma_b + 1)  (t_min / t_max)^gamma_of_t_max / t_max.

Which snapshots are kept: at step k those at multiples of h(k), the least of 16, 32, 64, ... of which at most
`ema.snapshots` are passed by then. When h doubles, every other one is deleted, so there are at most so many, and soon
at least half as many. What is newest comes from the newest checkpoint, which holds both averages.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sfumato.train.shards import Shards

LENGTHS = (0.05, 0.10)
"""sigma_rel of the averages that are tracked: gamma = 16.97 and 6.94."""
LONGEST = 0.25
"""The greatest length that is computed; a plain mean of all steps has 0.289."""
FIRST = 16
"""Steps between two snapshots at first."""


def length_of(gamma: float) -> float:
    """Return sigma_rel of an exponent (eq. 3)."""
    return math.sqrt((gamma + 1) / ((gamma + 2) ** 2 * (gamma + 3)))


def gamma_of(length: float) -> float:
    """Return the exponent, 0 or more, of a length sigma_rel in (0, 0.288]; by bisection, since sigma_rel falls with
    gamma."""
    low, high = 0.0, 4.0 / length
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if length_of(middle) > length else (low, middle)
    return (low + high) / 2


def interval(step: int, most: int) -> int:
    """Return h(k), the steps between the snapshots that are kept at step k, of which there are `most` at most."""
    return int(FIRST * 2 ** max(0, math.ceil(math.log2(max(step, 1) / (most * FIRST)))))


class PowerAverages:
    """Averages of a network's weights by power functions.

    Args:
        net: the network.
        lengths: their sigma_rel.
        shards: how it is divided over ranks; by default it is not.
    """

    def __init__(self, net: nn.Module, lengths: Sequence[float] = LENGTHS, shards: Shards | None = None) -> None:
        weights = (shards or Shards(net)).weights
        self._names, self._source = list(weights), list(weights.values())
        self._averages = {length: [torch.zeros_like(w) for w in self._source] for length in lengths}

    def rates(self, step: int) -> list[float]:
        """Return 1 - beta of each average at step t, counted from 1 (eq. 2)."""
        return [1 - (1 - 1 / step) ** (gamma_of(length) + 1) for length in self._averages]

    @torch.no_grad()
    def update(self, rates: Sequence[float | Tensor], applied: Tensor) -> None:
        """Average the weights after a step of the given rates; `applied`, () tensor, is 1 where the optimiser took the
        step, and at 0 the averages stay as they are, bit for bit."""
        for rate, average in zip(rates, self._averages.values(), strict=True):
            towards = torch._foreach_sub(self._source, average)
            torch._foreach_mul_(towards, applied * rate)
            torch._foreach_add_(average, towards)

    def state(self) -> dict[str, Tensor]:
        """Return the averages as named tensors, `power/LENGTH/NAME`."""
        return {
            f"power/{length:g}/{name}": tensor
            for length, average in self._averages.items()
            for name, tensor in zip(self._names, average, strict=True)
        }


@dataclass(frozen=True)
class Profile:
    """A power function's profile: its exponent and the steps that it covers."""

    gamma: float
    steps: int


def product(a: Profile, b: Profile) -> float:
    """Return <p_a, p_b>, the integral of the product of two profiles."""
    early, late = (a, b) if a.steps <= b.steps else (b, a)
    scale = (a.gamma + 1) * (b.gamma + 1) / (a.gamma + b.gamma + 1)
    return float(scale * (early.steps / late.steps) ** late.gamma / late.steps)


def solve(profiles: Sequence[Profile], target: Profile) -> tuple[Tensor, float]:
    """Return the combination of profiles that is nearest to a target: the coefficients x, float64, and its relative
    error ||sum_i x_i p_i - p|| / ||p||."""
    gram = torch.tensor([[product(a, b) for b in profiles] for a in profiles], dtype=torch.float64)
    right = torch.tensor([product(a, target) for a in profiles], dtype=torch.float64)
    scale = gram.diagonal().rsqrt()  # to unit norm, since late profiles are much higher than early ones
    x = torch.linalg.lstsq(scale[:, None] * gram * scale, scale * right, driver="gelsd").solution * scale
    norm = product(target, target)
    error = float(norm - 2 * x @ right + x @ gram @ x)
    return x, math.sqrt(max(error, 0.0) / norm)
