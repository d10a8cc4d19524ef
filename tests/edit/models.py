"""Models whose edits are known: an exact denoiser in the place of a network."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from sfumato.diffusion import Cosine, GaussianOracle

from ..diffusion.inverse.exact import DenseOracle

CHAIN = 1000


@dataclass(frozen=True)
class Known:
    """As much of a `Model` as edits use."""

    denoiser: Any
    shape: tuple[int, int, int]
    net: torch.nn.Module = field(default_factory=lambda: torch.nn.Linear(1, 1))


def white(shape: tuple[int, int, int] = (2, 4, 4), mean: float = 0.2, variance: float = 0.3) -> Known:
    """Independent coordinates, all N(mean, variance)."""
    return Known(GaussianOracle(Cosine(CHAIN), torch.full(shape, mean), torch.full(shape, variance)), shape)


def linked(shape: tuple[int, int, int], seed: int = 0) -> tuple[Known, torch.Tensor, torch.Tensor]:
    """Coordinates that depend on one another: the model, its mean (d,) and its covariance (d, d), float64."""
    d = shape[0] * shape[1] * shape[2]
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(d, d, dtype=torch.float64, generator=generator) / d**0.5
    covariance = 0.2 * (root @ root.T + 0.3 * torch.eye(d, dtype=torch.float64))
    mean = 0.3 * torch.randn(d, dtype=torch.float64, generator=generator)
    oracle = DenseOracle(Cosine(CHAIN), shape, torch.ones(1), mean[None], covariance[None])
    return Known(oracle, shape), mean, covariance


def image(shape: tuple[int, int, int], seed: int = 3) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 1.6 - 0.8
