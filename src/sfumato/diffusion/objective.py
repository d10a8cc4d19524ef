r"""Training objectives: how wrong is the denoiser, example by example.

Algorithm 1 of DDPM draws x_0 from the data, t ~ Uniform{1..T}, eps ~ N(0, I), and takes a gradient step on

    L_simple = || eps - eps_theta( alpha_t x_0 + sigma_t eps, t ) ||^2                                       DDPM Eq. 14

The bound on -log p(x_0) that it stands for is a sum over the chain, L_vlb = L_T + sum_t L_{t-1} (`likelihood`), so its
estimate from one uniform t is T times the term at t. Where the variance is learned the two are added, the bound's mean
detached so that it trains the variance alone:

    L_hybrid = L_simple + lambda L_vlb,   lambda = 0.001                                                    IDDPM Eq. 16

An objective takes a `Denoiser`, not a network: the error of a prediction in any parameterisation's space is
p (x0^ - x_0) + q (eps^ - eps) (see `parameterization`), so the space in which the loss is measured and the one in which
the network predicts are two choices, and an exact oracle can be scored by the same code. Losses stay per example, next
to the t that produced them: curves by noise level and importance sampling cost nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from sfumato.diffusion.condition import Condition
from sfumato.diffusion.decoder import Decoder, Discretized
from sfumato.diffusion.denoiser import Denoiser
from sfumato.diffusion.likelihood import bound_term
from sfumato.diffusion.parameterization import Eps, Parameterization, target
from sfumato.diffusion.prediction import Prediction
from sfumato.diffusion.process import marginal
from sfumato.diffusion.schedule import Schedule
from sfumato.diffusion.variance import Learned, Variance
from sfumato.diffusion.weighting import Weighting

__all__ = ["Bound", "Hybrid", "Noised", "Objective", "Simple", "Terms", "Weighted", "sample_timesteps", "training_loss"]


@dataclass(frozen=True)
class Terms:
    """The loss of each example and the time that produced it.

    Attributes:
        loss: (B,), mean squared error over the coordinates of an example, or nats a coordinate.
        t: (B,) float64 in (0, 1].
    """

    loss: Tensor
    t: Tensor


@dataclass(frozen=True)
class Noised:
    """A batch with its noise: x_t = alpha_t x_0 + sigma_t eps, all (B, C, H, W), and t (B,) float64 in (0, 1]."""

    x_0: Tensor
    eps: Tensor
    x_t: Tensor
    t: Tensor
    schedule: Schedule


class Objective(Protocol):
    """A loss of predictions; implementations are frozen values."""

    def losses(self, prediction: Prediction, noised: Noised) -> Tensor:
        """Return (B,), one loss an example."""
        ...


def training_loss(
    objective: Objective, denoiser: Denoiser, x_0: Tensor, t: Tensor, eps: Tensor, condition: Condition | None = None
) -> Terms:
    """Noise a batch, run the denoiser once, and return each example's loss.

    Args:
        objective: the loss.
        denoiser: the model.
        x_0: (B, C, H, W).
        t: (B,) in (0, 1].
        eps: (B, C, H, W) ~ N(0, I).
        condition: of the images.
    """
    x_t = marginal(x_0, denoiser.schedule(t)).sample(eps)
    noised = Noised(x_0, eps, x_t, t, denoiser.schedule)
    return Terms(objective.losses(denoiser(x_t, t, condition), noised), t)


def sample_timesteps(u: Tensor, num_steps: int) -> Tensor:
    """Return t = (floor(u T) + 1) / T: uniform on the chain's steps 1/T .. 1 for u (B,) uniform in [0, 1)."""
    return (torch.floor(u.to(torch.float64) * num_steps).clamp(max=num_steps - 1) + 1) / num_steps


@dataclass(frozen=True)
class Simple:
    """L_simple, measured in the space of a parameterisation (DDPM Eq. 14 for `Eps()`).

    Attributes:
        space: where the squared error is taken; usually the network's own parameterisation.
    """

    space: Parameterization = Eps()

    def losses(self, prediction: Prediction, noised: Noised) -> Tensor:
        """Return the mean over coordinates of ( p (x0^ - x_0) + q (eps^ - eps) )^2, (B,)."""
        x_0_error, eps_error = prediction.x0 - noised.x_0, prediction.eps - noised.eps
        return target(self.space, x_0_error, eps_error, noised.schedule, noised.t).square().flatten(1).mean(1)


@dataclass(frozen=True)
class Weighted:
    """The squared error of eps times a weight by noise level, the same whatever the network predicts.

    Attributes:
        weighting: the factor.
    """

    weighting: Weighting

    def losses(self, prediction: Prediction, noised: Noised) -> Tensor:
        """Return w(logsnr_t) times the mean over coordinates of (eps^ - eps)^2, (B,)."""
        loss = Simple(Eps()).losses(prediction, noised)
        return self.weighting(noised.schedule(noised.t).logsnr).to(loss) * loss


@dataclass(frozen=True)
class Bound:
    """L_vlb without its constant L_T: T times the term of the bound at t, in nats a coordinate (DDPM Eq. 5).

    Averaged over t uniform on the chain it is sum_t L_{t-1} / d.

    Attributes:
        variance: of the reverse step.
        decoder: gives L_0.
    """

    variance: Variance
    decoder: Decoder = Discretized()

    def losses(self, prediction: Prediction, noised: Noised) -> Tensor:
        """Return T L_{t-1} / d for t > 1/T and T L_0 / d at t = 1/T, (B,)."""
        num_steps, t = noised.schedule.num_steps, noised.t
        s, after = (t - 1 / num_steps).clamp(min=0.0), (t + 1 / num_steps).clamp(max=1.0)
        s = torch.where(s < 0.5 / num_steps, torch.zeros_like(s), s)
        levels = noised.schedule(s), noised.schedule(t), noised.schedule(after)
        nats = bound_term(prediction, noised.x_0, noised.x_t, *levels, self.variance, self.decoder)
        return num_steps * nats.flatten(1).mean(1)


@dataclass(frozen=True)
class Hybrid:
    """L_simple + weight L_vlb, the mean inside L_vlb detached (IDDPM Eq. 16).

    Attributes:
        simple: trains the mean.
        bound: trains the variance.
        weight: lambda, for a bound summed over the chain.
    """

    simple: Objective = Simple()
    bound: Bound = Bound(Learned())
    weight: float = 1e-3

    def losses(self, prediction: Prediction, noised: Noised) -> Tensor:
        """Return the sum of both, (B,)."""
        fixed_mean = replace(prediction, x0=prediction.x0.detach(), eps=prediction.eps.detach())
        return self.simple.losses(prediction, noised) + self.weight * self.bound.losses(fixed_mean, noised)
