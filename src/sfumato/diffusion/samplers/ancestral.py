r"""Ancestral sampling: DDPM's Algorithm 2, on any grid of times.

x_s ~ p(x_s | x_t) = N( mu~(x_t, x0^), variance ),        and no noise in the last step, where s = 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from sfumato.diffusion.condition import Condition
from sfumato.diffusion.denoiser import Denoiser
from sfumato.diffusion.samplers.protocol import NoiseSource, State
from sfumato.diffusion.variance import Small, Variance, reverse

__all__ = ["Ancestral"]


@dataclass(frozen=True)
class Ancestral:
    """DDPM Algorithm 2: draw from the model's reverse step p(x_s | x_t). Order 1 in distribution, one evaluation a
    step.

    Attributes:
        variance: of the reverse step, `Small()` (beta~) by default.
    """

    variance: Variance = Small()

    order: ClassVar[int] = 1
    evaluations: ClassVar[int] = 1
    stochastic: ClassVar[bool] = True

    def step(
        self, denoiser: Denoiser, state: State, s: float, noise: NoiseSource, condition: Condition | None = None
    ) -> State:
        """Go from state.t to s: mean + std z, and the mean alone at s = 0."""
        level_s, level_t = denoiser.schedule(s), denoiser.schedule(state.t)
        prediction = denoiser(state.x, state.t, condition)
        step = reverse(prediction, state.x, level_s, level_t, self.variance)
        x_s = step.mean if s == 0 else step.sample(noise.step(state.step))
        return State(x_s, s, state.step + 1, prediction)
