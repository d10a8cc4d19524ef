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
    low = low.clamp(min=-1e18)
    log_ratio = torch.where(  # log( Phi(low) / Phi(high) )
        high < _TAIL,
        (high - low) * (high + low) / 2 + _log_mills(low) - _log_mills(high),
        _log_cdf(low) - _log_cdf(high),
    )
    return _log_cdf(high) + torch.log1p(-log_ratio.exp().clamp(max=1 - torch.finfo(low.dtype).eps))


_TAIL = -1.0


def _log_mills(x: Tensor) -> Tensor:
    """log( Phi(x) e^{x^2/2} ), a slow function of x < -1; of -1 elsewhere."""
    scaled: Tensor = torch.special.erfcx(x.clamp(max=_TAIL) * -(0.5**0.5))
    return (scaled / 2).log()


def _log_cdf(x: Tensor) -> Tensor:
    """log Phi(x). In the tail the square is apart, since the derivative of torch's own subtracts two large numbers."""
    body: Tensor = torch.special.log_ndtr(x.clamp(min=_TAIL))
    return torch.where(x < _TAIL, _log_mills(x) - x.clamp(max=_TAIL).square() / 2, body)
