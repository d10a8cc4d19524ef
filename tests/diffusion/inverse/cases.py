"""What the tests of inverse problems share: small images, every operator, exact priors."""

from __future__ import annotations

import torch
from torch import Tensor

from sfumato.diffusion.inverse.operators import (
    Blur,
    Composed,
    Downscale,
    Function,
    Grayscale,
    LinearOperator,
    Mask,
    gaussian_kernel,
)
from sfumato.diffusion.oracle import GaussianOracle
from sfumato.diffusion.schedule import Cosine

from ..common import images
from .exact import DenseOracle

SHAPE = (3, 4, 6)
D = 72
SCHEDULE = Cosine()
PIXELS = torch.rand(1, 4, 6, generator=torch.Generator().manual_seed(5)) > 0.4
MIX = images(5, (D,), seed=8)
LOPSIDED = torch.rand(3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(6))

OPERATORS: dict[str, LinearOperator] = {
    "mask": Mask(PIXELS),
    "mask-by-channel": Mask(torch.rand(SHAPE, generator=torch.Generator().manual_seed(7)) > 0.5),
    "grey": Grayscale(),
    "downscale": Downscale(2),
    "blur": Blur(gaussian_kernel(0.7)),
    "blur-lopsided": Blur(LOPSIDED),
    "blur-larger-than-the-image": Blur(gaussian_kernel(1.2)),
    "function": Function(lambda x: x.flatten(1) @ MIX.to(x).T, SHAPE),
    "composed": Composed(Downscale(2), Grayscale()),
    "composed-mask": Composed(Mask(PIXELS), Blur(gaussian_kernel(0.7))),
}

GAUSSIAN = GaussianOracle(SCHEDULE, 0.3 * images(1, SHAPE)[0], 0.05 + 0.2 * images(1, SHAPE, seed=1)[0].square())


def correlated(variance: float = 0.2) -> Tensor:
    """A covariance that falls with the distance between pixels and channels, (D, D)."""
    place = torch.cartesian_prod(*(torch.arange(n, dtype=torch.float64) for n in SHAPE))
    return variance * torch.exp(-torch.cdist(place, place) / 2)


def smooth(*means: Tensor, weights: tuple[float, ...] = (1.0,), variance: float = 0.2) -> DenseOracle:
    """Correlated Gaussians around the given means (one around something if none is given)."""
    stacked = torch.stack([m.flatten() for m in means]) if means else 0.3 * images(1, (D,), seed=2)
    w = torch.tensor(weights, dtype=torch.float64)
    return DenseOracle(SCHEDULE, SHAPE, w, stacked, torch.stack([correlated(variance)] * len(w)))


def measured(operator: LinearOperator, noise_std: float, seed: int = 3) -> Tensor:
    """A measurement of something that is no draw of any prior here."""
    y = operator.forward(0.7 * images(1, SHAPE, seed=seed))
    seen = operator.forward(images(1, SHAPE, seed=seed + 1)) != 0
    return y + noise_std * torch.where(seen, images(1, tuple(y.shape[1:]), seed=seed + 2), 0.0)
