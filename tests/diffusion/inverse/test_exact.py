"""The true posterior: against numerical integration, the coordinate-wise oracles, and its own samples."""

from __future__ import annotations

import pytest
import torch

from sfumato.diffusion.inverse.operators import Function, LinearOperator
from sfumato.diffusion.oracle import GaussianOracle, MixtureOracle
from sfumato.diffusion.process import marginal
from sfumato.diffusion.schedule import Cosine

from ..common import images
from .cases import OPERATORS, SHAPE, measured, smooth
from .exact import DenseOracle, dense, exact_posterior

PAIR = DenseOracle(
    Cosine(),
    (2, 1, 1),
    torch.tensor([0.3, 0.7], dtype=torch.float64),
    torch.tensor([[-0.4, 0.2], [0.5, 0.1]], dtype=torch.float64),
    torch.tensor([[[0.10, 0.06], [0.06, 0.08]], [[0.05, -0.02], [-0.02, 0.12]]], dtype=torch.float64),
)
A = torch.tensor([[0.8, -0.5]], dtype=torch.float64)


def plane() -> tuple[torch.Tensor, torch.Tensor]:
    """Points of a fine grid (n, 2) and log p(x_0) there by torch's own distributions."""
    line = torch.linspace(-2.5, 2.5, 301, dtype=torch.float64)
    points = torch.cartesian_prod(line, line)
    parts = [
        torch.distributions.MultivariateNormal(m, C).log_prob(points) + w.log()
        for w, m, C in zip(PAIR.weights, PAIR.means, PAIR.covariances, strict=True)
    ]
    return points, torch.stack(parts).logsumexp(0)


def test_the_posterior_equals_numerical_integration() -> None:
    points, log_p = plane()
    y, noise_std = torch.tensor([[0.15]], dtype=torch.float64), 0.2
    log_p = log_p - (y[0, 0] - points @ A[0]).square() / (2 * noise_std**2)
    truth = exact_posterior(PAIR, Function(lambda x: x.flatten(1) @ A.to(x).T, (2, 1, 1)), y, noise_std)
    share = log_p.softmax(0)
    mean = share @ points
    assert torch.allclose(truth.mean, mean, atol=1e-6)
    apart = points - mean
    assert torch.allclose(truth.covariance, torch.einsum("n,ni,nj->ij", share, apart, apart), atol=1e-6)
    for t in (0.1, 0.5, 0.9):
        x_t = torch.tensor([0.3, -0.2], dtype=torch.float64).reshape(1, 2, 1, 1)
        noised = marginal(points.reshape(-1, 2, 1, 1), PAIR.schedule(t)).log_prob(x_t).flatten(1).sum(1)
        expected = (log_p + noised).softmax(0) @ points
        assert torch.allclose(truth(x_t, t).x0.flatten(), expected, atol=1e-5)


def test_without_noise_the_posterior_explains_the_measurement_and_nothing_is_lost() -> None:
    truth = exact_posterior(PAIR, Function(lambda x: x.flatten(1) @ A.to(x).T, (2, 1, 1)), torch.tensor([[0.15]]), 0.0)
    limit = exact_posterior(PAIR, Function(lambda x: x.flatten(1) @ A.to(x).T, (2, 1, 1)), torch.tensor([[0.15]]), 1e-5)
    drawn = truth.sample(50, seed=1).flatten(1)
    assert torch.allclose(drawn @ A[0], torch.tensor(0.15).double(), atol=1e-6)
    assert torch.allclose(truth.mean, limit.mean, atol=1e-6)
    assert torch.allclose(truth.weights, limit.weights, atol=1e-6)


@pytest.mark.parametrize("t", [0.02, 0.5, 1.0])
def test_diagonal_covariances_are_the_other_oracles(t: float) -> None:
    x_t, weights = images(4, SHAPE, seed=6), torch.tensor([2.0, 5.0, 3.0])
    one = GaussianOracle(Cosine(), torch.tensor(0.2), images(1, SHAPE, seed=1)[0].square())
    many = MixtureOracle(
        Cosine(), weights, images(3, SHAPE, seed=2), torch.tensor([0.3, 0.1, 0.8])[:, None, None, None]
    )
    for oracle in (one, many):
        ours, theirs = dense(oracle, SHAPE)(x_t, t), oracle(x_t, t)
        assert torch.allclose(ours.x0, theirs.x0, atol=1e-7)
        assert torch.allclose(ours.eps, theirs.eps, atol=1e-7)


@pytest.mark.parametrize("operator", [OPERATORS["mask"], OPERATORS["composed"]])
def test_one_measurement_after_another_is_both_at_once(operator: LinearOperator) -> None:
    """Bayes does not mind the order."""
    prior, grey = smooth(), OPERATORS["grey"]
    first, second = measured(grey, 0.1), measured(operator, 0.1)
    a = exact_posterior(exact_posterior(prior, grey, first, 0.1), operator, second, 0.1)
    b = exact_posterior(exact_posterior(prior, operator, second, 0.1), grey, first, 0.1)
    assert torch.allclose(a.mean, b.mean, atol=1e-8)
    assert torch.allclose(a.covariance, b.covariance, atol=1e-8)


def test_samples_have_the_distribution_and_each_time_has_its_level() -> None:
    drawn = PAIR.sample(40_000, seed=3).flatten(1)
    assert torch.allclose(drawn.mean(0), PAIR.mean, atol=0.01)
    assert torch.allclose(drawn.T.cov(), PAIR.covariance, atol=0.01)
    x_t, times = images(3, (2, 1, 1)), torch.tensor([0.1, 0.5, 0.9])
    together = PAIR(x_t, times)
    for i, t in enumerate(times.tolist()):
        assert torch.allclose(together.x0[i], PAIR(x_t[i : i + 1], t).x0[0], atol=1e-6)
        assert torch.allclose(together.eps[i], PAIR(x_t[i : i + 1], t).eps[0], atol=1e-6)
