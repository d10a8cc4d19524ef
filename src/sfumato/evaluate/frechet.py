r"""The Frechet distance: how far apart two sets of features are, by their means and covariances.

Between Gaussians the squared Wasserstein-2 distance is known (Dowson and Landau 1982; Heusel et al. 2017, Eq. 6),

    d^2 = | m_1 - m_2 |^2 + tr( S_1 + S_2 - 2 (S_1 S_2)^{1/2} )

and that formula with the features' mean and covariance is the FID where the features are Inception's. (The square is
what everyone reports, and so do we.)

A root of the product S_1 S_2, which is not symmetric, is what makes other programs return complex numbers or fail
where a covariance has no full rank. It isn't needed. With any factors S_i = R_i R_i^T,

    tr (S_1 S_2)^{1/2} = sum of the singular values of R_1^T R_2

which are real and at least 0 whatever the ranks. R is the centred features over sqrt(N - 1) where N is at most D, exact
and without a root; else it comes from the eigenvectors of S.

Influence. With R_1^T R_2 = P s Q^T, the optimal map from the second Gaussian to the first is
T_2 = R_1 P s^{-1} P^T R_1^T, and giving image x of the second set more weight changes d^2 by

    psi(x) = 2 (m_2 - m_1) . y + y^T (1 - T_2) y,    y = x - m_2

up to a constant, and the same the other way round.

Bias. With N images d^2 is too large by about c/N, c growing with D: two halves of one set are not at distance 0.
Below N = D the covariance hasn't even full rank. So numbers of different N can't be compared, and a floor belongs
beside each. `shrink` draws both covariances towards spheres, which takes much of that bias away and changes what is
measured.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.errors import UserError
from sfumato.evaluate.bootstrap import Linearised
from sfumato.evaluate.statistics import Statistics

__all__ = ["frechet_distance", "frechet_note", "frechet_of_statistics"]


def frechet_of_statistics(first: Statistics, second: Statistics, shrink: bool = False) -> float:
    """Return the squared Frechet distance of two sets by their statistics alone.

    Args:
        first, second: the sets, features of one extractor.
        shrink: draw both covariances towards spheres.

    Raises:
        UserError: a set of fewer than two images, or features of different extractors.
    """
    _check(first.dim, second.dim)
    (cov_1, _), (cov_2, _) = _covariance(first, shrink), _covariance(second, shrink)
    cross = torch.linalg.svdvals(_root(cov_1).T @ _root(cov_2)).sum()
    apart = (first.mean - second.mean).square().sum()
    return max(0.0, float(apart + cov_1.trace() + cov_2.trace() - 2 * cross))


def frechet_distance(first: Tensor, second: Tensor, shrink: bool = False) -> Linearised:
    """Return the squared Frechet distance of two sets of features, with every image's influence.

    Args:
        first: (N, D).
        second: (M, D).
        shrink: draw both covariances towards spheres; their pull is then held in the influences.

    Raises:
        UserError: as `frechet_of_statistics`, or features that are not finite.
    """
    _check(first.shape[1], second.shape[1])
    a, b = _Cloud.of(first, shrink), _Cloud.of(second, shrink)
    left, s, right = torch.linalg.svd(a.root.T @ b.root, full_matrices=False)
    apart = b.mean - a.mean
    value = max(0.0, float(apart.square().sum() + a.trace + b.trace - 2 * s.sum()))
    inverse = torch.where(s > s.max() * 1e-14, s.clamp(min=torch.finfo(s.dtype).tiny).rsqrt(), 0.0) if len(s) else s
    map_a, map_b = b.root @ right.T * inverse, a.root @ left * inverse
    return Linearised(value, (a.influence(map_a, -apart), b.influence(map_b, apart)), least=0.0)


def frechet_note(count: int, dim: int) -> str | None:
    """Return what to say of `count` images with `dim` features: a sentence where they are too few, else None."""
    if count >= dim:
        return None
    return (
        f"{count:,} images are fewer than the {dim:,} features: the covariance has not full rank and the Frechet "
        "distance is biased upwards; compare it with its floor only, give more images, or measure frechet-shrunk"
    )


@dataclass(frozen=True, eq=False)
class _Cloud:
    """Features, centred, with a factor of their covariance.

    Attributes:
        mean: (D,).
        centred: (N, D).
        root: (D, r), root root^T = covariance.
        trace: of the covariance.
        pull: rho of the shrinkage.
    """

    mean: Tensor
    centred: Tensor
    root: Tensor
    trace: Tensor
    pull: float

    @classmethod
    def of(cls, features: Tensor, shrink: bool) -> _Cloud:
        statistics = Statistics.of(features)
        centred = features.double() - statistics.mean
        covariance, pull = _covariance(statistics, shrink)
        thin = len(centred) <= statistics.dim and not shrink
        root = centred.T / math.sqrt(len(centred) - 1) if thin else _root(covariance)
        return cls(statistics.mean, centred, root, covariance.trace(), pull)

    def influence(self, half: Tensor, apart: Tensor) -> Tensor:
        """2 apart . y + y^T (1 - T) y with T = half half^T, through the shrinkage; (N,)."""
        size = self.centred.square().sum(1)
        quadratic = (1 - self.pull) * (size - (self.centred @ half).square().sum(1))
        mean_diagonal = 1 - half.square().sum() / half.shape[0]
        unbiased = len(size) / (len(size) - 1)
        return 2 * (self.centred @ apart) + unbiased * (quadratic + self.pull * mean_diagonal * size)


def _check(first: int, second: int) -> None:
    """Refuse features that don't go together."""
    if first != second:
        raise UserError(f"features of {first} and of {second} numbers don't go together: use one extractor for both")


def _covariance(statistics: Statistics, shrink: bool) -> tuple[Tensor, float]:
    """The covariance, perhaps shrunk, and how far."""
    return statistics.shrunk() if shrink else (statistics.covariance, 0.0)


def _root(covariance: Tensor) -> Tensor:
    """A factor (D, r) of a covariance: its eigenvectors of more than rounding error, times the eigenvalues' roots."""
    values, vectors = torch.linalg.eigh(covariance)
    kept = values > values[-1].clamp(min=0.0) * len(values) * torch.finfo(values.dtype).eps
    root: Tensor = vectors[:, kept] * values[kept].sqrt()
    return root
