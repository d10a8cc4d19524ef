"""Oracles: against numerical integration, Tweedie's formula, and one another."""

from __future__ import annotations

import pytest
import torch

from sfumato.diffusion import Cosine, FiniteOracle, GaussianOracle, Linear, MixtureOracle, marginal

from .common import images

SCHEDULE = Cosine()
WEIGHTS = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
MEANS = torch.tensor([[-0.8], [0.1], [0.9]], dtype=torch.float64)
VARIANCES = torch.tensor([[0.01], [0.05], [0.002]], dtype=torch.float64)
MIXTURE = MixtureOracle(SCHEDULE, WEIGHTS, MEANS, VARIANCES)


@pytest.mark.parametrize("t", [0.1, 0.5, 0.9])
def test_mixture_equals_numerical_integration(t: float) -> None:
    grid = torch.linspace(-4, 4, 40_001, dtype=torch.float64)[:, None]
    density = sum(
        w * torch.exp(-((grid - m) ** 2) / (2 * v)) / (2 * torch.pi * v) ** 0.5
        for w, m, v in zip(WEIGHTS, MEANS, VARIANCES, strict=True)
    )
    step = float(grid[1] - grid[0])
    for x in (-1.3, 0.0, 0.4):
        x_t = torch.full((1, 1), x, dtype=torch.float64)
        joint = density * marginal(grid, SCHEDULE(t)).log_prob(x_t).exp()
        evidence = float(joint.sum() * step)
        assert float(MIXTURE(x_t, t).x0) == pytest.approx(float((joint * grid).sum() * step) / evidence, rel=1e-6)
        assert float(MIXTURE.log_prob(x_t, t).exp()) == pytest.approx(evidence, rel=1e-6)


ORACLES = {
    "gaussian": GaussianOracle(SCHEDULE, images(1, (2, 3))[0], images(1, (2, 3), seed=1)[0].square()),
    "mixture": MixtureOracle(
        SCHEDULE, WEIGHTS, images(3, (2, 3), seed=2), torch.tensor([0.3, 0.1, 0.8]).double()[:, None, None]
    ),
}


@pytest.mark.parametrize("oracle", ORACLES.values(), ids=ORACLES.keys())
@pytest.mark.parametrize("t", [0.02, 0.5, 1.0])
def test_tweedie(oracle, t: float) -> None:
    """E[x_0 | x_t] = ( x_t + sigma^2 grad log q(x_t) ) / alpha, and the prediction's score is the gradient."""
    x_t = images(4, (2, 3), seed=6).requires_grad_()
    (score,) = torch.autograd.grad(oracle.log_prob(x_t, t).sum(), x_t)
    level, prediction = SCHEDULE(t), oracle(x_t, t)
    assert torch.allclose(prediction.score(level), score, rtol=1e-8, atol=1e-10)
    assert torch.allclose(level.alpha * prediction.x0, x_t + level.sigma.square() * score, rtol=1e-8, atol=1e-10)


def test_a_mixture_of_one_is_a_gaussian_and_of_points_a_finite_set() -> None:
    x_t, points = images(4, (2, 3), seed=6), images(5, (2, 3), seed=3)
    mean, variance = points[:1], points[1:2].square()
    one = MixtureOracle(SCHEDULE, torch.ones(1), mean, variance)
    finite, limit = FiniteOracle(SCHEDULE, points), MixtureOracle(SCHEDULE, torch.ones(5), points, torch.zeros(5, 1, 1))
    for t in (0.02, 0.4, 1.0):
        assert torch.allclose(one(x_t, t).x0, GaussianOracle(SCHEDULE, mean[0], variance[0])(x_t, t).x0)
        assert torch.allclose(finite(x_t, t).x0, limit(x_t, t).x0, atol=1e-9)
        assert torch.allclose(finite(x_t, t).eps, limit(x_t, t).eps, atol=1e-7)


def test_one_variance_a_component_may_be_a_row() -> None:
    means, variances, x_t = images(3, (2, 3), seed=2), torch.tensor([0.3, 0.1, 0.8]).double(), images(4, (2, 3), seed=6)
    row, column = (MixtureOracle(SCHEDULE, WEIGHTS, means, v) for v in (variances, variances[:, None, None]))
    assert torch.equal(row(x_t, 0.4).x0, column(x_t, 0.4).x0)
    assert torch.equal(row.sample(5, 0), column.sample(5, 0))


def test_a_finite_set_finds_the_point_that_was_noised() -> None:
    points = images(50, (3, 8, 8), seed=4)
    oracle = FiniteOracle(Linear(), points.float())
    x_t = marginal(points, Linear()(0.05)).sample(images(50, (3, 8, 8), seed=5))
    assert torch.allclose(oracle(x_t, 0.05).x0, points, atol=1e-5)
    far = oracle(images(3, (3, 8, 8), seed=6), 1.0).x0
    assert torch.allclose(far, points.mean(0).expand_as(far), atol=0.5)


def test_single_precision_images_get_double_precision_softmax() -> None:
    points = images(20, (3, 8, 8), seed=4)
    oracle = FiniteOracle(Linear(), points)
    x_t = marginal(points, Linear()(0.001)).sample(images(20, (3, 8, 8), seed=5))
    assert torch.allclose(oracle(x_t.float(), 0.001).x0.double(), points, atol=1e-6)


def test_samples_have_the_distribution() -> None:
    drawn = MIXTURE.sample(200_000, seed=3)
    mean = (WEIGHTS[:, None] * MEANS).sum(0)
    second = (WEIGHTS[:, None] * (VARIANCES + MEANS.square())).sum(0)
    assert torch.allclose(drawn.mean(0), mean, atol=0.008)
    assert torch.allclose(drawn.square().mean(0), second, atol=0.008)
    assert abs(float((drawn > 0.5).double().mean()) - 0.3) < 0.02
    gaussian = ORACLES["gaussian"].sample(100_000, 1, (2, 3))
    assert torch.allclose(gaussian.mean(0), ORACLES["gaussian"].mean, atol=0.03)
    assert torch.allclose(gaussian.var(0), ORACLES["gaussian"].variance, rtol=0.03, atol=1e-3)
