r"""The Frechet distance between two sets of features, from their means and covariances.

Between Gaussians the squared Wasserstein-2 distance is known (Dowson and Landau 1982; Heusel et al. 2017, Eq. 6),

    d^2 = | m_1 - m_2 |^2 + tr( S_1 + S_2 - 2 (S_1 S_2)^{1/2} )

and that formula with the features' mean and covariance is the FID where the features are Inception's. (The square is
what is reported.)

The product S_1 S_2 is not symmetric, and taking its root is what makes other programs return complex numbers or fail
where a covariance has no full rank. It isn't needed. With any factors S_i = R_i R_i^T,

    tr (S_1 S_2)^{1/2} = sum of the singular values of R_1^T R_2

which are real and at least 0 whatever the ranks. R is the centred features over sqrt(N - 1) where N is at most D, exact
and without a root; else it comes from the eigenvectors of S.

Influence. With R_1^T R_2 = P s Q^T, the optimal map from the second Gaussian to the first is
T_2 = R_1 P s^{-1} P^T R_1^T, and giving image x of the second set more weight changes d^2 by

    psi(x) = 2 (m_2 - m_1) . y + y^T (1 - T_2) y,    y = x - m_2

up to a constant, and the same the other way round.

Bias. With N images d^2 is too large by about c/N, c growing with D: two halves of one set are not at distance 0.
Below N = D the covariance hasn't even full rank. So numbers of different N can't be compared, and each needs a
baseline. Shrinking both covariances towards spheres removes much of that bias and changes the quantity measured.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.evaluate.metrics.protocol import MetricValue, check_sets


def frechet_distance(first: Tensor, second: Tensor, shrink: bool = False) -> MetricValue:
    """Return the squared Frechet distance of features (N, D) and (M, D), with every image's influence.

    `shrink` shrinks both covariances towards spheres; the influences treat the amount as fixed.
    """
    check_sets("frechet", first, second, 2)
    a, b = _Cloud.of(first, shrink), _Cloud.of(second, shrink)
    left, s, right = torch.linalg.svd(a.root.T @ b.root, full_matrices=False)
    apart = b.mean - a.mean
    value = max(0.0, float(apart.square().sum() + a.trace + b.trace - 2 * s.sum()))
    inverse = torch.where(s > s.max() * 1e-14, s.clamp(min=torch.finfo(s.dtype).tiny).rsqrt(), 0.0) if len(s) else s
    influences = a.influence(b.root @ right.T * inverse, -apart), b.influence(a.root @ left * inverse, apart)
    num, dim = min(len(first), len(second)), len(apart)
    note = (
        f"{num:,} images are fewer than the {dim:,} features: the covariance is rank-deficient and the Frechet "
        "distance is biased upwards; compare it only with real against real, give more images, or use frechet-shrunk"
    )
    return MetricValue(value, influences, least=0.0, note=note if num < dim and not shrink else None, better="lower")


def shrunk(covariance: Tensor, count: int) -> tuple[Tensor, float]:
    """Return an unbiased covariance (D, D) of `count` images shrunk towards a multiple of the identity, and the amount
    rho.

    S* = (1 - rho) S + rho tr(S)/D I with the oracle-approximating rho (Chen, Wiesel, Eldar and Hero 2010, "Shrinkage
    algorithms for MMSE covariance estimation", Eq. 23): of full rank where the count is below D.
    """
    dim = len(covariance)
    trace, square = covariance.trace(), covariance.square().sum()
    above = (1 - 2 / dim) * square + trace.square()
    below = (count + 1 - 2 / dim) * (square - trace.square() / dim)
    rho = float((above / below).clamp(max=1.0)) if below > 0 else 1.0
    return (1 - rho) * covariance + rho * trace / dim * torch.eye(dim, dtype=torch.float64), rho


@dataclass(frozen=True, eq=False)
class _Cloud:
    """Features (N, D): their mean (D,), centred, with a factor (D, r) of their covariance, its trace, and rho."""

    mean: Tensor
    centred: Tensor
    root: Tensor
    trace: Tensor
    rho: float

    @classmethod
    def of(cls, features: Tensor, shrink: bool) -> _Cloud:
        mean = features.double().mean(0)
        centred, count = features.double() - mean, len(features)
        if count <= len(mean) and not shrink:
            root = centred.T / math.sqrt(count - 1)
            return cls(mean, centred, root, root.square().sum(), 0.0)
        covariance, rho = centred.T @ centred / (count - 1), 0.0
        if shrink:
            covariance, rho = shrunk(covariance, count)
        values, vectors = torch.linalg.eigh(covariance)
        kept = values > values[-1].clamp(min=0.0) * len(values) * torch.finfo(values.dtype).eps
        return cls(mean, centred, vectors[:, kept] * values[kept].sqrt(), covariance.trace(), rho)

    def influence(self, half: Tensor, apart: Tensor) -> Tensor:
        """2 apart . y + y^T (1 - T) y with T = half half^T, through the shrinkage; (N,)."""
        size = self.centred.square().sum(1)
        quadratic = (1 - self.rho) * (size - (self.centred @ half).square().sum(1))
        mean_diagonal = 1 - half.square().sum() / half.shape[0]
        unbiased = len(size) / (len(size) - 1)
        return 2 * (self.centred @ apart) + unbiased * (quadratic + self.rho * mean_diagonal * size)
