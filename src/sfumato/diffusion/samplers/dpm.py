r"""DPM-Solver++: exponential integrators that keep earlier predictions (Lu et al. 2022, 2211.01095).

With lambda = log(alpha / sigma) = logsnr / 2 for time and the predicted image for unknown, the flow's linear part is
solved exactly, and what is left is an average of x0^ along the step (Eq. 8), h = lambda_s - lambda_t:

    x_s = sigma_s / sigma_t x_t + alpha_s int_0^h e^{-(h - u)} x0^(lambda_t + u) du

With x0^ constant this is DDIM. A polynomial through this prediction m_0 and the last ones m_1, m_2 (at u = 0, -r_0 h,
-(r_0 + r_1) h) raises the order without a further evaluation:

    order 2 (2M, Alg. 2)   x0^ ~ m_0 + (m_0 - m_1) / (2 r_0), constant: the polynomial's value in the middle of the step
    order 3                x0^ ~ m_0 + D_1 (u/h) + D_2 (u/h)^2, integrated exactly:
                           x_s = sigma_s/sigma_t x_t - alpha_s [ e m_0 - (e/h + 1) D_1 + 2 ((e + h)/h^2 - 1/2) D_2 ]

with e = expm1(-h), d_0 = (m_0 - m_1)/r_0, d_1 = (m_1 - m_2)/r_1, D_2 = (d_0 - d_1)/(r_0 + r_1), D_1 = d_0 + r_0 D_2.
The published code of the third order, and what descends from it, lacks the factor 2 before the last bracket; without it
the method converges with order 2 (measured in docs/samplers.md).

The SDE form solves the reverse process instead of the flow. Its first order is the ancestral step with the small
variance; its second puts the extrapolated image m_0 + (m_0 - m_1)/(2 r_0) into the same step. That does not improve the
mean, which given x_t is the posterior's at m_0 already (along the reverse process E[x_0 | x_t] is a martingale): m_0 -
m_1 is what the last step's noise revealed of x_0, and adding it again supplies the variance of x_0 that the small
variance leaves out. A large, learned or optimal variance contains it already, and here it would count twice; those
belong to `Ancestral`.

lambda is infinite at both ends. In the last step sigma_s = 0 and h is infinite: a polynomial would be followed
infinitely far, so the step is of first order and returns x0^. At a first step from pure noise, alpha_t = 0, h is
infinite too: the step is of first order, and the prediction made there, infinitely far off in lambda, is not kept. The
history grows by one prediction a step, and with it the order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor

from sfumato.diffusion.condition import Condition
from sfumato.diffusion.denoiser import Denoiser
from sfumato.diffusion.level import Level
from sfumato.diffusion.noise import NoiseSource
from sfumato.diffusion.samplers.protocol import State
from sfumato.diffusion.schedule import Schedule, step_levels
from sfumato.diffusion.variance import Small, reverse

Predictions = tuple[tuple[float, Tensor], ...]
"""Predictions x0^ with their lambda, the newest first."""


def stride(schedule: Schedule, s: float, t: float) -> tuple[Level, Level, float, float]:
    """Return the levels at s and t, lambda = log(alpha / sigma) at t, from -inf (pure noise) to inf (the image), and
    the step h in lambda from t to s."""
    level_s, level_t = step_levels(schedule, s, t)
    lambda_s, lambda_t = float(level_s.logsnr) / 2, float(level_t.logsnr) / 2
    return level_s, level_t, lambda_t, lambda_s - lambda_t


def usable(history: Predictions, lambda_t: float) -> Predictions:
    """Return what a step from lambda_t can build on: predictions at noisier, finite levels."""
    return tuple(past for past in history if -math.inf < past[0] < lambda_t)


def _middle(h: float, history: Predictions) -> Tensor:
    """m_0 + (m_0 - m_1)/(2 r_0): the line through two predictions, read in the middle of the step."""
    (lambda_0, m_0), (lambda_1, m_1) = history
    return (m_0 - m_1).mul_(h / (2 * (lambda_0 - lambda_1))).add_(m_0)


def _curved(h: float, history: Predictions) -> Tensor:
    """int_0^h e^{-(h-u)} P(u) du for the parabola P through three predictions."""
    (lambda_0, m_0), (lambda_1, m_1), (lambda_2, m_2) = history
    r_0, r_1 = (lambda_0 - lambda_1) / h, (lambda_1 - lambda_2) / h
    d_0, d_1 = (m_0 - m_1) / r_0, (m_1 - m_2) / r_1
    second = (d_0 - d_1) / (r_0 + r_1)
    e = math.expm1(-h)
    return -e * m_0 + (e / h + 1) * (d_0 + r_0 * second) - 2 * ((e + h) / h**2 - 0.5) * second


@dataclass(frozen=True)
class DPMSolver:
    """DPM-Solver++ multistep in its ODE form (Lu et al. 2022, 2211.01095, Alg. 2; order 3 as in the module). Order 2 or
    3, one evaluation a step; the first order would be `DDIM`.

    The first steps have the order that the history allows; that costs no order in practice, since the image predicted
    near pure noise hardly moves. The last step, s = 0, is of first order and returns the predicted image.
    """

    order: int = 2

    in_logsnr: ClassVar[bool] = True  # see `grid.grid_for`
    evaluations: ClassVar[int] = 1
    stochastic: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.order not in (2, 3):
            raise ValueError(f"order = {self.order}: DPM-Solver++ has orders 2 and 3; its first order is DDIM")

    def step(
        self, denoiser: Denoiser, state: State, s: float, noise: NoiseSource, condition: Condition | None = None
    ) -> State:
        """Go from state.t to s with the predictions so far."""
        level_s, level_t, lambda_t, h = stride(denoiser.schedule, s, state.t)
        prediction = denoiser(state.x, state.t, condition)
        history = ((lambda_t, prediction.x0), *usable(state.history, lambda_t))[: self.order]
        if math.isinf(h) or len(history) == 1:
            image = -math.expm1(-h) * prediction.x0
        elif len(history) == 2:
            image = _middle(h, history).mul_(-math.expm1(-h))
        else:
            image = _curved(h, history)
        x_s = float(level_s.sigma) / float(level_t.sigma) * state.x
        x_s += image.mul_(float(level_s.alpha))  # nothing else holds the image
        return State(x_s, s, state.step + 1, prediction, history)


@dataclass(frozen=True)
class DPMSolverSDE:
    """DPM-Solver++ multistep in its SDE form (Lu et al. 2022, 2211.01095, App. B): order 2 in distribution, one
    evaluation a step.

    x_s ~ N( a x_t + b ( m_0 + (m_0 - m_1)/(2 r_0) ), beta~ ), a, b and beta~ those of the posterior.

    The first and the last step are of first order, `Ancestral(Small())`, the last one without noise. It takes no
    `Variance`, for the reason given in the module. A third order exists in code elsewhere; its variance on Gaussian
    data is right to second order only, as that of any polynomial through noisy predictions.
    """

    in_logsnr: ClassVar[bool] = True
    order: ClassVar[int] = 2
    evaluations: ClassVar[int] = 1
    stochastic: ClassVar[bool] = True

    def step(
        self, denoiser: Denoiser, state: State, s: float, noise: NoiseSource, condition: Condition | None = None
    ) -> State:
        """Go from state.t to s: mean + std z, and the predicted image at s = 0."""
        level_s, level_t, lambda_t, h = stride(denoiser.schedule, s, state.t)
        prediction = denoiser(state.x, state.t, condition)
        history = ((lambda_t, prediction.x0), *usable(state.history, lambda_t))[: self.order]
        image = prediction.x0 if math.isinf(h) or len(history) == 1 else _middle(h, history)
        step = reverse(replace(prediction, x0=image), state.x, level_s, level_t, Small())
        x_s = step.mean if s == 0 else step.sample(noise.step(state.step))
        return State(x_s, s, state.step + 1, prediction, history)
