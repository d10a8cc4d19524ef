r"""A noise level is one number.

The noised image is x_t = alpha_t x_0 + sigma_t eps with alpha_t^2 + sigma_t^2 = 1 (variance preserving). One number
fixes a level:

    logsnr = log(alpha^2 / sigma^2),    alpha^2 = sigmoid(logsnr),    sigma^2 = sigmoid(-logsnr)

and DDPM's cumulative product is abar_t = prod_{s <= t} (1 - beta_s) = alpha_t^2. All of it is float64: at the clean end
sigma^2 = 1 - abar is a small difference, so it is taken as -expm1(log abar), never as 1 - abar.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


def broadcast(coefficient: Tensor, x: Tensor) -> Tensor:
    """Return a coefficient, () or (B,), in the dtype and on the device of x (B, ...), as () or (B, 1, ..., 1). Levels
    are float64, images usually are not: only this function converts between them. Raises ValueError for integers, which
    would round every coefficient to 0 or 1."""
    if not x.is_floating_point():
        raise ValueError(f"images of {x.dtype} have no noise level: encode them as floats first, such as 2k/255 - 1")
    coefficient = coefficient.to(x.dtype)
    if coefficient.device != x.device:
        coefficient = coefficient.to(x.device)
    return coefficient if coefficient.ndim == 0 else coefficient.reshape(-1, *[1] * (x.ndim - 1))


def exact_device(device: torch.device) -> torch.device:
    """Return where the times and levels of images on a device are computed: there, or on the CPU where the device has
    no float64 (Apple's GPUs)."""
    return torch.device("cpu") if device.type == "mps" else device


@dataclass(frozen=True)
class Level:
    """A noise level, x_t = alpha x_0 + sigma eps: float64 tensors of one shape, () or (B,).

    alpha = sqrt(abar) and sigma = sqrt(1 - abar) lie in [0, 1], logsnr goes from inf (clean) to -inf (pure noise).
    """

    alpha: Tensor
    sigma: Tensor
    logsnr: Tensor

    @classmethod
    def from_logsnr(cls, logsnr: Tensor) -> Level:
        """Return the level of a log signal-to-noise ratio: alpha^2 = sigmoid(logsnr), sigma^2 = sigmoid(-logsnr)."""
        logsnr = logsnr.to(torch.float64)
        return cls(torch.sigmoid(logsnr).sqrt(), torch.sigmoid(-logsnr).sqrt(), logsnr)

    @classmethod
    def from_log_abar(cls, log_abar: Tensor) -> Level:
        """Return the level of log(abar), in [-inf, 0], without cancellation at the clean end."""
        log_abar = log_abar.to(torch.float64)
        variance = -torch.expm1(log_abar)
        return cls((log_abar / 2).exp(), variance.sqrt(), log_abar - variance.log())

    @classmethod
    def from_angle(cls, angle: Tensor) -> Level:
        """Return the level of phi = atan2(sigma, alpha), in [0, pi/2]."""
        alpha, sigma = angle.cos(), angle.sin()
        return cls(alpha, sigma, 2 * (alpha.log() - sigma.log()))

    @property
    def abar(self) -> Tensor:
        """DDPM's cumulative product abar = alpha^2."""
        return self.alpha.square()

    @property
    def angle(self) -> Tensor:
        """phi = atan2(sigma, alpha), finite at both ends."""
        return torch.atan2(self.sigma, self.alpha)

    def shaped(self, x: Tensor) -> Level:
        """Return the level in float64 on x's `exact_device`, in the shape to multiply x: () or (B, 1, ..., 1)."""
        moved = self.map(lambda c: c.to(exact_device(x.device)))
        return moved.map(lambda c: c if c.ndim == 0 else c.reshape(-1, *[1] * (x.ndim - 1)))

    def like(self, x: Tensor) -> Level:
        """Return the level in x's dtype and device, shaped to multiply x."""
        return self.map(lambda coefficient: broadcast(coefficient, x))

    def map(self, function: Callable[[Tensor], Tensor]) -> Level:
        """Return the level with a function applied to each of its three tensors."""
        return Level(function(self.alpha), function(self.sigma), function(self.logsnr))

    def where(self, condition: Tensor, other: Level) -> Level:
        """Return this level where the condition holds, and the other elsewhere."""
        pairs = ((self.alpha, other.alpha), (self.sigma, other.sigma), (self.logsnr, other.logsnr))
        return Level(*(torch.where(condition, own, theirs) for own, theirs in pairs))
