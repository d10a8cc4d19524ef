"""Dropout whose mask belongs to an image's row in its batch, not to the part of the batch that is computed at once.

A batch may be computed in parts: by several processes, or one after the other where memory is short. Inside
`part_of_batch` every part draws the mask of the whole batch, from a generator that is seeded alike, and takes its own
rows. So a batch has the same masks in one part and in many, bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor

_part: tuple[int, int] | None = None
"""The first row of the part that is being computed, and the rows of its batch."""


@contextmanager
def part_of_batch(first: int, total: int) -> Iterator[None]:
    """Compute the rows from `first` on of a batch of `total` in this block."""
    global _part
    before, _part = _part, (first, total)
    try:
        yield
    finally:
        _part = before


def dropout(x: Tensor, probability: float, training: bool) -> Tensor:
    """Set elements of x (B, ...) to 0 with a probability while training, and divide the others by 1 - probability."""
    if not training or probability == 0 or _part is None or len(x) == _part[1]:
        return F.dropout(x, probability, training)
    first, total = _part
    # torch fills a mask in the order of memory, so the whole batch's needs x's layout
    dense = torch.channels_last if x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last) else None
    ones = torch.ones((total, *x.shape[1:]), dtype=x.dtype, device=x.device)
    whole = F.dropout(ones.contiguous(memory_format=dense) if dense is not None else ones, probability, training)
    return x * whole[first : first + len(x)]
