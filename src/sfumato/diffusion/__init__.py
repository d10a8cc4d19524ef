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
    "Bound",
    "ClassifierGuided",
    "Clipped",
    "ConditionalMixtureOracle",
    "Constant",
    "Cosine",
    "Denoiser",
    "Eps",
    "FiniteOracle",
    "Gaussian",
    "GaussianOracle",
    "Guided",
    "Hybrid",
    "ImageGuided",
    "Large",
    "Learned",
    "Level",
    "Linear",
    "MinSNR",
    "MixtureOracle",
    "Mu",
    "NetworkDenoiser",
    "Noise",
    "Noised",
    "Objective",
    "Optimal",
    "Parameterization",
    "Prediction",
    "Purpose",
    "Quadratic",
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
    "discretized_nll",
    "forward_step",
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
