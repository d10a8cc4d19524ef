r"""The true posterior, where it is known: Gaussians and mixtures of them, seen through a linear operator.

If x_0 ~ N(m, C) and y = A x_0 + s_y n, then, with S = A C A^T + s_y^2 I,

    x_0 | y ~ N( m + C A^T S^-1 (y - A m),  C - C A^T S^-1 A C )

and a mixture's posterior is the mixture of its components' posteriors, each weighed anew by how well it explains y: w_k
N(y; A m_k, S_k). Noised, it is still such a mixture, so its optimal denoiser E[x_0 | x_t, y] is known too. With that
denoiser any sampler draws from the true posterior, up to the sampler's own error; what a posterior method adds to that
error is its bias.

All of it is dense linear algebra in float64: for some hundred coordinates, not for photographs.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.diffusion.condition import Condition
from sfumato.diffusion.inverse.operators import LinearOperator
from sfumato.diffusion.noise import Purpose, normal, uniform
from sfumato.diffusion.oracle import GaussianOracle, MixtureOracle
from sfumato.diffusion.prediction import Prediction
from sfumato.diffusion.schedule import Schedule

__all__ = ["DenseOracle", "dense", "dense_matrix", "exact_posterior"]


@dataclass(frozen=True, eq=False)
class DenseOracle:
    """Data sum_k weight_k N(mean_k, covariance_k) with whole covariances: pixels may depend on one another.

    Attributes:
        schedule: the schedule.
        shape: (C, H, W) of an image, d coordinates.
        weights: (K,), with sum 1.
        means: (K, d).
        covariances: (K, d, d), symmetric, positive semi-definite.
    """

    schedule: Schedule
    shape: tuple[int, ...]
    weights: Tensor
    means: Tensor
    covariances: Tensor

    @functools.cached_property
    def _axes(self) -> tuple[Tensor, Tensor]:
        """Variances (K, d) along the principal axes (K, d, d) of each component; rounding below 0 is cut off."""
        values, vectors = torch.linalg.eigh(self.covariances.double())
        return values.clamp(min=0.0), vectors

    def __call__(self, x_t: Tensor, t: Tensor | float, condition: Condition | None = None) -> Prediction:
        """Return E[x_0 | x_t] and E[eps | x_t], as `MixtureOracle` does but along each component's axes."""
        level = self.schedule(t).map(lambda c: c.to(x_t.device).reshape(-1, 1, 1))
        values, vectors = (a.to(x_t.device) for a in self._axes)
        means = self.means.to(x_t.device, torch.float64)
        spread = level.alpha.square() * values + level.sigma.square()
        centred = x_t.double().flatten(1)[:, None] - level.alpha * means
        along = torch.einsum("kdj,bkd->bkj", vectors, centred)
        log_share = self.weights.to(means).log() - (along.square() / spread + spread.log()).sum(2) / 2
        scaled = along / spread
        x0 = means + torch.einsum("kdj,bkj->bkd", vectors, level.alpha * values * scaled)
        eps = level.sigma * torch.einsum("kdj,bkj->bkd", vectors, scaled)
        share = log_share.softmax(1)[..., None]
        return Prediction(*((share * part).sum(1).reshape(x_t.shape).to(x_t) for part in (x0, eps)))

    def sample(self, count: int, seed: int) -> Tensor:
        """Return `count` draws of x_0, (count, C, H, W) float64, by address (seed, image)."""
        index = torch.arange(count)
        which = torch.searchsorted(self.weights.double().cumsum(0), uniform(seed, Purpose.ORACLE, index))
        which = which.clamp(max=len(self.weights) - 1)
        z = normal(seed, Purpose.ORACLE, index, (self.means.shape[1],), step=1, dtype=torch.float64)
        values, vectors = self._axes
        drawn = self.means.double()[which] + torch.einsum("bdj,bj->bd", vectors[which], values[which].sqrt() * z)
        return drawn.reshape(count, *self.shape)

    @property
    def mean(self) -> Tensor:
        """The mean of the whole mixture, (d,)."""
        return self.weights.double() @ self.means.double()

    @property
    def covariance(self) -> Tensor:
        """The covariance of the whole mixture, (d, d): within components and between them."""
        apart = self.means.double() - self.mean
        between = torch.einsum("k,ki,kj->ij", self.weights.double(), apart, apart)
        return torch.einsum("k,kij->ij", self.weights.double(), self.covariances.double()) + between


def dense(oracle: GaussianOracle | MixtureOracle, shape: tuple[int, ...]) -> DenseOracle:
    """Return a coordinate-wise oracle as a `DenseOracle`.

    Args:
        oracle: Gaussian or mixture.
        shape: (C, H, W) of an image.
    """
    if isinstance(oracle, GaussianOracle):
        weights, means, variances = torch.ones(1), oracle.mean.expand(1, *shape), oracle.variance.expand(1, *shape)
    else:
        weights, means, variances = oracle.weights, oracle.means, oracle.variances.expand_as(oracle.means)
    weights = weights.double() / weights.double().sum()
    covariances = torch.diag_embed(variances.double().flatten(1))
    return DenseOracle(oracle.schedule, shape, weights, means.double().flatten(1), covariances)


def dense_matrix(operator: LinearOperator, shape: tuple[int, ...]) -> Tensor:
    """Return A as a matrix, (m, d) float64: its columns are the images of single pixels.

    Args:
        operator: A.
        shape: (C, H, W) of an image, d coordinates.
    """
    d = math.prod(shape)
    return operator.forward(torch.eye(d, dtype=torch.float64).reshape(d, *shape)).flatten(1).T


def exact_posterior(prior: DenseOracle, operator: LinearOperator, y: Tensor, noise_std: float) -> DenseOracle:
    """Return p(x_0 | y), whose denoiser is E[x_0 | x_t, y].

    Args:
        prior: p(x_0).
        operator: A.
        y: (1, ...), one measurement.
        noise_std: s_y; 0 is allowed where all components' covariances have the same range.
    """
    A, weights, means, covariances = dense_matrix(operator, prior.shape), [], [], []
    for log_weight, mean, C in zip(prior.weights.log(), prior.means.double(), prior.covariances.double(), strict=True):
        values, vectors = torch.linalg.eigh(A @ C @ A.T + noise_std**2 * torch.eye(len(A), dtype=torch.float64))
        # a row of A that measures nothing (a mask's) has no noise-free likelihood: leave its direction out
        kept = values > 1e-12 * values.max()
        values, vectors = values[kept], vectors[:, kept]
        along = vectors.T @ (y.double().flatten() - A @ mean)
        cross = C @ A.T @ vectors
        weights.append(log_weight - (along.square() / values + values.log()).sum() / 2)
        means.append(mean + cross @ (along / values))
        covariances.append(C - cross / values @ cross.T)
    share = torch.stack(weights).softmax(0)
    return DenseOracle(prior.schedule, prior.shape, share, torch.stack(means), torch.stack(covariances))
