r"""The variance of the reverse step.

The step p(x_s | x_t) is Gaussian with a learned mean; its variance lies between two bounds (DDPM Sec. 3.2). If the
data were a single point the posterior's beta~ would be exact, if the data were N(0, I) the forward step's beta would
be:

    small:  beta~ = sigma_s^2 c            large:  beta = var_ts = sigma_t^2 c            c = 1 - SNR_t / SNR_s

The two differ only near the data; both hold for any s < t, so a respaced chain needs no table of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from torch import Tensor

from .process import snr_drop
from .schedule import Level, broadcast

if TYPE_CHECKING:
    from .denoiser import Prediction

__all__ = ["VARIANCES", "Large", "Small", "Variance"]


class Variance(Protocol):
    """A rule for the variance of p(x_s | x_t); implementations are frozen values."""

    def logvar(self, level_s: Level, level_t: Level, prediction: Prediction) -> Tensor:
        """Return the log variance, broadcastable to the prediction's images."""
        ...


@dataclass(frozen=True)
class Small:
    """beta~ = sigma_s^2 (1 - SNR_t / SNR_s): the posterior's variance ("fixedsmall"); zero, logvar -inf, at s = 0."""

    def logvar(self, level_s: Level, level_t: Level, prediction: Prediction) -> Tensor:
        """Return log beta~, () or (B, 1, 1, 1)."""
        return broadcast((level_s.sigma.square() * snr_drop(level_s, level_t)).log(), prediction.x0)


@dataclass(frozen=True)
class Large:
    """beta = sigma_t^2 (1 - SNR_t / SNR_s): the forward step's variance ("fixedlarge")."""

    def logvar(self, level_s: Level, level_t: Level, prediction: Prediction) -> Tensor:
        """Return log beta, () or (B, 1, 1, 1)."""
        return broadcast((level_t.sigma.square() * snr_drop(level_s, level_t)).log(), prediction.x0)


VARIANCES: dict[str, Variance] = {"small": Small(), "large": Large()}
