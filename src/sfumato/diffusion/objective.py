r"""Training objectives: the error of a denoiser, example by example.

Algorithm 1 of DDPM draws x_0 from the data, t ~ Uniform{1..T}, eps ~ N(0, I), and takes a gradient step on

    L_simple = || eps - eps_theta( alpha_t x_0 + sigma_t eps, t ) ||^2                                       DDPM Eq. 14

The bound on -log p(x_0) behind it is a sum over the chain, L_vlb = L_T + sum_t L_{t-1} (`likelihood`), so its
estimate from one uniform t is T times the term at t. Where the variance is learned the two are added, the bound's mean
detached so that it trains the variance alone:

    L_hybrid = L_simple + lambda L_vlb,   lambda = 0.001                                                    IDDPM Eq. 16

An objective takes a prediction, not a network's output: its error in any parameterisation's space is p (x0^ - x_0) + q
(eps^ - eps) (see `parameterization`), so the space in which the loss is measured and the one in which the network
predicts are two choices, and an exact oracle can be scored by the same code. "Which space" and "which weight by noise
level" are one question: an x0 loss is one of eps with the weight 1 / SNR, a v loss with 1 + 1 / SNR. Losses stay per
example, next to the t that produced them: curves by noise level and importance sampling need no further evaluations.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from sfumato.diffusion.condition import Condition
from sfumato.diffusion.decoder import Decoder, Discretized
from sfumato.diffusion.denoiser import Denoiser
from sfumato.diffusion.likelihood import bound_term
from sfumato.diffusion.parameterization import X0, Eps, Parameterization, solve, target
from sfumato.diffusion.prediction import Prediction
from sfumato.diffusion.process import marginal
from sfumato.diffusion.schedule import Schedule, Time, as_time
from sfumato.diffusion.variance import Learned, Variance


@dataclass(frozen=True)
class Terms:
    """The loss of each example, (B,), a mean over its coordinates, and the time that produced it, (B,) float64."""

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


def training_loss(
    objective: Objective, denoiser: Denoiser, x_0: Tensor, t: Time, eps: Tensor, condition: Condition | None = None
) -> Terms:
    """Noise a batch x_0 by eps ~ N(0, I) to times t (B,), run the denoiser once, and return each example's loss."""
    t = as_time(t, denoiser.schedule.num_steps)
    x_t = marginal(x_0, denoiser.schedule(t)).sample(eps)
    noised = Noised(x_0, eps, x_t, t, denoiser.schedule)
    return Terms(objective.losses(denoiser(x_t, t, condition), noised), t)


@dataclass(frozen=True)
class Simple:
    """L_simple, measured in the space of a parameterisation, usually the network's own (DDPM Eq. 14 for `Eps()`)."""

    space: Parameterization = Eps()

    def losses(self, prediction: Prediction, noised: Noised) -> Tensor:
        """Return the mean over coordinates of ( p (x0^ - x_0) + q (eps^ - eps) )^2, (B,)."""
        x_0_error, eps_error = prediction.x0 - noised.x_0, prediction.eps - noised.eps
        return target(self.space, x_0_error, eps_error, noised.schedule, noised.t).square().flatten(1).mean(1)


class Weighting(Protocol):
    """A factor of the squared error in `space`, by noise level; implementations are frozen values.

    `by_logsnr` says what the loss is an average over: False is over t, True over logsnr, so that the same weights mean
    the same on every schedule (VDM++, 2303.00848, Sec. 2).
    """

    space: ClassVar[Parameterization]
    by_logsnr: ClassVar[bool]

    def __call__(self, logsnr: Tensor) -> Tensor:
        """Return the weight at each logsnr, in its shape."""


@dataclass(frozen=True)
class MinSNR:
    """Min-SNR-gamma, min(SNR, gamma) / SNR: less weight at the clean end (Hang et al. 2023, 2303.09556, Eq. 10)."""

    gamma: float = 5.0
    space: ClassVar[Parameterization] = Eps()
    by_logsnr: ClassVar[bool] = False

    def __call__(self, logsnr: Tensor) -> Tensor:
        """Return min(1, gamma / SNR)."""
        return (self.gamma * (-logsnr).exp()).clamp(max=1.0)


@dataclass(frozen=True)
class P2:
    """1 / (k + SNR)^gamma: perception prioritised (Choi et al. 2022, 2204.00227, Eq. 8)."""

    k: float = 1.0
    gamma: float = 1.0
    space: ClassVar[Parameterization] = Eps()
    by_logsnr: ClassVar[bool] = False

    def __call__(self, logsnr: Tensor) -> Tensor:
        """Return (k + SNR)^-gamma."""
        return (self.k + logsnr.exp()).pow(-self.gamma)


@dataclass(frozen=True)
class SigmoidWeight:
    """sigmoid(bias - logsnr), one half at logsnr = bias, averaged over logsnr (Kingma and Gao 2023, 2303.00848, Eq. 4
    and 10; Hoogeboom et al. 2024, 2410.19324): the loss is 1/2 E_t[ sigmoid(bias - logsnr) (-dlogsnr/dt) |eps^ - eps|^2
    ]."""

    bias: float = 2.0
    space: ClassVar[Parameterization] = Eps()
    by_logsnr: ClassVar[bool] = True

    def __call__(self, logsnr: Tensor) -> Tensor:
        """Return sigmoid(bias - logsnr)."""
        return torch.sigmoid(self.bias - logsnr)


@dataclass(frozen=True)
class EDMWeight:
    """SNR + 1 / s^2 = (rho^2 + s^2) / (rho s)^2 of the error of x_0, rho = sigma / alpha, s the deviation of the data
    (EDM, 2206.00364, Table 1): of data with that deviation, the loss of each level is 1 for the network that returns
    s^2 / (rho^2 + s^2) of what it sees. Raises ValueError where s is not above 0."""

    sigma_data: float = 0.5
    space: ClassVar[Parameterization] = X0()
    by_logsnr: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not 0 < self.sigma_data < math.inf:
            raise ValueError(f"sigma_data = {self.sigma_data}: must be above 0")

    def __call__(self, logsnr: Tensor) -> Tensor:
        """Return SNR + 1 / s^2."""
        return logsnr.exp() + self.sigma_data**-2


WEIGHTINGS: dict[str, type[MinSNR] | type[P2] | type[SigmoidWeight] | type[EDMWeight]] = {
    "min-snr": MinSNR,
    "p2": P2,
    "sigmoid": SigmoidWeight,
    "edm": EDMWeight,
}


@dataclass(frozen=True)
class Weighted:
    """The squared error in the weighting's space times its weight, the same whatever the network predicts."""

    weighting: Weighting

    def losses(self, prediction: Prediction, noised: Noised) -> Tensor:
        """Return w(logsnr_t) times the mean over coordinates of the squared error, (B,), and -1/2 dlogsnr/dt where the
        weighting is by logsnr."""
        loss = Simple(self.weighting.space).losses(prediction, noised)
        weight = self.weighting(noised.schedule(noised.t).logsnr)
        if self.weighting.by_logsnr:
            weight = weight * logsnr_rate(noised.schedule, noised.t) / 2
        return weight.to(loss) * loss


def logsnr_rate(schedule: Schedule, t: Tensor) -> Tensor:
    """Return -dlogsnr/dt at t in (0, 1], (B,) float64, and 0 at pure noise, where it is infinite and eps without error.

    With the angle phi, logsnr = -2 log tan(phi), it is 4 / sin(2 phi) dphi/dt. dphi/dt is taken over the neighbouring
    steps of the chain, between which phi is linear.
    """
    step = 1 / schedule.num_steps
    before, after = (t - step).clamp(min=0.0), (t + step).clamp(max=1.0)
    slope = (schedule(after).angle - schedule(before).angle) / (after - before)
    level = schedule(t)
    return torch.where(level.alpha > 0, 2 * slope / (level.alpha * level.sigma), 0.0)


@dataclass(frozen=True)
class Bound:
    """L_vlb without its constant L_T: T times the term of the bound at t, in nats a coordinate (DDPM Eq. 5).

    Averaged over t uniform on the chain it is sum_t L_{t-1} / d.
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
    """L_simple + weight L_vlb (IDDPM Eq. 16): the mean inside L_vlb is detached, so it trains the variance alone."""

    simple: Objective = Simple()
    bound: Bound = Bound(Learned())
    weight: float = 1e-3

    def losses(self, prediction: Prediction, noised: Noised) -> Tensor:
        """Return the sum of both, (B,)."""
        fixed_mean = replace(prediction, x0=prediction.x0.detach(), eps=prediction.eps.detach())
        return self.simple.losses(prediction, noised) + self.weight * self.bound.losses(fixed_mean, noised)


PUBLISHED_WEIGHT = 1e-3 / math.log(2)
"""The weight of a `Hybrid` as the published code has it: its bound is in bits, here it is in nats (1.4427 more)."""


def learns_from_pure_noise(objective: Objective, space: Parameterization, schedule: Schedule) -> bool:
    """Return whether the loss at t = 1 has a gradient in the output of a network that predicts in `space`.

    On a chain that ends in pure noise eps is known there, whatever the network says, and a loss that is an error of eps
    with a finite weight is 0. Such a network is never trained where every sample starts.
    """
    t, zero = torch.ones(1, dtype=torch.float64), torch.zeros(1, 1, 1, 1, dtype=torch.float64)
    output = torch.ones_like(zero).requires_grad_()
    prediction = Prediction(*solve(space, output, zero, schedule, t), torch.full_like(zero, 0.5))
    loss = objective.losses(prediction, Noised(zero, zero, zero, t, schedule)).sum()
    (gradient,) = torch.autograd.grad(loss, output)
    return bool(gradient != 0)


_LENGTH = 10
_UNIFORM = 1e-3


@dataclass(frozen=True)
class LossHistory:
    """The newest ten losses at each step of the chain, (T, 10), in no order, and the number seen at each, (T,) int64.

    Importance sampling of t, for losses that differ by orders of magnitude over the chain, where a uniform t makes a
    noisy gradient. Drawing t with probability p_t and weighing its loss by 1 / (T p_t) leaves the mean as it is, and
    the variance is least for

        p_t ~ sqrt( E[L_t^2] ),     E[L_t^2] from the last 10 losses seen at t                         IDDPM Eq. 18

    Until every t has been seen 10 times t is uniform; afterwards a thousandth of the probability stays uniform, so that
    no t is left out. The history is a value, and its tensors are saved with a checkpoint.
    """

    losses: Tensor
    seen: Tensor

    @classmethod
    def empty(cls, num_steps: int) -> LossHistory:
        """Return the history of a chain of T steps before training."""
        return cls(torch.zeros(num_steps, _LENGTH, dtype=torch.float64), torch.zeros(num_steps, dtype=torch.int64))

    @property
    def probabilities(self) -> Tensor:
        """p_t for t = 1/T .. 1, (T,) float64, summing to one."""
        num_steps = len(self.seen)
        even = torch.full((num_steps,), 1 / num_steps, dtype=torch.float64)
        root = self.losses.square().mean(1).sqrt()
        if int(self.seen.min()) < _LENGTH or float(root.sum()) == 0:
            return even
        return (1 - _UNIFORM) * root / root.sum() + _UNIFORM * even

    def draw(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Return times and the weights 1 / (T p_t) that keep the mean, both (B,) float64, for u (B,) uniform in
        [0, 1)."""
        p = self.probabilities
        step = torch.searchsorted(p.cumsum(0), u.to(torch.float64), right=True).clamp(max=len(p) - 1)
        return (step + 1).to(torch.float64) / len(p), 1 / (len(p) * p[step])

    def update(self, terms: Terms) -> LossHistory:
        """Return the history with a batch's unweighted losses added; non-finite ones are left out."""
        losses, seen = self.losses.clone(), self.seen.clone()
        steps = (terms.t.cpu() * len(seen)).round().long() - 1
        loss = terms.loss.detach().cpu().double()
        for i in loss.isfinite().nonzero()[:, 0].tolist():
            losses[steps[i], seen[steps[i]] % _LENGTH] = loss[i]
            seen[steps[i]] += 1
        return LossHistory(losses, seen)
