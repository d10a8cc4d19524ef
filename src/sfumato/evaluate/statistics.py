r"""Mean and covariance of features, gathered piece by piece.

What is kept are plain sums in float64,

    N,    sum x,    sum x x^T

so that two parts of a set merge by addition, in any order and on any number of machines, and a set need never be in
memory at once. Then

    mean = sum x / N,    covariance = ( sum x x^T - N mean mean^T ) / (N - 1)

The difference loses digits where a feature's mean is far above its deviation: a relative error of about 1e-16 (mean /
deviation)^2, of no consequence for features of any usual network.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.errors import UserError
from sfumato.evaluate.features import check_finite

__all__ = ["Statistics"]


@dataclass(frozen=True, eq=False)
class Statistics:
    """Sums over features; `a + b` are those of both sets together.

    Attributes:
        count: N.
        total: (D,) float64, sum x.
        moment: (D, D) float64, sum x x^T.
    """

    count: int
    total: Tensor
    moment: Tensor

    @classmethod
    def of(cls, features: Tensor, name: str = "the extractor") -> Statistics:
        """Return the sums over one piece.

        Args:
            features: (N, D).
            name: of the extractor, for the message.

        Raises:
            UserError: a feature is not finite.
        """
        check_finite(features, name)
        x = features.double()
        return cls(len(x), x.sum(0), x.T @ x)

    @classmethod
    def gather(cls, pieces: Iterable[Tensor], name: str = "the extractor") -> Statistics:
        """Return the sums over pieces (n, D), at least one; arguments and raises as `of`."""
        found: Statistics | None = None
        for piece in pieces:
            part = cls.of(piece, name)
            found = part if found is None else found + part
        if found is None:
            raise UserError(f"there are no features of {name} to take statistics of: give at least two images")
        return found

    @classmethod
    def from_moments(cls, count: int, mean: Tensor, covariance: Tensor) -> Statistics:
        """Return the sums that have a mean (D,) and an unbiased covariance (D, D), such as published ones."""
        mean, covariance = mean.double(), covariance.double()
        return cls(count, count * mean, (count - 1) * covariance + count * torch.outer(mean, mean))

    def __add__(self, other: Statistics) -> Statistics:
        if self.dim != other.dim:
            raise UserError(f"features of {self.dim} and of {other.dim} numbers don't go together: use one extractor")
        return Statistics(self.count + other.count, self.total + other.total, self.moment + other.moment)

    @property
    def dim(self) -> int:
        """D."""
        return len(self.total)

    @property
    def mean(self) -> Tensor:
        """(D,) float64."""
        return self.total / self.count

    @property
    def covariance(self) -> Tensor:
        """The unbiased covariance, (D, D) float64, symmetric to the bit.

        Raises:
            UserError: there are fewer than two images.
        """
        if self.count < 2:
            raise UserError(f"{self.count} image has no spread to measure: give at least two")
        spread = self.moment - torch.outer(self.total, self.total) / self.count
        return (spread + spread.T) / (2 * (self.count - 1))

    def shrunk(self) -> tuple[Tensor, float]:
        """Return the covariance drawn towards a multiple of the identity, and how far (0 not at all, 1 all the way).

        S* = (1 - rho) S + rho tr(S)/D I with the oracle-approximating rho (Chen, Wiesel, Eldar and Hero 2010,
        "Shrinkage algorithms for MMSE covariance estimation", Eq. 23): of full rank where N is below D.
        """
        covariance, dim = self.covariance, self.dim
        trace, square = covariance.trace(), covariance.square().sum()
        above = (1 - 2 / dim) * square + trace.square()
        below = (self.count + 1 - 2 / dim) * (square - trace.square() / dim)
        rho = float((above / below).clamp(max=1.0)) if below > 0 else 1.0
        return (1 - rho) * covariance + rho * trace / dim * torch.eye(dim, dtype=torch.float64), rho
