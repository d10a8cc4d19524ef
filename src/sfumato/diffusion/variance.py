r"""The model's reverse step p(x_s | x_t), and its variance.

The step is the posterior with the predicted image instead of the true one; its variance lies between two bounds
(DDPM Sec. 3.2). If the data were a single point the posterior's beta~ would be exact, if the data were N(0, I) the
forward step's beta would be (see `process`):

    small:   beta~        large:  beta        learned:  log variance = f log beta + (1 - f) log beta~      IDDPM Eq. 15

They differ only near the data; all hold for any s < t, so a respaced chain needs no table of its own.

What the variance should be follows from the law of total variance. Given x_0 the step is the posterior, with variance
beta~ and a mean that moves by b = alpha_s c for each unit of x_0; not knowing x_0 adds its variance:

    optimal:  beta~ + b^2 Var[x_0 | x_t]                                                      Analytic-DPM Eq. 7 and 9

where Var[x_0 | x_t] is known for an oracle and can be measured for a trained network. Analytic-DPM (Eq. 8-10) reads its
average off a noise predictor that is exact, eps^ = E[eps | x_t]. What the mean of an inexact one needs is its own mean
squared error, which is stable to estimate too (Bao et al. 2022, 2206.07309, Sec. 4); for an exact eps^ the two agree,
since its error is orthogonal to it:

    E Var[x_0 | x_t] / d = sigma_t^2 / alpha_t^2 ( 1 - E |eps^|^2 / d )
    E |x_0 - x0^|^2 / d  = sigma_t^2 / alpha_t^2 E |eps - eps^|^2 / d

One pass of the network over some noised images at a few dozen times measures it for any grid of sampling steps.

At s = 0 beta~ vanishes and with it its logarithm. The sampler adds no noise there, but the decoder of the bound needs a
width; the published code then takes beta~ one step noisier, between t and the chain's next time, whose level is
`level_next`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from sfumato.diffusion.condition import Condition
from sfumato.diffusion.denoiser import Denoiser
from sfumato.diffusion.gaussian import Gaussian
from sfumato.diffusion.level import Level, broadcast
from sfumato.diffusion.noise import NoiseSource
from sfumato.diffusion.prediction import Prediction
from sfumato.diffusion.process import marginal, posterior, posterior_coefficients, step_variance
from sfumato.diffusion.schedule import Schedule


class Variance(Protocol):
    """A rule for the variance of p(x_s | x_t); implementations are frozen values."""

    def logvar(self, level_s: Level, level_t: Level, prediction: Prediction, level_next: Level | None = None) -> Tensor:
        """Return the log variance, broadcastable to the images of the prediction, which is the one at t.

        Levels are () or (B,); `level_next` is one step noisier than t and gives the variance at s = 0 its width.
        """


def reverse(
    prediction: Prediction,
    x_t: Tensor,
    level_s: Level,
    level_t: Level,
    variance: Variance,
    level_next: Level | None = None,
) -> Gaussian:
    """Return the model's step p(x_s | x_t): the posterior's mean at the predicted x_0, the variance of `variance`.

    In terms of the predicted noise the mean is ( x_t - (1 - alpha_t)/sqrt(1 - abar_t) eps ) / sqrt(alpha_t), DDPM Eq.
    11. The ancestral sampler draws from this Gaussian and the variational bound scores it.
    """
    mean = posterior(x_t, prediction.x0, level_s, level_t).mean  # checks that s < t
    return Gaussian(mean, variance.logvar(level_s, level_t, prediction, level_next))


def bounds(level_s: Level, level_t: Level, level_next: Level | None = None) -> tuple[Tensor, Tensor]:
    """Return (log beta~, log beta) of the step from t to s; at s = 0 log beta~ is -inf without `level_next`."""
    small = posterior_coefficients(level_s, level_t)[2].log()
    if level_next is not None:
        small = torch.where(level_s.sigma == 0, posterior_coefficients(level_t, level_next)[2].log(), small)
    return small, step_variance(level_s, level_t).log()


@dataclass(frozen=True)
class Small:
    """beta~, the posterior's variance ("fixedsmall"); zero at s = 0."""

    def logvar(self, level_s: Level, level_t: Level, prediction: Prediction, level_next: Level | None = None) -> Tensor:
        """Return log beta~, () or (B, 1, 1, 1)."""
        return broadcast(bounds(level_s, level_t, level_next)[0], prediction.x0)


@dataclass(frozen=True)
class Large:
    """beta, the forward step's variance.

    At s = 0, where the decoder of the bound needs a width and a sampler none, it is beta too. The published code
    ("fixedlarge") takes beta~ one step noisier there, as for the small variance; `posterior_end` does the same.
    """

    posterior_end: bool = False

    def logvar(self, level_s: Level, level_t: Level, prediction: Prediction, level_next: Level | None = None) -> Tensor:
        """Return log beta, () or (B, 1, ..., 1)."""
        small, large = bounds(level_s, level_t, level_next)
        if self.posterior_end and level_next is not None:
            large = torch.where(level_s.sigma == 0, small, large)
        return broadcast(large, prediction.x0)


@dataclass(frozen=True)
class Learned:
    """log variance = f log beta + (1 - f) log beta~, with f the prediction's `fraction` (IDDPM Eq. 15)."""

    def logvar(self, level_s: Level, level_t: Level, prediction: Prediction, level_next: Level | None = None) -> Tensor:
        """Return the interpolated log variance, (B, C, H, W); -inf at s = 0 without `level_next`. Raises ValueError
        where the denoiser predicts no fraction."""
        if prediction.fraction is None:
            raise ValueError("this denoiser predicts no variance: use small or large, or train with a learned one")
        small, large = (broadcast(bound, prediction.x0) for bound in bounds(level_s, level_t, level_next))
        between = small + prediction.fraction * (large - small)
        return torch.where(small.isinf(), small, between)  # 0 * inf must not become a NaN


@dataclass(frozen=True)
class Optimal:
    """beta~ + b^2 Var[x_0 | x_t]: the best variance given how uncertain x_0 is (Analytic-DPM, 2201.06503, Eq. 7).

    `posterior_variance` returns Var[x_0 | x_t], one number or one a coordinate, at a level () or (B, 1, ..., 1), which
    is shaped for the images: `MeasuredVariance` of a network, or `GaussianOracle.posterior_variance`.
    """

    posterior_variance: Callable[[Level], Tensor]

    def logvar(self, level_s: Level, level_t: Level, prediction: Prediction, level_next: Level | None = None) -> Tensor:
        """Return the log variance; finite at s = 0 too."""
        _, b, small = (broadcast(c, prediction.x0) for c in posterior_coefficients(level_s, level_t))
        uncertain = self.posterior_variance(level_t.shaped(prediction.x0)).to(prediction.x0)
        return (small + b.square() * uncertain).log()


VARIANCES: dict[str, Variance] = {
    "small": Small(),
    "large": Large(),
    "fixedlarge": Large(posterior_end=True),
    "learned": Learned(),
}
"""The rules that need no measurement, by their names in a configuration; `fixedlarge` is the published code's large."""


@dataclass(frozen=True, eq=False)
class MeasuredVariance:
    """Var[x_0 | x_t] averaged over coordinates, for `Optimal` or `PiGDM`, from a measured error of eps.

    The error is E |eps - eps^|^2 / d at increasing times, both (K,). Between them its logarithm is linear in logsnr:
    near the data the error of eps is constant, near pure noise it falls like the SNR and Var[x_0 | x_t] is constant.
    """

    schedule: Schedule
    times: Tensor
    error: Tensor

    def __call__(self, level: Level) -> Tensor:
        """Return Var[x_0 | x_t] in the level's shape, float64, clamped to [0, 1]: values in [-1, 1] have no more.

        Below the lowest finite logsnr of the times Var[x_0 | x_t] stays as it is there, above the highest the error.
        """
        # increasing in -logsnr, as searchsorted needs it
        noise = -self.schedule(self.times.to(level.logsnr.device)).logsnr
        error = self.error.to(noise).clamp(min=torch.finfo(torch.float64).tiny).log()[noise.isfinite()]
        noise = noise[noise.isfinite()]
        u = (-level.logsnr).clamp(max=float(noise[-1]))
        right = torch.searchsorted(noise, u.contiguous()).clamp(1, len(noise) - 1)
        part = ((u - noise[right - 1]) / (noise[right] - noise[right - 1])).clamp(0.0, 1.0)
        between = torch.lerp(error[right - 1], error[right], part)
        return (u + between).exp().clamp(0.0, 1.0)


@torch.no_grad()
def noise_errors(
    denoiser: Denoiser, x_0: Tensor, times: Tensor, noise: NoiseSource, condition: Condition | None = None
) -> Tensor:
    """Return | eps - eps^(x_t, t) |^2 / d of each example at each time, (B, K), with eps = noise.step(k) at times[k].

    The mean over examples is `MeasuredVariance.error`.
    """
    columns = []
    for k, t in enumerate(times.tolist()):
        eps = noise.step(k)
        x_t = marginal(x_0, denoiser.schedule(t)).sample(eps)
        columns.append((eps - denoiser(x_t, t, condition).eps).square().flatten(1).mean(1))
    return torch.stack(columns, 1)
