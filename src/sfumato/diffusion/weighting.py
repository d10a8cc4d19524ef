r"""Weights by noise level: which errors matter.

A squared error in one parameterisation's space is that in another's times a function of the noise level, so "which
target" and "which weight" are one question. To be comparable all weights here are factors of the squared error of eps,
in which an x0 loss has the weight 1 / SNR and a v loss 1 + 1 / SNR:

    min-SNR-gamma   min(SNR, gamma) / SNR          Hang et al. 2023, 2303.09556, Eq. 10
    P2              1 / (k + SNR)^gamma            Choi et al. 2022, 2204.00227, Eq. 8
    sigmoid         sigmoid(bias - logsnr)         Kingma and Gao 2023, 2303.00848; Hoogeboom et al. 2024, 2410.19324

All are finite from clean to pure noise. The bound's own weight (DDPM Eq. 12) is not here: it is the bound, `Bound`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

__all__ = ["P2", "WEIGHTINGS", "MinSNR", "SigmoidWeight", "Weighting"]


class Weighting(Protocol):
    """A factor of the squared error of eps, by noise level; implementations are frozen values."""

    def __call__(self, logsnr: Tensor) -> Tensor:
        """Return the weight at each logsnr, in its shape."""
        ...


@dataclass(frozen=True)
class MinSNR:
    """min(SNR, gamma) / SNR: an x0 loss at high noise, with the clean end held back.

    Attributes:
        gamma: the SNR above which the weight falls.
    """

    gamma: float = 5.0

    def __call__(self, logsnr: Tensor) -> Tensor:
        """Return min(1, gamma / SNR)."""
        return (self.gamma * (-logsnr).exp()).clamp(max=1.0)


@dataclass(frozen=True)
class P2:
    """1 / (k + SNR)^gamma: perception prioritised.

    Attributes:
        k: keeps the weight finite in pure noise.
        gamma: strength; 0 is no weighting.
    """

    k: float = 1.0
    gamma: float = 1.0

    def __call__(self, logsnr: Tensor) -> Tensor:
        """Return (k + SNR)^-gamma."""
        return (self.k + logsnr.exp()).pow(-self.gamma)


@dataclass(frozen=True)
class SigmoidWeight:
    """sigmoid(bias - logsnr): falls smoothly towards the clean end.

    Attributes:
        bias: the logsnr at which the weight is one half.
    """

    bias: float = 2.0

    def __call__(self, logsnr: Tensor) -> Tensor:
        """Return sigmoid(bias - logsnr)."""
        return torch.sigmoid(self.bias - logsnr)


WEIGHTINGS: dict[str, type[MinSNR] | type[P2] | type[SigmoidWeight]] = {
    "min-snr": MinSNR,
    "p2": P2,
    "sigmoid": SigmoidWeight,
}
