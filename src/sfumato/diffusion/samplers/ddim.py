r"""DDIM: a family of processes with DDPM's marginals, from deterministic to ancestral.

    sigma_ts = eta sqrt( (1 - abar_s) / (1 - abar_t) ) sqrt( 1 - abar_t / abar_s )                          DDIM Eq. 16
    x_s      = alpha_s x0^ + sqrt( 1 - abar_s - sigma_ts^2 ) eps^ + sigma_ts z                              DDIM Eq. 12

eta = 0 is a first-order solver of the probability-flow ODE, eta = 1 is ancestral sampling with the small variance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from sfumato.diffusion.condition import Condition
from sfumato.diffusion.denoiser import Denoiser
from sfumato.diffusion.process import posterior_coefficients
from sfumato.diffusion.samplers.euler import carry
from sfumato.diffusion.samplers.protocol import NoiseSource, State
from sfumato.diffusion.schedule import broadcast

__all__ = ["DDIM"]


@dataclass(frozen=True)
class DDIM:
    """DDIM (Song et al. 2020, Eq. 12 and 16). Order 1, one evaluation a step.

    Attributes:
        eta: multiplies the standard deviation of the step's noise; 0 deterministic, 1 ancestral.

    Raises:
        ValueError: eta outside [0, 1], where the variance left for eps^ could be negative.
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
        """Go from state.t to s; noise is asked for only where sigma_ts > 0."""
        x_t, level_s, level_t = state.x, denoiser.schedule(s), denoiser.schedule(state.t)
        prediction = denoiser(x_t, state.t, condition)
        _, _, posterior_variance = posterior_coefficients(level_s, level_t)
        std = self.eta * posterior_variance.sqrt()
        # at eta = 1 and t = 1 the difference can be a rounding error below zero
        direction = (level_s.sigma.square() - std.square()).clamp(min=0.0).sqrt()
        x_s = carry(prediction, level_s.alpha, direction)
        if float(std) > 0.0:
            x_s = x_s + broadcast(std, x_t) * noise.step(state.step)
        return State(x_s, s, state.step + 1, prediction)
