"""Exact nearest neighbours by Euclidean distance, computed in pieces."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

_ROWS = 2048


def nearest(queries: Any, base: Any, k: int, itself: bool = False) -> tuple[Tensor, Tensor]:
    """Return the distances (N, k) of queries (N, D) to their nearest neighbours in a base (M, D), and its rows (N, k).

    Everything is in float64, so the distances of bytes are exact and a copy is at distance 0. The base may be a memory
    map; it is read in pieces. With `itself` the queries are the base, and a row is not its own neighbour.
    """
    assert k <= len(base) - itself, f"{k} neighbours among {len(base)}"
    parts = [_nearest(x, base, k, first if itself else None) for first, x in pieces(queries)]
    return torch.cat([distances for distances, _ in parts]), torch.cat([rows for _, rows in parts])


def pieces(rows: Any) -> Iterator[tuple[int, Tensor]]:
    """Yield pieces of a matrix, as float64, each with the number of its first row."""
    for first in range(0, len(rows), _ROWS):
        yield first, torch.as_tensor(rows[first : first + _ROWS]).double()


def square_distances(x: Tensor, y: Tensor) -> Tensor:
    """Return the squared distances of every row x (N, D) to every row y (M, D): (N, M)."""
    return (x.square().sum(1)[:, None] + y.square().sum(1) - 2 * x @ y.T).clamp(min=0.0)


def _nearest(x: Tensor, base: Any, k: int, first: int | None) -> tuple[Tensor, Tensor]:
    """The k nearest rows of the base to each of one piece; `first` is the row of x[0] where x is of the base."""
    best, rows = x.new_full((len(x), k), torch.inf), torch.zeros(len(x), k, dtype=torch.int64)
    for start, y in pieces(base):
        square = square_distances(x, y)
        if first is not None:
            mine = torch.arange(first, first + len(x))[:, None] == torch.arange(start, start + len(y))
            square = square.masked_fill(mine, torch.inf)
        best, chosen = torch.cat((best, square), 1).topk(k, largest=False)
        all_rows = torch.cat((rows, torch.arange(start, start + len(y)).expand(len(x), -1)), 1)
        rows = all_rows.gather(1, chosen)
    return best.sqrt(), rows
