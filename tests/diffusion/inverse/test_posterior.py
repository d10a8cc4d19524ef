"""Posterior methods: their formulae by hand, and the exact answer where there is one."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor
from torch.autograd.functional import jacobian
from torch.distributions import MultivariateNormal

from sfumato.diffusion.denoiser import Clipped, Denoiser, NetworkDenoiser
from sfumato.diffusion.grid import trailing
from sfumato.diffusion.inverse.operators import LinearOperator, Mask
from sfumato.diffusion.inverse.posterior import DPS, MomentMatching, PiGDM, PriorVariance
from sfumato.diffusion.inverse.solvers import conjugate_gradients, minimal_residual
from sfumato.diffusion.noise import Noise
from sfumato.diffusion.oracle import GaussianOracle
from sfumato.diffusion.parameterization import PARAMETERIZATIONS
from sfumato.diffusion.prediction import Prediction
from sfumato.diffusion.samplers.ddim import DDIM, Ancestral
from sfumato.diffusion.samplers.protocol import State, sample
from sfumato.diffusion.schedule import Linear, ZeroTerminalSNR
from sfumato.diffusion.variance import Small

from ..common import images, noise, random_function
from .cases import GAUSSIAN, OPERATORS, SCHEDULE, SHAPE, D, measured, smooth
from .exact import dense, dense_matrix, exact_posterior

EVERY = pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS.keys())
TIMES = pytest.mark.parametrize("t", [0.05, 0.4, 1.0])
NETWORK = NetworkDenoiser(random_function, Linear(), PARAMETERIZATIONS["x0"])


def assert_near(ours: Prediction, exact: Prediction, tolerance: float = 1e-8) -> None:
    assert torch.allclose(ours.x0, exact.x0, atol=tolerance)
    assert torch.allclose(ours.eps, exact.eps, atol=tolerance * 100)


# Exact where the data are Gaussian


@EVERY
@TIMES
@pytest.mark.parametrize("noise_std", [0.1, 0.0])
def test_with_the_oracle_s_variance_pigdm_is_the_true_conditional_denoiser(
    operator: LinearOperator, t: float, noise_std: float
) -> None:
    y, x_t = measured(operator, noise_std), images(3, SHAPE, seed=6)
    if noise_std == 0 and operator is OPERATORS["blur-larger-than-the-image"]:
        pytest.skip("its weakest frequencies are a billionth: without noise nobody can invert it")
    truth = exact_posterior(dense(GAUSSIAN, SHAPE), operator, y, noise_std)
    assert_near(PiGDM(GAUSSIAN, operator, y, noise_std, GAUSSIAN.posterior_variance)(x_t, t), truth(x_t, t), 1e-6)


@pytest.mark.parametrize("shape", [(6,), (3, 4), (2, 2, 3, 2)])
@pytest.mark.parametrize("variance", [PriorVariance(0.3), None], ids=["prior", "oracle"])
def test_pigdm_works_on_data_of_any_shape(shape: tuple[int, ...], variance: PriorVariance | None) -> None:
    """A batch of times gives what each gives alone: the variance belongs to the row, not to the last axis."""
    oracle = GaussianOracle(SCHEDULE, torch.tensor(0.1).double(), torch.tensor(0.3).double())
    mask = Mask(images(1, shape, seed=4)[0] > 0)
    y, x_t, t = mask.forward(images(3, shape)), images(3, shape, seed=6), torch.tensor([0.05, 0.4, 0.9]).double()
    rule = variance or oracle.posterior_variance
    together = PiGDM(oracle, mask, y, 0.1, rule)(x_t, t)
    for i in range(3):
        alone = PiGDM(oracle, mask, y[i : i + 1], 0.1, rule)(x_t[i : i + 1], float(t[i]))
        assert_near(Prediction(together.x0[i : i + 1], together.eps[i : i + 1]), alone)
        level = SCHEDULE(float(t[i]))
        seen = level.abar / level.sigma**2 * mask.mask + mask.mask / 0.01 + 1 / 0.3  # precisions add
        exact = (level.alpha / level.sigma**2 * x_t[i] + y[i] / 0.01 + 0.1 / 0.3) / (
            seen + level.abar / level.sigma**2 * ~mask.mask
        )
        assert torch.allclose(alone.x0[0], exact, atol=1e-8)


@EVERY
@TIMES
def test_moment_matching_is_the_true_conditional_denoiser_of_correlated_data(
    operator: LinearOperator, t: float
) -> None:
    prior, y, x_t = smooth(), measured(operator, 0.1), images(3, SHAPE, seed=6)
    truth = exact_posterior(prior, operator, y, 0.1)
    assert_near(MomentMatching(prior, operator, y, 0.1, iterations=300)(x_t, t), truth(x_t, t), 1e-7)


def test_two_measurements_of_two_wrappers_are_the_posterior_of_both() -> None:
    """The inner wrapper is a denoiser like any other: the outer one differentiates through it."""
    prior, grey, mask, x_t = smooth(), OPERATORS["grey"], OPERATORS["mask"], images(3, SHAPE, seed=6)
    first, second = measured(grey, 0.1), measured(mask, 0.2)
    ours = MomentMatching(MomentMatching(prior, grey, first, 0.1, 100), mask, second, 0.2, 100)
    truth = exact_posterior(exact_posterior(prior, grey, first, 0.1), mask, second, 0.2)
    with torch.no_grad():
        assert_near(ours(x_t, 0.4), truth(x_t, 0.4), 1e-7)


def test_a_mean_and_a_covariance_are_reached() -> None:
    n, grey = 2000, OPERATORS["grey"]
    y = measured(grey, 0.2)
    denoiser = PiGDM(GAUSSIAN, grey, y, 0.2, GAUSSIAN.posterior_variance)
    x = sample(denoiser, DDIM(), trailing(100, SCHEDULE), Noise(0, torch.arange(n), SHAPE, torch.float64)).flatten(1)
    truth = exact_posterior(dense(GAUSSIAN, SHAPE), grey, y, 0.2)
    std = truth.covariance.diagonal().sqrt()
    # a first-order solver of 100 steps leaves 2 % of a standard deviation and 5 % of the variance
    assert float(((x.mean(0) - truth.mean) / std).abs().max()) < 4 / math.sqrt(n) + 0.02
    difference = (x.T.cov() - truth.covariance) / std / std[:, None]
    assert float(difference.abs().max()) < 5 * math.sqrt(2 / n) + 0.05
    # it is not the prior's: the colours' noise is anticorrelated where their grey value is known
    prior = dense(GAUSSIAN, SHAPE).covariance
    assert float(((prior - truth.covariance) / std / std[:, None]).abs().max()) > 0.5


# The formulae by hand, on a nonlinear network


@pytest.mark.parametrize("operator", [OPERATORS["mask"], OPERATORS["grey"], OPERATORS["function"]])
@pytest.mark.parametrize("guess", [PriorVariance(), PriorVariance(0.3)])
def test_pigdm_adds_the_gradient_of_its_gaussian(operator: LinearOperator, guess: PriorVariance) -> None:
    A, y, t = dense_matrix(operator, SHAPE), measured(operator, 0.1), 0.6
    level, v = NETWORK.schedule(t), guess.variance
    r2 = v * level.sigma**2 / (level.alpha**2 * v + level.sigma**2)
    covariance = r2 * A @ A.T + 0.01 * torch.eye(len(A))
    x = images(2, SHAPE, seed=6).requires_grad_()
    mean = NETWORK(x, t).x0.flatten(1) @ A.T
    log_p = MultivariateNormal(mean, covariance).log_prob(y.flatten(1).expand_as(mean)).sum()
    (gradient,) = torch.autograd.grad(log_p, x)
    plain, ours = NETWORK(x.detach(), t), PiGDM(NETWORK, operator, y, 0.1, guess)(x.detach(), t)
    assert torch.allclose(ours.eps, plain.eps - level.sigma * gradient, atol=1e-8)
    assert torch.allclose(ours.x0, plain.x0 + level.sigma**2 / level.alpha * gradient, atol=1e-8)


def test_without_noise_pigdm_pulls_along_the_pseudoinverse() -> None:
    """g = r_t^-2 J^T A+ (y - A x0^), the form that gives the method its name."""
    operator, t, x = OPERATORS["downscale"], 0.6, images(2, SHAPE, seed=6).requires_grad_()
    y, level, x0 = measured(operator, 0.0), NETWORK.schedule(t), NETWORK(x, t).x0
    pulled = torch.autograd.grad(x0, x, operator.pseudoinverse(y - operator.forward(x0)).detach())[0]
    ours = PiGDM(NETWORK, operator, y)(x.detach(), t)
    assert torch.allclose(ours.eps, NETWORK(x, t).eps - pulled / level.sigma, atol=1e-8)


@TIMES
def test_moment_matching_takes_its_covariance_from_the_jacobian(t: float) -> None:
    operator = OPERATORS["downscale"]
    prior = smooth(0.5 * images(1, SHAPE)[0], -0.5 * images(1, SHAPE)[0], weights=(0.4, 0.6))
    A, y, x_t = dense_matrix(operator, SHAPE), measured(operator, 0.1), images(1, SHAPE, seed=6)
    level, plain = SCHEDULE(t), prior(x_t, t)
    J = jacobian(lambda x: prior(x, t).x0, x_t).reshape(D, D)
    V = level.sigma**2 / level.alpha * J
    residual = (y - operator.forward(plain.x0)).flatten()
    S = A @ V @ A.T + 0.01 * torch.eye(len(A))
    x0 = plain.x0 + (V.T @ A.T @ torch.linalg.solve(S, residual)).reshape(1, *SHAPE)
    ours = MomentMatching(prior, operator, y, 0.1, iterations=200)(x_t, t)
    assert torch.allclose(ours.x0, x0, atol=1e-7)
    # Tweedie's second moment: V is the covariance of what the exact posterior given x_t itself would draw
    seen = exact_posterior(
        prior, Mask(torch.ones(SHAPE, dtype=torch.bool)), x_t / level.alpha, float(level.sigma / level.alpha)
    )
    assert torch.allclose(V, seen.covariance, atol=1e-8)


@pytest.mark.parametrize("scale", [0.3, 1.0])
def test_ancestral_steps_of_the_trained_chain_with_dps_are_algorithm_1(scale: float) -> None:
    operator, T, i = OPERATORS["downscale"], 1000, 700
    y, state = measured(operator, 0.05), State(images(2, SHAPE, seed=6), i / T, step=4)
    x = state.x.clone().requires_grad_()
    distance = (y - operator.forward(NETWORK(x, i / T).x0)).flatten(1).norm(dim=1)
    (gradient,) = torch.autograd.grad(distance.sum(), x)
    plain = Ancestral(Small()).step(NETWORK, state, (i - 1) / T, noise(2, SHAPE)).x
    ours = Ancestral(Small()).step(DPS(NETWORK, operator, y, 0.0, scale), state, (i - 1) / T, noise(2, SHAPE)).x
    assert torch.allclose(ours, plain - scale * gradient, atol=1e-9)


def test_where_dps_has_met_the_measurement_it_pulls_less_and_less() -> None:
    """Below s_y sqrt(m) the pull is proportional to the residual; above it has one length."""
    mask = OPERATORS["mask"]
    x_t, t = images(1, SHAPE, seed=6), 0.5
    seen = NETWORK(x_t, t)
    away = mask.forward(images(1, SHAPE, seed=7))
    measured_numbers = int(mask.mask.sum()) * 3
    away = away / away.norm() * math.sqrt(measured_numbers) * 0.1

    def pull(distance: float) -> Tensor:
        y = mask.forward(seen.x0) + distance * away
        return DPS(NETWORK, mask, y, noise_std=0.1)(x_t, t).x0 - seen.x0

    assert torch.allclose(pull(0.5), 2 * pull(0.25), rtol=1e-6, atol=1e-9)
    assert torch.allclose(pull(2.0), pull(4.0), rtol=1e-6, atol=1e-9)
    assert torch.allclose(pull(1.0), pull(2.0), rtol=1e-6, atol=1e-9)
    assert torch.equal(pull(0.0), torch.zeros_like(x_t))


def test_no_variance_at_all_is_the_likelihood_of_the_predicted_image() -> None:
    """PiGDM with V = 0 is DPS before its step size: g = J^T A^T (y - A x0^) / s_y^2."""
    operator, t, x = OPERATORS["grey"], 0.6, images(2, SHAPE, seed=6).requires_grad_()
    y = measured(operator, 0.1)
    error = (y - operator.forward(NETWORK(x, t).x0)).square().sum() / (2 * 0.1**2)
    (gradient,) = torch.autograd.grad(-error, x)
    ours = PiGDM(NETWORK, operator, y, 0.1, lambda level: torch.zeros(()))(x.detach(), t)
    assert torch.allclose(ours.eps, NETWORK(x, t).eps - NETWORK.schedule(t).sigma * gradient, atol=1e-9)


# The contract of all three


def wrapped(denoiser: Denoiser, operator: LinearOperator, y: Tensor) -> dict[str, Denoiser]:
    return {
        "dps": DPS(denoiser, operator, y, 0.05),
        "pigdm": PiGDM(denoiser, operator, y, 0.05),
        "moments": MomentMatching(denoiser, operator, y, 0.05),
    }


METHODS = pytest.mark.parametrize("method", ["dps", "pigdm", "moments"])


@METHODS
@EVERY
def test_the_prediction_still_explains_the_image(method: str, operator: LinearOperator) -> None:
    x_t, t = images(3, SHAPE, seed=6), torch.tensor([0.1, 0.5, 0.9])
    prediction = wrapped(NETWORK, operator, measured(operator, 0.05))[method](x_t, t)
    level = NETWORK.schedule(t).like(x_t)
    assert torch.allclose(level.alpha * prediction.x0 + level.sigma * prediction.eps, x_t, atol=1e-9)
    assert not torch.allclose(prediction.x0, NETWORK(x_t, t).x0, atol=1e-4)
    for i in range(3):  # each image by itself, each time with its own level, one measurement for all
        alone = wrapped(NETWORK, operator, measured(operator, 0.05))[method](x_t[i : i + 1], float(t[i]))
        assert torch.allclose(alone.x0[0], prediction.x0[i], atol=1e-5)


@METHODS
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_single_precision_without_recorded_gradients(method: str, mode: type) -> None:
    operator = OPERATORS["blur"]
    net = torch.nn.Conv2d(3, 3, 3, padding=1)
    denoiser = Clipped(NetworkDenoiser(lambda x, t, c: net(x), Linear(), PARAMETERIZATIONS["v"]))
    with mode():
        ours = wrapped(denoiser, operator, measured(operator, 0.05).float())[method]
        x = sample(ours, DDIM(), trailing(5, Linear()), Noise(0, torch.arange(2), SHAPE))
    assert x.dtype == torch.float32
    assert not x.requires_grad
    assert bool(x.isfinite().all())
    assert all(p.grad is None for p in net.parameters())


@METHODS
def test_where_the_image_says_nothing_nothing_is_corrected(method: str) -> None:
    net = NetworkDenoiser(random_function, ZeroTerminalSNR(base=Linear()), PARAMETERIZATIONS["v"])
    operator, x_t = OPERATORS["mask"], images(2, SHAPE)
    prediction, plain = wrapped(net, operator, measured(operator, 0.05))[method](x_t, 1.0), net(x_t, 1.0)
    assert torch.equal(prediction.x0, plain.x0)
    assert torch.equal(prediction.eps, plain.eps)


@METHODS
@pytest.mark.parametrize("known", [True, False])
def test_a_mask_of_everything_and_of_nothing(method: str, known: bool) -> None:
    mask = Mask(torch.full((1, 4, 6), known))
    prior, y = smooth(), mask.forward(0.5 * images(1, SHAPE, seed=3))
    ours = wrapped(prior, mask, y)[method]
    x = sample(ours, DDIM(), trailing(100, SCHEDULE), noise(2, SHAPE))
    plain = sample(prior, DDIM(), trailing(100, SCHEDULE), noise(2, SHAPE))
    if not known:
        assert torch.allclose(x, plain, atol=1e-9)
    else:
        assert float((x - y).square().mean().sqrt()) < 0.5 * float((plain - y).square().mean().sqrt())


def test_mistakes_are_named() -> None:
    class Mute:
        schedule = SCHEDULE

        def __call__(self, x_t: Tensor, t: Tensor | float, condition: object = None) -> Prediction:
            return Prediction(x_t.detach(), x_t.detach())

    operator, y = OPERATORS["mask"], measured(OPERATORS["mask"], 0.1)
    with pytest.raises(ValueError, match="use RePaint"):
        PiGDM(Mute(), operator, y)(images(1, SHAPE), 0.5)
    for method in (DPS, PiGDM, MomentMatching):
        with pytest.raises(ValueError, match="noise_std = -1"):
            method(NETWORK, operator, y, -1.0)
    with pytest.raises(ValueError, match="iterations"):
        MomentMatching(NETWORK, operator, y, 0.1, iterations=0)


def test_minimal_residuals_fall_where_conjugate_gradients_do_not() -> None:
    """A lopsided matrix, as a network's Jacobian is: every iteration helps, and as many as it is large solve it."""
    generator = torch.Generator().manual_seed(0)
    S = torch.randn(8, 8, dtype=torch.float64, generator=generator) + 1.5 * torch.eye(8)
    b = images(2, (8,))
    errors = [
        float((b - minimal_residual(lambda u: u @ S.T, b, n) @ S.T).norm() / b.norm()) for n in (0, 1, 2, 3, 4, 8)
    ]
    assert errors[0] == 1.0
    assert all(later < earlier for earlier, later in itertools.pairwise(errors))
    assert errors[-1] < 1e-8
    assert float((b - conjugate_gradients(lambda u: u @ S.T, b, 4) @ S.T).norm() / b.norm()) > errors[4]
