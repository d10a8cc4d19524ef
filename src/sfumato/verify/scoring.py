"""Likelihoods: the bound and the flow, on data whose density is known."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sfumato.diffusion.decoder import Discretized, density
from sfumato.diffusion.flow import Flow
from sfumato.diffusion.gaussian import Gaussian
from sfumato.diffusion.grid import trailing
from sfumato.diffusion.likelihood import bound_term, prior_term
from sfumato.diffusion.oracle import GaussianOracle, MixtureOracle
from sfumato.diffusion.process import marginal
from sfumato.diffusion.schedule import Linear
from sfumato.diffusion.variance import Optimal
from sfumato.verify.check import Errors, Examinations, Setting

EXAMINATIONS = Examinations()

MEAN, SQUARE = 0.3, 0.16


def _nodes(setting: Setting) -> tuple[Tensor, Tensor, Tensor]:
    """(x_0, eps) at three Gauss-Hermite nodes each and their weights: exact for what is quadratic in both."""
    z, weight = setting.tensor([-math.sqrt(3), 0.0, math.sqrt(3)]), setting.tensor([1 / 6, 2 / 3, 1 / 6])
    x_0, eps = torch.meshgrid(MEAN + math.sqrt(SQUARE) * z, z, indexing="ij")
    return x_0.reshape(-1, 1), eps.reshape(-1, 1), (weight[:, None] * weight).reshape(-1)


@EXAMINATIONS.add(
    "bound: exact on Gaussian data",
    (1e-9, 2e-4),
    "with the true denoiser the bound exceeds -log likelihood by KL( q(x_T) || N(0, I) ) only, in nats",
    "bits per dimension are wrong, and a learned variance is trained towards a wrong target",
)
def bound(setting: Setting) -> Errors:
    """E[bound] - entropy of Gaussian data with the oracle's mean and variance, against KL( q(x_T) || N(0, I) )."""
    schedule, misses = Linear(), []
    oracle = GaussianOracle(schedule, setting.tensor([MEAN]), setting.tensor([SQUARE]))
    x_0, eps, weight = _nodes(setting)
    abar = float(schedule(1.0).abar)
    noised = abar * SQUARE + 1 - abar
    gap = 0.5 * (noised + abar * MEAN**2 - 1 - math.log(noised))
    entropy = 0.5 * math.log(2 * math.pi * math.e * SQUARE)
    for count in (10, 100):
        times = trailing(count, schedule).tolist()
        levels = [schedule(t) for t in times]
        total = (weight * prior_term(x_0, levels[0])[:, 0]).sum()
        for i in range(count):
            x_t = marginal(x_0, levels[i]).sample(eps)
            chain = levels[i + 1], levels[i], levels[max(i - 1, 0)]
            term = bound_term(oracle(x_t, times[i]), x_0, x_t, *chain, Optimal(oracle.posterior_variance), density)
            total = total + (weight * term[:, 0]).sum()
        misses.append(total - entropy - gap)
    return misses


@EXAMINATIONS.add(
    "decoder: 256 probabilities",
    (1e-9, 1e-3),
    "the last step distributes exactly one among the 256 values of a pixel",
    "bits per dimension are of a distribution that does not sum to one, and cannot be compared with other results",
)
def decoder(setting: Setting) -> Errors:
    """The masses of all 256 values under one Gaussian, wide and narrow, inside and at the edge, against 1."""
    values, misses = setting.tensor([[2 * k / 255 - 1] for k in range(256)]), []
    for mean, std in ((0.0, 0.3), (0.77, 0.01), (-1.0, 0.1), (1.2, 1.0)):
        gaussian = Gaussian(torch.full_like(values, mean), setting.tensor(2 * math.log(std)))
        misses.append((-Discretized()(gaussian, values)).exp().double().sum() - 1)
    return misses


@EXAMINATIONS.add(
    "flow: density",
    (1e-3, 2e-2),
    "the probability-flow ODE gives the analytic density",
    "likelihoods by the flow are off, and so is the comparison with the bound",
)
def flow_density(setting: Setting) -> Errors:
    """The flow's log density of mixture data, with the exact prior, against the mixture's own, in nats."""
    generator = torch.Generator().manual_seed(4)
    means, x = (torch.randn(n, 2, 2, generator=generator, dtype=torch.float64) for n in (2, 4))
    oracle = MixtureOracle(Linear(), torch.tensor([1.0, 2.0]), means, torch.full((2, 1, 1), 0.2, dtype=torch.float64))
    tolerance = 1e-6 if setting.dtype == torch.float64 else 1e-4
    result = Flow(oracle, tolerance, tolerance).log_prob(setting.tensor(x), None)
    latent = result.latent.double()
    standard = (-0.5 * (latent.square() + math.log(2 * math.pi))).flatten(1).sum(1)
    exact = oracle.log_prob(x.to(setting.device), 1e-3)
    return [result.log_prob - standard + oracle.log_prob(latent, 1.0) - exact]
