"""What a noisy image is thought to be made of: what every denoiser returns and every sampler reads."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from .schedule import Level

__all__ = ["Prediction"]


@dataclass(frozen=True)
class Prediction:
    """What a noisy image x_t is thought to be made of.

    Attributes:
        x0: (B, C, H, W), the predicted image (the mean of q(x_0 | x_t) where exact).
        eps: (B, C, H, W), the predicted noise.
        fraction: (B, C, H, W) or None: where learned, v in log variance = v log beta + (1 - v) log beta~ (IDDPM Eq.
            15).
    """

    x0: Tensor
    eps: Tensor
    fraction: Tensor | None = None

    def with_x0(self, x0: Tensor, x_t: Tensor, level: Level) -> Prediction:
        """Return the prediction with another x0 and the eps that goes with it: eps = (x_t - alpha x0) / sigma."""
        level = level.like(x_t)
        return replace(self, x0=x0, eps=(x_t - level.alpha * x0) / level.sigma)
