r"""Heun's method on the probability-flow ODE, plain and with churn (EDM, Karras et al. 2022, 2206.00364).

With y = x / alpha and rho = sigma / alpha the flow is dy / drho = eps^ (see `ddim`). Heun's method evaluates the slope
where Euler's step leads, and steps again with the mean of both slopes (EDM Alg. 1):

    x_s  = alpha_s x0^_t + sigma_s eps^_t,        x_s <- x_s + alpha_s (rho_s - rho_t) ( eps^_s - eps^_t ) / 2

EDM's stochastic sampler first adds a little fresh noise, which removes errors made so far, and then solves the flow
from the noisier level down (Alg. 2):

    rho^ = (1 + gamma) rho_t,     y^ = y_t + sqrt( rho^^2 - rho_t^2 ) S_noise z

EDM writes it for alpha = 1 throughout. Here the raised rho^ is found on the denoiser's own schedule, t^ =
schedule.time(-2 log rho^), so it works with any variance-preserving model, and y_t -> y^ is a step of the forward
process.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from sfumato.diffusion.condition import Condition
from sfumato.diffusion.denoiser import Denoiser
from sfumato.diffusion.level import broadcast
from sfumato.diffusion.noise import NoiseSource
from sfumato.diffusion.prediction import Prediction
from sfumato.diffusion.process import step_variance
from sfumato.diffusion.samplers.ddim import carry, correctable, rho_step
from sfumato.diffusion.samplers.protocol import State
from sfumato.diffusion.schedule import Schedule, step_levels

_MOST_CHURN = math.sqrt(2) - 1  # Alg. 2: a step's variance is at most doubled


def heun_step(
    denoiser: Denoiser, x_t: Tensor, t: float, s: float, condition: Condition | None
) -> tuple[Tensor, Prediction]:
    """Return the image at s after one step of Alg. 1, and the prediction at t."""
    level_s, level_t = step_levels(denoiser.schedule, s, t)
    prediction = denoiser(x_t, t, condition)
    x_s = carry(prediction, level_s.alpha, level_s.sigma)
    if not correctable(level_s, level_t):
        return x_s, prediction
    ahead = denoiser(x_s, s, condition)
    return x_s + rho_step(level_s, level_t) / 2 * (ahead.eps - prediction.eps), prediction


@dataclass(frozen=True)
class Heun:
    """Heun's method in rho = sigma / alpha (EDM, Karras et al. 2022, 2206.00364, Alg. 1). Order 2, two evaluations a
    step.

    The last step, s = 0, is Euler's, one evaluation, as in the paper; there is no slope at rho = 0. A first step from
    pure noise (alpha = 0, rho infinite), or from so near to it that the correction would do harm, is Euler's too (see
    `correctable`; the paper's grids start at rho = 80 and have no such step).
    """

    order: ClassVar[int] = 2
    evaluations: ClassVar[int] = 2
    stochastic: ClassVar[bool] = False

    def step(
        self, denoiser: Denoiser, state: State, s: float, noise: NoiseSource, condition: Condition | None = None
    ) -> State:
        """Go from state.t to s; the state's prediction is the one made at state.t."""
        x_s, prediction = heun_step(denoiser, state.x, state.t, s, condition)
        return State(x_s, s, state.step + 1, prediction)


@dataclass(frozen=True)
class EDM:
    """EDM's stochastic sampler: churn, then Heun's step (Karras et al. 2022, 2206.00364, Alg. 2). Two evaluations a
    step; the last step is Euler's, one evaluation.

    Noise is never raised above the schedule's noisiest level, so a step from t = 1 has no churn. The variance of the
    added noise is the forward process's: learned and measured ones are not used.

    `churn` is gamma of Alg. 2, by how much a step raises rho before it falls: S_churn / N for N steps, at most sqrt(2)
    - 1; 0 is `Heun`. It acts where rho lies between s_min and s_max. `s_noise` multiplies the added noise's standard
    deviation; a little over 1 makes up for detail lost.
    """

    churn: float = 0.1
    s_min: float = 0.05
    s_max: float = 50.0
    s_noise: float = 1.003

    evaluations: ClassVar[int] = 2

    def __post_init__(self) -> None:
        if not 0.0 <= self.churn <= _MOST_CHURN + 1e-9:
            raise ValueError(f"churn = {self.churn}: choose from 0 (none) to {_MOST_CHURN:.4f} (sqrt(2) - 1)")
        if self.s_min > self.s_max:
            raise ValueError(f"churn between rho = {self.s_min} and {self.s_max}: s_min must not exceed s_max")

    @property
    def order(self) -> int:
        """2 without churn. With a fixed churn 1 at most, in distribution: however short the steps, each solves the flow
        over the distance that churn has raised it. churn = S_churn / N, which falls with the number of steps, keeps 2.
        """
        return 1 if self.stochastic else 2

    @property
    def stochastic(self) -> bool:
        """churn > 0."""
        return self.churn > 0.0

    def step(
        self, denoiser: Denoiser, state: State, s: float, noise: NoiseSource, condition: Condition | None = None
    ) -> State:
        """Go from state.t up to t^ and down to s; the state's prediction is the one made at t^."""
        x, t = state.x, state.t
        step_levels(denoiser.schedule, s, t)
        raised = self._raised(denoiser.schedule, t)
        if raised > t:
            before, after = denoiser.schedule(t), denoiser.schedule(raised)
            std = step_variance(before, after).sqrt() * self.s_noise
            x = broadcast(after.alpha / before.alpha, x) * x + broadcast(std, x) * noise.step(state.step)
        x_s, prediction = heun_step(denoiser, x, max(raised, t), s, condition)
        return State(x_s, s, state.step + 1, prediction)

    def _raised(self, schedule: Schedule, t: float) -> float:
        """The time t^ at which rho is 1 + gamma times that of t, or t itself outside [s_min, s_max]."""
        logsnr = schedule(t).logsnr
        if self.churn == 0 or not self.s_min <= float((-logsnr / 2).exp()) <= self.s_max:
            return t
        return float(schedule.time(logsnr - 2 * math.log1p(self.churn)))
