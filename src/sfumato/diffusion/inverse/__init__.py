"""Inverse problems: sampling the images that explain a measurement.

Read in this order: `operators` (what a measurement sees), `posterior` (denoisers that know of it), `repaint` (a sampler
that puts the known part in); `solvers` stands beside them.
"""

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
from sfumato.diffusion.inverse.posterior import DPS, MomentMatching, PiGDM, PriorVariance
from sfumato.diffusion.inverse.repaint import RePaint

__all__ = [
    "DPS",
    "LUMA",
    "Blur",
    "Composed",
    "Downscale",
    "Function",
    "Grayscale",
    "LinearOperator",
    "Mask",
    "MomentMatching",
    "PiGDM",
    "PriorVariance",
    "RePaint",
    "gaussian_kernel",
]
