r"""A Gaussian with independent coordinates, as a value.

Every distribution of the forward and reverse process is one, so a term of the variational bound is literally
`posterior(...).kl(reverse(...))`, and the sampler that draws from `reverse` and the likelihood that scores it cannot
disagree.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Gaussian:
    """N(mean, exp(logvar)), coordinate by coordinate: the mean (B, C, H, W), and the log of the variance, broadcastable
    to it; -inf is a point mass. No method sums over coordinates."""

    mean: Tensor
    logvar: Tensor

    @property
    def variance(self) -> Tensor:
        """exp(logvar)."""
        return self.logvar.exp()

    @property
    def std(self) -> Tensor:
        """exp(logvar / 2)."""
        return (self.logvar / 2).exp()

    def sample(self, noise: Tensor) -> Tensor:
        """Return mean + std * noise for noise ~ N(0, I) of mean's shape."""
        return self.mean + self.std * noise

    def log_prob(self, x: Tensor) -> Tensor:
        """Return log N(x; mean, variance) in nats: -1/2 [ (x - mean)^2 / variance + logvar + log 2 pi ]."""
        return -0.5 * ((x - self.mean).square() * (-self.logvar).exp() + self.logvar + math.log(2 * math.pi))

    def kl(self, other: Gaussian) -> Tensor:
        """Return KL(self || other) in nats: 1/2 [ log(v_o / v) - 1 + v / v_o + (m - m_o)^2 / v_o ]."""
        log_ratio = self.logvar - other.logvar
        squared = (self.mean - other.mean).square() * (-other.logvar).exp()
        return 0.5 * (torch.expm1(log_ratio) - log_ratio + squared)
