r"""Nearest neighbours, and the measures that are made of them.

Precision and recall (Kynkaanniemi et al. 2019, arXiv 1904.06991) put a ball around every image that reaches to its k-th
nearest neighbour within its own set. A generated image is precise if it lies in some real image's ball (it looks real);
a real image is recalled if it lies in some generated image's ball (it could have been drawn). One outlier's large ball
takes in everything near, so density and coverage (Naeem et al. 2020, arXiv 2002.09797) count the balls instead, and use
real balls only:

    precision = mean over generated x of 1[ x in some real ball ]
    recall    = mean over real y      of 1[ y in some generated ball ]
    density   = mean over generated x of (real balls that hold x) / k         (about 1 where both sets are alike)
    coverage  = mean over real y      of 1[ y's ball holds a generated image ]

Each image's influence is that of being counted and that of counting others, its ball's radius held fixed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from sfumato.errors import UserError
from sfumato.evaluate.bootstrap import Linearised

__all__ = ["K", "nearest", "neighbourhoods"]

K = 5
"""How many neighbours a ball holds (Naeem et al.'s choice)."""
_ROWS = 2048


def nearest(queries: Any, base: Any, k: int, itself: bool = False) -> tuple[Tensor, Tensor]:
    """Return each query's k nearest neighbours by Euclidean distance.

    Everything is in float64, so the distances of bytes are exact and a copy is at distance 0.

    Args:
        queries: (N, D), an array or a tensor of any numbers.
        base: (M, D), likewise, perhaps a memory map; read in pieces.
        k: how many, at most M.
        itself: the queries are the base, and none is its own neighbour; k is then at most M - 1.

    Returns:
        Distances (N, k) float64, ascending, and the rows of the base, (N, k) int64.
    """
    assert k <= len(base) - itself, f"{k} neighbours among {len(base)}"
    found = [_nearest(x, base, k, first if itself else None) for first, x in _pieces(queries)]
    return torch.cat([d for d, _ in found]), torch.cat([rows for _, rows in found])


def neighbourhoods(real: Tensor, generated: Tensor, k: int = K) -> dict[str, Linearised]:
    """Return precision, recall, density and coverage.

    Args:
        real: (N, D) features.
        generated: (M, D) features.
        k: neighbours that a ball holds.

    Raises:
        UserError: a set of no more than k images.
    """
    if min(len(real), len(generated)) <= k:
        raise UserError(
            f"precision, recall, density and coverage look at {k} neighbours and need more images than that: "
            f"there are {len(real)} real and {len(generated)} generated"
        )
    real_radius = nearest(real, real, k, itself=True)[0][:, -1]
    generated_radius = nearest(generated, generated, k, itself=True)[0][:, -1]
    precise, recalled, covered = _Held(len(generated)), _Held(len(real)), _Held(len(real))
    balls = torch.zeros(len(real), dtype=torch.float64)
    for row, x in _pieces(real):
        for column, y in _pieces(generated):
            distance = _squares(x, y).sqrt()
            inside = distance <= real_radius[row : row + len(x), None]
            balls[row : row + len(x)] += inside.sum(1)
            precise.add(column, inside.T, row)
            covered.add(row, inside, column)
            recalled.add(row, distance <= generated_radius[column : column + len(y)], column)
    density = precise.count / k
    return {
        "precision": precise.share(len(real)),
        "recall": recalled.share(len(generated)),
        "density": Linearised(float(density.mean()), (density, balls * len(real) / (k * len(generated))), least=0.0),
        "coverage": covered.share(len(generated)),
    }


class _Held:
    """For each of N things, how many of M others hold it, and which one where it is one alone."""

    def __init__(self, count: int) -> None:
        self.count, self.holders = torch.zeros(count, dtype=torch.float64), torch.zeros(count, dtype=torch.float64)

    def add(self, first: int, held: Tensor, first_holder: int) -> None:
        """Take in a piece (n, m) of the N x M table of who holds whom, which begins at the given row and column."""
        rows, table = slice(first, first + len(held)), held.double()
        self.count[rows] += table.sum(1)
        self.holders[rows] += table @ torch.arange(first_holder, first_holder + held.shape[1]).double()

    def share(self, others: int) -> Linearised:
        """Return the share of things that are held at all.

        A thing's influence is whether it is held; that of one of the M others is what the share would lose without it,
        M times over (the jackknife): the things that it alone holds.
        """
        held = (self.count > 0).double()
        alone = torch.bincount(self.holders[self.count == 1].long(), minlength=others)
        return Linearised(float(held.mean()), (held, alone * (others / len(held))), least=0.0, most=1.0)


def _pieces(rows: Any) -> Iterator[tuple[int, Tensor]]:
    """Pieces of a matrix, as float64, each with the number of its first row."""
    for first in range(0, len(rows), _ROWS):
        yield first, torch.as_tensor(rows[first : first + _ROWS]).double()


def _squares(x: Tensor, y: Tensor) -> Tensor:
    """Squared distances of every row to every row, (N, M)."""
    return (x.square().sum(1)[:, None] + y.square().sum(1) - 2 * x @ y.T).clamp(min=0.0)


def _nearest(x: Tensor, base: Any, k: int, first: int | None) -> tuple[Tensor, Tensor]:
    """The k nearest rows of the base to each of one piece; `first` is the row of x[0] where x is of the base."""
    best, rows = x.new_full((len(x), k), torch.inf), torch.zeros(len(x), k, dtype=torch.int64)
    for start, y in _pieces(base):
        square = _squares(x, y)
        if first is not None:
            mine = torch.arange(first, first + len(x))[:, None] == torch.arange(start, start + len(y))
            square = square.masked_fill(mine, torch.inf)
        best, chosen = torch.cat((best, square), 1).topk(k, largest=False)
        all_rows = torch.cat((rows, torch.arange(start, start + len(y)).expand(len(x), -1)), 1)
        rows = all_rows.gather(1, chosen)
    return best.sqrt(), rows
