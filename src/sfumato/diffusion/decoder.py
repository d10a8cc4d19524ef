r"""The last term of the bound, L_0 = -log p(x_0 | x_t): how a Gaussian becomes a likelihood of stored values.

An 8-bit value k is the point 2k/255 - 1, and the model gives it the mass of the bin that reaches half-way to its
neighbours, 1/255 to either side, the outermost bins open to infinity; the 256 masses add up to one (DDPM Eq. 13).
Values that are not integers have no bins: L_0 is then -log of the Gaussian's density, which may be negative.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.diffusion.gaussian import Gaussian

Decoder = Callable[[Gaussian, Tensor], Tensor]
"""(p(x_0 | x_t), x_0 (B, ...)) -> -log p of each coordinate in nats, (B, ...)."""


def density(gaussian: Gaussian, x_0: Tensor) -> Tensor:
    """Return -log of the Gaussian's density at x_0, in nats a coordinate."""
    return -gaussian.log_prob(x_0)


@dataclass(frozen=True)
class Discretized:
    """-log of the mass that a Gaussian gives to the bin of each of `levels` values in [-1, 1] (DDPM Eq. 13).

    log( Phi((x + h - mean)/std) - Phi((x - h - mean)/std) ), h = 1 / (levels - 1), with -1 and 1 open outwards. A
    difference of two near-equal tails is taken as log Phi(b) + log(1 - Phi(a)/Phi(b)) on the side of the mean where Phi
    is small, so that a value far out in a tail keeps its digits. The edges of bins narrower than those of 8 bits need
    more digits than float32 has, and they are taken in float64. Value k is 2k/(levels - 1) - 1.
    """

    levels: int = 256

    def __call__(self, gaussian: Gaussian, x_0: Tensor) -> Tensor:
        """Return -log of the bins' masses, (B, ...), at least 0."""
        if self.levels > 256 and x_0.dtype != torch.float64:
            wide = Gaussian(gaussian.mean.double(), gaussian.logvar.double())
            return self(wide, x_0.double()).to(x_0.dtype)
        half_bin, inverse_std = 1 / (self.levels - 1), (-gaussian.logvar / 2).exp()
        low, high = ((x_0 + side * half_bin - gaussian.mean) * inverse_std for side in (-1, 1))
        low = torch.where(x_0 < -1 + half_bin, torch.full_like(low, -torch.inf), low)
        high = torch.where(x_0 > 1 - half_bin, torch.full_like(high, torch.inf), high)
        # by symmetry the bin (low, high) has the mass of (-high, -low): use the one further left
        right = low + high > 0
        low, high = torch.where(right, -high, low), torch.where(right, -low, high)
        return -_log_mass(low, high)


def _log_mass(low: Tensor, high: Tensor) -> Tensor:
    """log( Phi(high) - Phi(low) ) for low < high with the bin's middle at or left of 0."""
    log_high: Tensor = torch.special.log_ndtr(high)
    log_low: Tensor = torch.special.log_ndtr(low.clamp(min=-1e18))
    return log_high + torch.log1p(-(log_low - log_high).exp().clamp(max=1 - torch.finfo(low.dtype).eps))
