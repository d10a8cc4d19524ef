r"""DDPM's sampler, and DDIM: a family of processes with DDPM's marginals, from deterministic to ancestral.

    x_s ~ p(x_s | x_t) = N( mu~(x_t, x0^), variance ), and the mean alone where s = 0                      DDPM Alg. 2

    sigma_ts = eta sqrt( (1 - abar_s) / (1 - abar_t) ) sqrt( 1 - abar_t / abar_s )                          DDIM Eq. 16
    x_s      = alpha_s x0^ + sqrt( 1 - abar_s - sigma_ts^2 ) eps^ + sigma_ts z                              DDIM Eq. 12

eta = 1 is ancestral sampling with the small variance. eta = 0 is Euler's method on the probability-flow ODE: divide the
image by alpha and use rho, the noise level that it then has, as time (DDIM Eq. 14; EDM Eq. 1),

    y = x / alpha,   rho = sigma / alpha:          dy / drho = eps^(x, t)

and y_s = y_t + (rho_s - rho_t) eps^ is x_s = alpha_s x0^ + sigma_s eps^, since x0^ = y_t - rho_t eps^. This second form
is finite where rho is not: at alpha_t = 0 (pure noise) and, giving x0^, at sigma_s = 0 (the image). The samplers that
correct Euler's step (`heun`, `pndm`) start from it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from sfumato.diffusion.condition import Condition
from sfumato.diffusion.denoiser import Denoiser
from sfumato.diffusion.level import Level, broadcast
from sfumato.diffusion.noise import NoiseSource
from sfumato.diffusion.prediction import Prediction
from sfumato.diffusion.process import posterior_coefficients
from sfumato.diffusion.samplers.protocol import State
from sfumato.diffusion.schedule import step_levels
from sfumato.diffusion.variance import Small, Variance, reverse


@dataclass(frozen=True)
class Ancestral:
    """DDPM Algorithm 2: draw from the model's reverse step p(x_s | x_t), whose variance is beta~ by default. Order 1 in
    distribution, one evaluation a step."""

    variance: Variance = Small()

    order: ClassVar[int] = 1
    evaluations: ClassVar[int] = 1
    stochastic: ClassVar[bool] = True

    def step(
        self, denoiser: Denoiser, state: State, s: float, noise: NoiseSource, condition: Condition | None = None
    ) -> State:
        """Go from state.t to s: mean + std z, and the mean alone at s = 0."""
        level_s, level_t = step_levels(denoiser.schedule, s, state.t)
        prediction = denoiser(state.x, state.t, condition)
        step = reverse(prediction, state.x, level_s, level_t, self.variance)
        x_s = step.mean if s == 0 else step.sample(noise.step(state.step))
        return State(x_s, s, state.step + 1, prediction)


@dataclass(frozen=True)
class DDIM:
    """DDIM (Song et al. 2020, 2010.02502, Eq. 12 and 16). Order 1, one evaluation a step.

    eta in [0, 1] multiplies the standard deviation of the step's noise: 1 is ancestral, 0 is deterministic, Euler's
    method in rho and the first order of DPM-Solver++. Outside, the variance left for eps^ could be negative.
    """

    eta: float = 0.0

    order: ClassVar[int] = 1
    evaluations: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if not 0.0 <= self.eta <= 1.0:
            raise ValueError(f"eta = {self.eta}: choose from 0 (deterministic) to 1 (ancestral)")

    @property
    def stochastic(self) -> bool:
        """eta > 0."""
        return self.eta > 0.0

    def step(
        self, denoiser: Denoiser, state: State, s: float, noise: NoiseSource, condition: Condition | None = None
    ) -> State:
        """Go from state.t to s; noise is drawn only where sigma_ts > 0."""
        x_t, (level_s, level_t) = state.x, step_levels(denoiser.schedule, s, state.t)
        prediction = denoiser(x_t, state.t, condition)
        _, _, posterior_variance = posterior_coefficients(level_s, level_t)
        std = self.eta * posterior_variance.sqrt()
        # at eta = 1 and t = 1 the difference can be a rounding error below zero
        direction = (level_s.sigma.square() - std.square()).clamp(min=0.0).sqrt()
        x_s = carry(prediction, level_s.alpha, direction)
        if float(std) > 0.0:
            x_s = x_s + broadcast(std, x_t) * noise.step(state.step)
        return State(x_s, s, state.step + 1, prediction)


def carry(prediction: Prediction, alpha: Tensor, sigma: Tensor) -> Tensor:
    """Return alpha x0 + sigma eps: the prediction carried to a level, or short of it where noise follows (Eq. 12)."""
    return broadcast(alpha, prediction.x0) * prediction.x0 + broadcast(sigma, prediction.x0) * prediction.eps


def rho_step(level_s: Level, level_t: Level) -> float:
    """Return alpha_s (rho_s - rho_t) = sigma_s - alpha_s sigma_t / alpha_t: by how much a change of eps moves x_s."""
    return float(level_s.sigma - level_s.alpha * level_t.sigma / level_t.alpha)


def correctable(level_s: Level, level_t: Level) -> bool:
    """Return whether the mean of the slopes at both ends may be taken for the first slope, judged on data N(0, 1).

    There the flow keeps x fixed: Euler's step leads to cos(d) x, d the angle between the levels, the second slope is
    sigma_s cos(d) x, and the truth is x. A step from far above makes it worse, since the slope changes at the near end
    only and half of the change is applied all the way: near pure noise the corrected step's error is rho_t / rho_s - 1
    times Euler's. Up to twice is tolerated, and a tenth of an image, since other data bend the flow more (a cosine
    chain's last step is 30 times and more, however many steps there are).
    """
    if float(level_s.sigma) == 0:
        return False  # the slope at the image itself is not defined
    short = 2 * math.sin(float(level_t.angle - level_s.angle) / 2) ** 2  # 1 - cos(d)
    # infinite, so no, from pure noise
    moved = rho_step(level_s, level_t) / 2 * (float(level_s.sigma) * (1 - short) - float(level_t.sigma))
    return abs(moved - short) < max(short, min(2 * short, 0.1))
