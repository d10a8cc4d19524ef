r"""Euler's method on the probability-flow ODE, which is deterministic DDIM.

Divide the image by alpha and count time by the noise that is then in it (Song et al. 2020, DDIM Eq. 14; EDM Eq. 1):

    y = x / alpha,   rho = sigma / alpha:          dy / drho = eps^(x, t)

The only curvature left is that of eps^ itself. One step of Euler's method is

    y_s = y_t + (rho_s - rho_t) eps^,        that is        x_s = alpha_s x0^ + sigma_s eps^

since x0^ = y_t - rho_t eps^. The second form, which is DDIM's step, is finite where rho is not: at alpha_t = 0 (pure
noise) and, giving x0^, at sigma_s = 0 (the image). The samplers that correct Euler's step start from it, so both ends
are settled here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from sfumato.diffusion.condition import Condition
from sfumato.diffusion.denoiser import Denoiser
from sfumato.diffusion.prediction import Prediction
from sfumato.diffusion.samplers.protocol import NoiseSource, State
from sfumato.diffusion.schedule import Level, broadcast

__all__ = ["Euler", "carry", "correctable", "rho_step"]


def carry(prediction: Prediction, alpha: Tensor, sigma: Tensor) -> Tensor:
    """Return alpha x0 + sigma eps: the prediction carried to a level.

    Args:
        prediction: images (B, C, H, W).
        alpha: () or (B,) float64.
        sigma: likewise; smaller than the level's where noise is to follow (DDIM Eq. 12).
    """
    return broadcast(alpha, prediction.x0) * prediction.x0 + broadcast(sigma, prediction.x0) * prediction.eps


def rho_step(level_s: Level, level_t: Level) -> float:
    """Return alpha_s (rho_s - rho_t) = sigma_s - alpha_s sigma_t / alpha_t: what a change of eps moves x_s by."""
    return float(level_s.sigma - level_s.alpha * level_t.sigma / level_t.alpha)


def correctable(level_s: Level, level_t: Level) -> bool:
    """Whether the mean of the slopes at both ends beats the first slope, on the one distribution that needs no model.

    For data N(0, 1) the flow stands still in x: Euler's step leads to cos(d) x, d the angle between the levels, the
    second slope is sigma_s cos(d) x, and the truth is x. The correction makes it worse when the step comes from far
    above (rho_t > 2 rho_s >> 1): there the slope changes at the near end only, and half of the change is put on all the
    way. Mostly that is nothing, less than the tenth of an image that is let pass here; from the rho = 20 000 that a
    cosine chain ends with it is many images.
    """
    if float(level_s.sigma) == 0:
        return False  # the image itself: there is no slope to be had
    cos = float(level_s.alpha * level_t.alpha + level_s.sigma * level_t.sigma)
    # infinite, so no, from pure noise
    moved = rho_step(level_s, level_t) / 2 * (float(level_s.sigma) * cos - float(level_t.sigma))
    return abs(cos - 1 + moved) < max(1 - cos, 0.1)


@dataclass(frozen=True)
class Euler:
    """Euler's method in rho = sigma / alpha: DDIM with eta = 0, bit for bit (Song et al. 2020; EDM, Karras et al. 2022,
    2206.00364, Table 1). Order 1, one evaluation a step.

    First step from pure noise (alpha = 0): the same formula. Last step: the predicted image.
    """

    order: ClassVar[int] = 1
    evaluations: ClassVar[int] = 1
    stochastic: ClassVar[bool] = False

    def step(
        self, denoiser: Denoiser, state: State, s: float, noise: NoiseSource, condition: Condition | None = None
    ) -> State:
        """Go from state.t to s along the tangent."""
        level_s = denoiser.schedule(s)
        prediction = denoiser(state.x, state.t, condition)
        return State(carry(prediction, level_s.alpha, level_s.sigma), s, state.step + 1, prediction)
