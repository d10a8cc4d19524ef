"""Models whose edits are known: an exact denoiser in the place of a network, its x_0 pixels or Haar coefficients."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch

from sfumato.codec.format import EIGHT
from sfumato.codec.pixels import Pixels
from sfumato.codec.protocol import Codec
from sfumato.diffusion import Cosine, GaussianOracle

from ..codec.haar import Haar
from ..diffusion.inverse.exact import DenseOracle

CHAIN = 1000
CONFIG = SimpleNamespace(diffusion=SimpleNamespace(variance="small", parameterization="v"))


@dataclass(frozen=True)
class Known:
    """As much of a `Model` as edits use."""

    denoiser: Any
    codec: Codec
    config = CONFIG
    vocabulary = None
    device = torch.device("cpu")

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.codec.shape

    @property
    def schedule(self) -> Any:
        return self.denoiser.schedule


def codec_of(shape: tuple[int, int, int], haar: bool = False) -> Codec:
    pixels = Pixels(EIGHT, shape)
    return Haar(pixels) if haar else pixels


def white(
    shape: tuple[int, int, int] = (2, 4, 4), mean: float = 0.2, variance: float = 0.3, haar: bool = False
) -> Known:
    """Independent pixels, all N(mean, variance); so are their Haar coefficients, of another mean."""
    codec = codec_of(shape, haar)
    x = codec.from_pixels(torch.full((1, *shape), mean))[0]
    return Known(GaussianOracle(Cosine(CHAIN), x, torch.full_like(x, variance)), codec)


def linked(shape: tuple[int, int, int], seed: int = 0, haar: bool = False) -> tuple[Known, torch.Tensor, torch.Tensor]:
    """Pixels that depend on one another: the model, their mean (d,) and their covariance (d, d), float64."""
    d, codec = shape[0] * shape[1] * shape[2], codec_of(shape, haar)
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(d, d, dtype=torch.float64, generator=generator) / d**0.5
    covariance = 0.2 * (root @ root.T + 0.3 * torch.eye(d, dtype=torch.float64))
    mean = 0.3 * torch.randn(d, dtype=torch.float64, generator=generator)
    T = codec.from_pixels(torch.eye(d, dtype=torch.float64).reshape(d, *shape)).flatten(1).T
    oracle = DenseOracle(Cosine(CHAIN), codec.shape, torch.ones(1), (T @ mean)[None], (T @ covariance @ T.T)[None])
    return Known(oracle, codec), mean, covariance


def image(shape: tuple[int, int, int], seed: int = 3) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 1.6 - 0.8
