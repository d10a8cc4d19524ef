"""Likelihoods: the bound and the flow, on data whose density is known."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sfumato.diffusion import (
    Discretized,
    Gaussian,
    GaussianOracle,
    Linear,
    MixtureOracle,
    Optimal,
    bound_term,
    marginal,
    prior_term,
    reverse,
    trailing,
)
from sfumato.diffusion.flow import Flow
from sfumato.verify.check import Examination, Finding, Setting

__all__ = ["examinations"]

MEAN, SQUARE = 0.3, 0.16


def examinations() -> dict[str, Examination]:
    """Return this room's examinations by name."""
    return {
        "bound: exact on Gaussian data": bound,
        "decoder: 256 probabilities": decoder,
        "flow: density": density,
    }


def _nodes(setting: Setting) -> tuple[Tensor, Tensor, Tensor]:
    """(x_0, eps) at three Gauss-Hermite nodes each and their weights: exact for what is quadratic in both."""
    z, weight = setting.tensor([-math.sqrt(3), 0.0, math.sqrt(3)]), setting.tensor([1 / 6, 2 / 3, 1 / 6])
    x_0, eps = torch.meshgrid(MEAN + math.sqrt(SQUARE) * z, z, indexing="ij")
    return x_0.reshape(-1, 1), eps.reshape(-1, 1), (weight[:, None] * weight).reshape(-1)


def bound(setting: Setting) -> Finding:
    """E[bound] - entropy of Gaussian data with the oracle's mean and variance, against KL( q(x_T) || N(0, I) )."""
    schedule, worst = Linear(), 0.0
    oracle = GaussianOracle(schedule, setting.tensor([MEAN]), setting.tensor([SQUARE]))
    x_0, eps, weight = _nodes(setting)
    variance = Optimal(oracle.posterior_variance)
    abar = float(schedule(1.0).abar)
    spread = abar * SQUARE + 1 - abar
    gap = 0.5 * (spread + abar * MEAN**2 - 1 - math.log(spread))
    entropy = 0.5 * math.log(2 * math.pi * math.e * SQUARE)
    for count in (10, 100):
        times = trailing(count, schedule).tolist()
        levels = [schedule(t) for t in times]
        total = (weight * prior_term(x_0, levels[0])[:, 0]).sum()
        for i in range(count):
            x_t = marginal(x_0, levels[i]).sample(eps)
            prediction, before = oracle(x_t, times[i]), levels[max(i - 1, 0)]
            if i < count - 1:
                term = bound_term(prediction, x_0, x_t, levels[i + 1], levels[i], before, variance)
            else:  # a density in the place of the bins of 8-bit values
                term = -reverse(prediction, x_t, levels[i + 1], levels[i], variance, before).log_prob(x_0)
            total = total + (weight * term[:, 0]).sum()
        worst = max(worst, abs(float(total) - entropy - gap))
    return Finding(
        worst,
        setting.limit(1e-9, 2e-4),
        "with the true denoiser the bound misses the likelihood by KL( q(x_T) || N(0, I) ) alone, in nats",
        "bits per dimension are not what they are called, and a learned variance is trained towards something else",
    )


def decoder(setting: Setting) -> Finding:
    """The masses of all 256 values under one Gaussian, wide and narrow, inside and at the edge, against 1."""
    values = setting.tensor([[2 * k / 255 - 1] for k in range(256)])
    worst = 0.0
    for mean, std in ((0.0, 0.3), (0.77, 0.01), (-1.0, 0.1), (1.2, 1.0)):
        gaussian = Gaussian(torch.full_like(values, mean), setting.tensor(2 * math.log(std)))
        mass = (-Discretized()(gaussian, values)).exp().double().sum()
        worst = max(worst, abs(float(mass) - 1))
    return Finding(
        worst,
        setting.limit(1e-9, 1e-3),
        "the last step shares out exactly one among the 256 values of a pixel",
        "bits per dimension count a distribution that does not sum to one, and can't be compared with anyone's",
    )


def density(setting: Setting) -> Finding:
    """The flow's log density of mixture data, its prior put right, against the mixture's own, in nats."""
    generator = torch.Generator().manual_seed(4)
    means, x = (torch.randn(n, 2, 2, generator=generator, dtype=torch.float64) for n in (2, 4))
    oracle = MixtureOracle(Linear(), torch.tensor([1.0, 2.0]), means, torch.full((2, 1, 1), 0.2, dtype=torch.float64))
    tolerance = setting.limit(1e-6, 1e-4)
    got = Flow(oracle, tolerance, tolerance).log_prob(setting.tensor(x), None)
    latent = got.latent.double()
    standard = (-0.5 * (latent.square() + math.log(2 * math.pi))).flatten(1).sum(1)
    error = got.log_prob - standard + oracle.log_prob(latent, 1.0) - oracle.log_prob(x.to(setting.device), 1e-3)
    return Finding(
        float(error.abs().max()),
        setting.limit(1e-3, 2e-2),
        "the probability-flow ODE gives the analytic density",
        "likelihoods by the flow are off, and so is the comparison with the bound",
    )
