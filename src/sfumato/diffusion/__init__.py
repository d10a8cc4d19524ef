"""The mathematics of denoising diffusion: imports torch and nothing else.

Read in this order: `schedule` (levels), `gaussian`, `process` (forward, posterior, reverse), `parameterization`,
`variance`, `denoiser`, `objective`, `samplers`; `noise` (addressed random numbers), `grid` (which times), `oracle`
(exact denoisers) stand beside them.
"""

from .denoiser import Clipped, Denoiser, NetworkDenoiser, Prediction
from .gaussian import Gaussian
from .grid import GRIDS, leading, trailing, uniform
from .noise import Noise, Purpose
from .objective import Simple, Terms, times
from .oracle import FiniteOracle, GaussianOracle, MixtureOracle
from .parameterization import PARAMETERIZATIONS, X0, Eps, Mu, Parameterization, V, solve, target
from .process import forward_step, marginal, posterior, reverse
from .samplers import DDIM, SAMPLERS, Ancestral, Sampler, State, sample, trajectory
from .schedule import (
    SCHEDULES,
    Constant,
    Cosine,
    Level,
    Linear,
    Quadratic,
    Schedule,
    Shifted,
    Sigmoid,
    ZeroTerminalSNR,
    resolution_shift,
)
from .variance import VARIANCES, Large, Small, Variance

__all__ = [
    "DDIM",
    "GRIDS",
    "PARAMETERIZATIONS",
    "SAMPLERS",
    "SCHEDULES",
    "VARIANCES",
    "X0",
    "Ancestral",
    "Clipped",
    "Constant",
    "Cosine",
    "Denoiser",
    "Eps",
    "FiniteOracle",
    "Gaussian",
    "GaussianOracle",
    "Large",
    "Level",
    "Linear",
    "MixtureOracle",
    "Mu",
    "NetworkDenoiser",
    "Noise",
    "Parameterization",
    "Prediction",
    "Purpose",
    "Quadratic",
    "Sampler",
    "Schedule",
    "Shifted",
    "Sigmoid",
    "Simple",
    "Small",
    "State",
    "Terms",
    "V",
    "Variance",
    "ZeroTerminalSNR",
    "forward_step",
    "leading",
    "marginal",
    "posterior",
    "resolution_shift",
    "reverse",
    "sample",
    "solve",
    "target",
    "times",
    "trailing",
    "trajectory",
    "uniform",
]
