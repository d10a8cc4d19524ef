"""Inverse problems: sampling the images that explain a measurement.

Read in this order: `operators` (what a measurement sees), `posterior` (denoisers that know of it), `repaint` (a sampler
that puts the known part in), `exact` (where the true answer is known); `solvers` stands beside them.
"""

from sfumato.diffusion.inverse.exact import DenseOracle, dense, dense_matrix, exact_posterior
from sfumato.diffusion.inverse.operators import (
    LUMA,
    Blur,
    Composed,
    Downscale,
    Function,
    Grayscale,
    LinearOperator,
    Mask,
    gaussian_kernel,
)
from sfumato.diffusion.inverse.posterior import DPS, MomentMatching, PiGDM, PriorSpread
from sfumato.diffusion.inverse.repaint import RePaint

__all__ = [
    "DPS",
    "LUMA",
    "Blur",
    "Composed",
    "DenseOracle",
    "Downscale",
    "Function",
    "Grayscale",
    "LinearOperator",
    "Mask",
    "MomentMatching",
    "PiGDM",
    "PriorSpread",
    "RePaint",
    "dense",
    "dense_matrix",
    "exact_posterior",
    "gaussian_kernel",
]
