"""The mathematics of denoising diffusion: imports torch and nothing else.

Read in this order: `schedule` (levels), `gaussian`, `process` (forward, posterior), `prediction`, `parameterization`,
`variance`, `reverse`, `denoiser`, `guidance`, `likelihood`, `weighting`, `objective`, `samplers`; `noise` (addressed
random numbers), `grid` (which times), `oracle` (exact denoisers), `flow` (the ODE's likelihood), `analytic` (measured
variances) and `importance` (which t to train on) stand beside them.
"""

from .denoiser import Clipped, Denoiser, NetworkDenoiser, Thresholded
from .gaussian import Gaussian
from .grid import GRIDS, leading, trailing, uniform
from .guidance import AutoGuided, ClassifierGuided, Guided, ImageGuided
from .inverse import (
    DPS,
    Blur,
    Composed,
    DenseOracle,
    Downscale,
    Function,
    Grayscale,
    LinearOperator,
    Mask,
    MomentMatching,
    PiGDM,
    PriorSpread,
    RePaint,
    dense_matrix,
    exact_posterior,
    gaussian_kernel,
)
from .likelihood import VLB, bits_per_dim, bound_term, discretized_nll, prior_term, vlb
from .noise import Noise, Purpose
from .objective import Bound, Hybrid, Noised, Objective, Simple, Terms, Weighted, score, times
from .oracle import ConditionalMixtureOracle, FiniteOracle, GaussianOracle, MixtureOracle
from .parameterization import PARAMETERIZATIONS, X0, Eps, Mu, Parameterization, V, solve, target
from .prediction import Prediction
from .process import forward_step, marginal, posterior
from .reverse import reverse
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
from .variance import VARIANCES, Large, Learned, Optimal, Small, Variance
from .weighting import P2, WEIGHTINGS, MinSNR, SigmoidWeight, Weighting

__all__ = [
    "DDIM",
    "DPS",
    "GRIDS",
    "P2",
    "PARAMETERIZATIONS",
    "SAMPLERS",
    "SCHEDULES",
    "VARIANCES",
    "VLB",
    "WEIGHTINGS",
    "X0",
    "Ancestral",
    "AutoGuided",
    "Blur",
    "Bound",
    "ClassifierGuided",
    "Clipped",
    "Composed",
    "ConditionalMixtureOracle",
    "Constant",
    "Cosine",
    "Denoiser",
    "DenseOracle",
    "Downscale",
    "Eps",
    "FiniteOracle",
    "Function",
    "Gaussian",
    "GaussianOracle",
    "Grayscale",
    "Guided",
    "Hybrid",
    "ImageGuided",
    "Large",
    "Learned",
    "Level",
    "Linear",
    "LinearOperator",
    "Mask",
    "MinSNR",
    "MixtureOracle",
    "MomentMatching",
    "Mu",
    "NetworkDenoiser",
    "Noise",
    "Noised",
    "Objective",
    "Optimal",
    "Parameterization",
    "PiGDM",
    "Prediction",
    "PriorSpread",
    "Purpose",
    "Quadratic",
    "RePaint",
    "Sampler",
    "Schedule",
    "Shifted",
    "Sigmoid",
    "SigmoidWeight",
    "Simple",
    "Small",
    "State",
    "Terms",
    "Thresholded",
    "V",
    "Variance",
    "Weighted",
    "Weighting",
    "ZeroTerminalSNR",
    "bits_per_dim",
    "bound_term",
    "dense_matrix",
    "discretized_nll",
    "exact_posterior",
    "forward_step",
    "gaussian_kernel",
    "leading",
    "marginal",
    "posterior",
    "prior_term",
    "resolution_shift",
    "reverse",
    "sample",
    "score",
    "solve",
    "target",
    "times",
    "trailing",
    "trajectory",
    "uniform",
    "vlb",
]
