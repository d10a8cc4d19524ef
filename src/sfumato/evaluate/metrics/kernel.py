r"""The kernel Inception distance: maximum mean discrepancy with a cubic kernel (Binkowski et al. 2018, 1801.01401).

    k(x, y) = ( x . y / D + 1 )^3
    MMD^2   = E k(x, x') + E k(y, y') - 2 E k(x, y),    x, x' and y, y' independent

Replacing each mean by one over the pairs of different images gives an estimate without bias: it is 0 on average, and
often negative, where both sets come from one distribution, whatever the number of images. (The name says Inception; any
features will do.)

The images of a set are taken in blocks of at most 2,000, each compared with its counterpart, and the blocks' estimates
are averaged: the cost then grows with N and not with N^2. An image's influence is twice its mean kernel with its own
block less that with the other set's.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sfumato.evaluate.metrics.protocol import MetricValue, check_sets

BLOCK = 2000


def kid(first: Tensor, second: Tensor, block: int = BLOCK) -> MetricValue:
    """Return the unbiased squared maximum mean discrepancy of features (N, D) and (M, D) with the cubic kernel.

    Sets of more than `block` images must be in random order.
    """
    check_sets("kid", first, second, 2)
    count = min(-(-max(len(first), len(second)) // block), min(len(first), len(second)) // 2)
    pairs = zip(first.double().tensor_split(count), second.double().tensor_split(count), strict=True)
    values, ours, theirs = zip(*[_block(x, y) for x, y in pairs], strict=True)
    return MetricValue(sum(values) / count, (torch.cat(ours), torch.cat(theirs)), better="lower")


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    """(x . y / D + 1)^3 of every row x (N, D) with every row y (M, D), (N, M)."""
    return (x @ y.T / x.shape[1] + 1).pow(3)


def _block(x: Tensor, y: Tensor) -> tuple[float, Tensor, Tensor]:
    """The estimate of one block, and the influences within it."""
    across = _kernel(x, y)
    within_x, within_y = _within(x), _within(y)
    value = within_x.mean() + within_y.mean() - 2 * across.mean()
    return float(value), 2 * (within_x - across.mean(1)), 2 * (within_y - across.mean(0))


def _within(x: Tensor) -> Tensor:
    """Each image's mean kernel with the others of its own set, (N,)."""
    kernel = _kernel(x, x)
    return (kernel.sum(1) - kernel.diagonal()) / (len(x) - 1)
