r"""The variance of the reverse step.

The step p(x_s | x_t) is Gaussian with a learned mean; its variance lies between two bounds (DDPM Sec. 3.2). If the
data were a single point the posterior's beta~ would be exact, if the data were N(0, I) the forward step's beta would
be:

    small:    beta~ = sigma_s^2 c        large:  beta = var_ts = sigma_t^2 c        c = 1 - SNR_t / SNR_s
    learned:  log variance = f log beta + (1 - f) log beta~, f from the network               IDDPM Eq. 15

The two bounds differ only near the data; all hold for any s < t, so a respaced chain needs no table of its own.

What the variance should be follows from the law of total variance. Given x_0 the step is the posterior, with variance
beta~ and a mean that moves by alpha_s c for each unit of x_0; not knowing x_0 adds its spread:

    optimal:  beta~ + (alpha_s c)^2 Var[x_0 | x_t]                                            Analytic-DPM Eq. 7 and 9

where the spread of x_0 is known for an oracle and can be measured for a trained network (`analytic`).

At s = 0 beta~ vanishes and with it its logarithm. The sampler adds no noise there, but the decoder of the bound needs a
width; the published code then takes beta~ one step noisier, between t and the chain's next time. Who scores that step
names that time's level, `level_next`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from sfumato.diffusion.prediction import Prediction
from sfumato.diffusion.process import posterior_coefficients, snr_drop
from sfumato.diffusion.schedule import Level, broadcast

__all__ = ["VARIANCES", "Large", "Learned", "Optimal", "Small", "Variance", "bounds"]


class Variance(Protocol):
    """A rule for the variance of p(x_s | x_t); implementations are frozen values."""

    def logvar(self, level_s: Level, level_t: Level, prediction: Prediction, level_next: Level | None = None) -> Tensor:
        """Return the log variance, broadcastable to the prediction's images.

        Args:
            level_s: the level at s, () or (B,).
            level_t: the level at t.
            prediction: what the denoiser said at t.
            level_next: the level one step noisier than t, where the variance at s = 0 is wanted.
        """
        ...


def bounds(level_s: Level, level_t: Level, level_next: Level | None = None) -> tuple[Tensor, Tensor]:
    """Return (log beta~, log beta), float64: the smallest and largest log variance of the step from t to s.

    Args:
        level_s: the level at s, () or (B,).
        level_t: the level at t.
        level_next: where given, log beta~ at s = 0 is that of the step from it to t in place of -inf.
    """
    drop = snr_drop(level_s, level_t)
    small, large = (level_s.sigma.square() * drop).log(), (level_t.sigma.square() * drop).log()
    if level_next is not None:
        stand_in = (level_t.sigma.square() * snr_drop(level_t, level_next)).log()
        small = torch.where(level_s.sigma == 0, stand_in, small)
    return small, large


@dataclass(frozen=True)
class Small:
    """beta~ = sigma_s^2 (1 - SNR_t / SNR_s): the posterior's variance ("fixedsmall"); zero, logvar -inf, at s = 0."""

    def logvar(self, level_s: Level, level_t: Level, prediction: Prediction, level_next: Level | None = None) -> Tensor:
        """Return log beta~, () or (B, 1, 1, 1)."""
        return broadcast(bounds(level_s, level_t, level_next)[0], prediction.x0)


@dataclass(frozen=True)
class Large:
    """beta = sigma_t^2 (1 - SNR_t / SNR_s): the forward step's variance ("fixedlarge")."""

    def logvar(self, level_s: Level, level_t: Level, prediction: Prediction, level_next: Level | None = None) -> Tensor:
        """Return log beta, () or (B, 1, 1, 1)."""
        return broadcast(bounds(level_s, level_t, level_next)[1], prediction.x0)


@dataclass(frozen=True)
class Learned:
    """log variance = f log beta + (1 - f) log beta~, with f the prediction's `fraction`, coordinate by coordinate
    (IDDPM Eq. 15).

    Raises (when asked): ValueError where the denoiser predicts no fraction.
    """

    def logvar(self, level_s: Level, level_t: Level, prediction: Prediction, level_next: Level | None = None) -> Tensor:
        """Return the interpolated log variance, (B, C, H, W); -inf at s = 0 without `level_next`."""
        if prediction.fraction is None:
            raise ValueError("this denoiser predicts no variance: use small or large, or train with a learned one")
        small, large = (broadcast(bound, prediction.x0) for bound in bounds(level_s, level_t, level_next))
        # at s = 0 without level_next log beta~ is -inf, and 0 * inf must not become a NaN
        between = small + prediction.fraction * (large - small)
        return torch.where(small.isinf(), small, between)


@dataclass(frozen=True)
class Optimal:
    """beta~ + (alpha_s c)^2 Var[x_0 | x_t]: the best variance given how uncertain x_0 is (Analytic-DPM, 2201.06503,
    Eq. 7).

    Attributes:
        posterior_variance: returns Var[x_0 | x_t] at a level, one number or one a coordinate: exact for an oracle
            (`GaussianOracle.posterior_variance`), measured for a network (`analytic.MeasuredVariance`).
    """

    posterior_variance: Callable[[Level], Tensor]

    def logvar(self, level_s: Level, level_t: Level, prediction: Prediction, level_next: Level | None = None) -> Tensor:
        """Return the log variance; finite at s = 0 too, where it is the log of the spread itself."""
        _, weight, small = posterior_coefficients(level_s, level_t)
        spread = self.posterior_variance(level_t).to(prediction.x0)
        return (broadcast(small, prediction.x0) + broadcast(weight.square(), prediction.x0) * spread).log()


VARIANCES: dict[str, Variance] = {"small": Small(), "large": Large(), "learned": Learned()}
"""The rules that need no measurement, by the name that configurations know them by."""
