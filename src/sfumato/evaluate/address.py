"""Random numbers of a measurement, by address.

`diffusion.noise` keeps uses apart by a purpose, of which it knows those of training and sampling. Here each use has a
seed of its own instead, the first eight bytes of SHA-256("evaluate USE SEED"), so that no draw of a measurement meets
one of a sample, and a measurement repeated is the same number.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from sfumato.diffusion.noise import Purpose, normal, permutation, uniform

__all__ = ["directions", "order", "resamples"]


def _seed(use: str, seed: int) -> int:
    """A seed in [0, 2^64) for one use of a measurement's seed."""
    return int.from_bytes(hashlib.sha256(f"evaluate {use} {seed}".encode()).digest()[:8], "big")


def order(seed: int, use: str, count: int) -> Tensor:
    """Return a random order of 0 .. count - 1, (count,) int64."""
    return permutation(_seed(use, seed), Purpose.ORDER, count)


def resamples(seed: int, replicates: Tensor, count: int, group: int) -> Tensor:
    """Return draws with replacement from `count` things, for the bootstrap.

    Args:
        seed: of the measurement.
        replicates: (R,) int64, which replicates.
        count: how many things there are, and how many are drawn.
        group: independent samples draw apart.

    Returns:
        (R, count) int64 in 0 .. count - 1.
    """
    u = uniform(_seed("bootstrap", seed), Purpose.ORDER, replicates, (count,), step=group)
    return u.mul_(count).long()


def directions(seed: int, count: int, dim: int) -> Tensor:
    """Return unit vectors, uniform on the sphere: (count, dim) float64."""
    z = normal(_seed("directions", seed), Purpose.ORDER, torch.arange(count), (dim,), dtype=torch.float64)
    return z / z.square().sum(1, keepdim=True).sqrt()
