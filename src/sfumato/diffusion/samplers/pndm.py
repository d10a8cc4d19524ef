r"""PNDM: a linear multistep method for eps^ in DDIM's step (Liu et al. 2022, 2202.09778).

DDIM's step applies eps^ over a distance alpha_s (rho_s - rho_t), rho = sigma / alpha (see `ddim`). PNDM keeps that
transfer and replaces eps^ as Adams and Bashforth would: by the mean over [s, t] of the polynomial in t through the last
four predictions,

    eps' = ( 55 eps_t - 59 eps_{t+d} + 37 eps_{t+2d} - 9 eps_{t+3d} ) / 24          at even spacing d      Eq. 12

It is the sampler that latent diffusion calls PLMS. Here the weights follow from the times themselves, so that a grid
need not be even. The polynomial is fitted in t but the distance is measured in rho, so whatever its degree the method
has order 2 (the paper's Theorem 1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from sfumato.diffusion.condition import Condition
from sfumato.diffusion.denoiser import Denoiser
from sfumato.diffusion.noise import NoiseSource
from sfumato.diffusion.samplers.ddim import carry, rho_step
from sfumato.diffusion.samplers.heun import heun_step
from sfumato.diffusion.samplers.protocol import State
from sfumato.diffusion.schedule import Schedule, step_levels

_MOST = 10.0  # sum of |w|; even strides have 6.7


def _adams_bashforth(points: list[float]) -> list[float]:
    """Weights w with sum_i w_i P(u_i) = mean of P over [u_s, u_0] for polynomials P of degree < n; points u_s, u_0, ..,
    u_{n-1}."""
    s, first, *_ = points
    scaled = torch.tensor([(u - first) / (first - s) for u in points[1:]], dtype=torch.float64)
    powers = torch.stack([scaled**k for k in range(len(scaled))])
    means = torch.tensor([(-1.0) ** k / (k + 1) for k in range(len(scaled))], dtype=torch.float64)
    weights: list[float] = torch.linalg.solve(powers, means).tolist()
    return weights


def _even(times: list[float], schedule: Schedule) -> list[float]:
    """Times s < t_0 < t_1 .. in the variable of the named grids in which they are most evenly spaced; t where several
    are. A last step, s = 0, has the variable of the steps before, and t where that is infinite at 0."""
    t = torch.tensor(times, dtype=torch.float64)
    logsnr = schedule(t).logsnr
    best, least = t, math.inf
    for points in (t, t.sqrt(), logsnr, (logsnr / -14).exp()):
        strides = points[1 if times[0] == 0 else 0 :].diff().abs()
        uneven = float(strides.max() / strides.min())
        if bool(points.isfinite().all()) and uneven < 0.999 * least:
            best, least = points, uneven
    return [float(u) for u in best]


def _weights(times: list[float], schedule: Schedule) -> list[float]:
    """Weights of the predictions at t_0, t_1, .. for a step to s: of as many as can be extrapolated safely."""
    points = _even(times, schedule)
    while sum(map(abs, weights := _adams_bashforth(points))) > _MOST:
        points.pop()
    return weights


@dataclass(frozen=True)
class PNDM:
    """PNDM's linear multistep method, PLMS (Liu et al. 2022, 2202.09778, Eq. 9 and 12). Order 2, one evaluation a step
    and one more in the first, which is Heun's so that the history starts well.

    The last step, s = 0, is like the others, so x_0 is not exactly the predicted image. A first step from pure noise or
    too near to it is DDIM's, one evaluation (see `Heun`). For comparison; `DPMSolver` and `UniPC` do better.
    """

    order: ClassVar[int] = 2
    evaluations: ClassVar[int] = 1
    stochastic: ClassVar[bool] = False

    def step(
        self, denoiser: Denoiser, state: State, s: float, noise: NoiseSource, condition: Condition | None = None
    ) -> State:
        """Go from state.t to s with up to three predictions before this one."""
        earlier = [past for past in state.history if past[0] > state.t][:3]
        if not earlier:
            x_s, prediction = heun_step(denoiser, state.x, state.t, s, condition)
            return State(x_s, s, state.step + 1, prediction, ((state.t, prediction.eps),))
        level_s, level_t = step_levels(denoiser.schedule, s, state.t)
        prediction = denoiser(state.x, state.t, condition)
        history = ((state.t, prediction.eps), *earlier)
        weights = _weights([s, *(t for t, _ in history)], denoiser.schedule)
        mean = sum(w * eps for w, (_, eps) in zip(weights, history, strict=False))
        x_s = carry(prediction, level_s.alpha, level_s.sigma)
        x_s = x_s + rho_step(level_s, level_t) * (mean - prediction.eps)
        return State(x_s, s, state.step + 1, prediction, history)
