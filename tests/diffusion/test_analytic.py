"""Analytic-DPM: the measured spread is the oracle's, and the variance is the true one."""

from __future__ import annotations

import pytest
import torch

from sfumato.diffusion import (
    Ancestral,
    Cosine,
    GaussianOracle,
    Large,
    Linear,
    Noise,
    Optimal,
    Prediction,
    Small,
    trailing,
    trajectory,
)
from sfumato.diffusion.variance import MeasuredVariance, noise_errors

from .common import images

TIMES = torch.arange(1, 101, dtype=torch.float64) / 100


@pytest.mark.parametrize("schedule", [Linear(num_steps=100), Cosine(num_steps=100)])
def test_the_measured_spread_is_the_oracles(schedule) -> None:
    square, n = 0.2, 6000
    oracle = GaussianOracle(schedule, torch.zeros(1, 2, 2).double(), torch.full((1, 2, 2), square).double())
    x_0 = square**0.5 * images(n, (1, 2, 2), seed=1)
    error = noise_errors(oracle, x_0, TIMES, Noise(0, torch.arange(n), (1, 2, 2), torch.float64)).mean(0)
    spread = MeasuredVariance(schedule, TIMES, error)
    for t in (0.05, 0.3, 0.505, 0.7):
        truth = float(oracle.posterior_variance(schedule(t)).mean())
        assert float(spread(schedule(t))) == pytest.approx(truth, rel=0.05)
    batch = spread(schedule(torch.tensor([0.3, 0.7])))
    assert batch.shape == (2, 1, 1, 1)
    assert 0 <= float(spread(schedule(1.0))) <= 1


def test_few_steps_reach_the_variance_that_fixed_ones_miss() -> None:
    """With the optimal variance ancestral sampling of Gaussian data is exact in any number of steps."""
    schedule, n = Cosine(), 40_000
    oracle = GaussianOracle(schedule, torch.zeros(1).double(), torch.full((1,), 0.09).double())
    noise = Noise(3, torch.arange(n), (1,), torch.float64)
    level, got = schedule(0.125), {}
    for rule in (Optimal(oracle.posterior_variance), Small(), Large()):
        before_last = list(trajectory(oracle, Ancestral(rule), trailing(8, schedule), noise))[-2]
        assert before_last.t == 0.125
        got[type(rule).__name__] = float(before_last.x.var() / (level.abar * 0.09 + level.sigma.square()))
    assert got["Optimal"] == pytest.approx(1.0, abs=5 * (2 / n) ** 0.5)
    assert got["Small"] < 0.8
    assert got["Large"] > 1.1


def test_the_optimal_variance_lies_between_the_bounds() -> None:
    schedule, x = Linear(), images()
    for square in (1e-4, 0.2, 1.0):
        oracle = GaussianOracle(schedule, torch.zeros(2, 3, 5).double(), torch.full((2, 3, 5), square).double())
        for s, t in ((0.1, 0.2), (0.5, 0.9)):
            rules = (Small(), Optimal(oracle.posterior_variance), Large())
            low, best, high = (float(rule.logvar(schedule(s), schedule(t), Prediction(x, x)).mean()) for rule in rules)
            assert low <= best <= high + 1e-12
