"""Parameterisations: every conversion, the published definitions, and errors that convert between spaces."""

from __future__ import annotations

import itertools

import pytest
import torch

from sfumato.diffusion.denoiser import NetworkDenoiser
from sfumato.diffusion.parameterization import PARAMETERIZATIONS, solve, target
from sfumato.diffusion.process import marginal, posterior
from sfumato.diffusion.schedule import Cosine, Linear, ZeroTerminalSNR

from .common import SCHEDULES, images

NAMES = list(PARAMETERIZATIONS)
T = torch.tensor([0.001, 0.2, 0.7, 1.0], dtype=torch.float64)


@pytest.mark.parametrize(("source", "destination"), list(itertools.permutations(NAMES, 2)))
@pytest.mark.parametrize("name", ["linear", "cosine", "sigmoid", "shifted", "flow"])
def test_conversions_of_all_ordered_pairs(source: str, destination: str, name: str) -> None:
    """The output of one network, turned into a prediction and then into another's target, is that target."""
    schedule, x_0, eps, t = SCHEDULES[name], images(), images(seed=1), T
    if (name, source) == ("flow", "eps"):  # blind at its end
        x_0, eps, t = x_0[:-1], eps[:-1], t[:-1]
    x_t = marginal(x_0, schedule(t)).sample(eps)
    output = target(PARAMETERIZATIONS[source], x_0, eps, schedule, t)
    x_0_back, eps_back = solve(PARAMETERIZATIONS[source], output, x_t, schedule, t)
    converted = target(PARAMETERIZATIONS[destination], x_0_back, eps_back, schedule, t)
    expected = target(PARAMETERIZATIONS[destination], x_0, eps, schedule, t)
    assert torch.allclose(converted, expected, rtol=1e-7, atol=1e-7)
    assert torch.allclose(x_0_back, x_0, rtol=1e-6, atol=1e-6)
    assert torch.allclose(eps_back, eps, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_single_precision_is_enough(name: str) -> None:
    schedule, x_0, eps = Linear(), images().float(), images(seed=1).float()
    x_t = marginal(x_0, schedule(T)).sample(eps)
    output = target(PARAMETERIZATIONS[name], x_0, eps, schedule, T)
    _, eps_back = solve(PARAMETERIZATIONS[name], output, x_t, schedule, T)
    assert eps_back.dtype == torch.float32
    # at t = 1/T an x0-network's eps is a difference divided by sigma = 0.01, a mu-network's doubly so
    assert torch.allclose(eps_back, eps, atol=2e-3)
    assert torch.allclose(eps_back[1:], eps[1:], atol=2e-4)


def test_a_refined_image_is_the_posterior_mean_around_the_output() -> None:
    """x_0 ~ N(output, 0.1^2) and x_t = alpha x_0 + sigma eps, by Bayes."""
    schedule, x_0, eps = Cosine(), images(), images(seed=1)
    level = schedule(T).like(x_0)
    x_t, output = level.alpha * x_0 + level.sigma * eps, images(seed=2)
    precision = 1 / 0.01 + level.alpha.square() / level.sigma.square()
    mean = (output / 0.01 + level.alpha * x_t / level.sigma.square()) / precision
    assert torch.allclose(solve(PARAMETERIZATIONS["refined"], output, x_t, schedule, T)[0], mean, rtol=1e-9)


def test_targets_are_the_published_ones() -> None:
    schedule, x_0, eps = Cosine(), images(), images(seed=1)
    level = schedule(T).like(x_0)
    x_t = level.alpha * x_0 + level.sigma * eps
    before = schedule((T - 1e-3).clamp(min=0))
    expected = {
        "eps": eps,
        "x0": x_0,
        "v": level.alpha * eps - level.sigma * x_0,
        "mu": posterior(x_t, x_0, before, schedule(T)).mean,
        "velocity": eps - x_0,
        "refined": x_0 - 0.01 * level.alpha / level.sigma * eps,
    }
    for name, value in expected.items():
        assert torch.allclose(target(PARAMETERIZATIONS[name], x_0, eps, schedule, T), value, atol=1e-10)


@pytest.mark.parametrize(("first", "second"), list(itertools.permutations(NAMES, 2)))
def test_a_loss_converts_by_the_ratio_of_squared_determinants(first: str, second: str) -> None:
    schedule, x_0, eps, guess = Linear(), images(), images(seed=1), images(seed=2)
    level = schedule(T)
    x_t = marginal(x_0, level).sample(eps)
    x_0_hat, eps_hat = solve(PARAMETERIZATIONS[first], guess, x_t, schedule, T)

    def loss(name: str) -> torch.Tensor:
        return target(PARAMETERIZATIONS[name], x_0_hat - x_0, eps_hat - eps, schedule, T).square().flatten(1).mean(1)

    def determinant(name: str) -> torch.Tensor:
        p, q = PARAMETERIZATIONS[name].direction(schedule, T)
        return level.alpha * q - level.sigma * p

    assert torch.allclose(loss(first) / loss(second), (determinant(first) / determinant(second)).square(), rtol=1e-6)


def test_familiar_weights() -> None:
    """The x0 loss is the eps loss times 1 / SNR, the v loss the x0 loss times SNR + 1 (Salimans and Ho 2022)."""
    schedule, x_0, eps, guess = Linear(), images(), images(seed=1), images(seed=2)
    x_t = marginal(x_0, schedule(T)).sample(eps)
    x_0_hat, eps_hat = solve(PARAMETERIZATIONS["eps"], guess, x_t, schedule, T)
    loss = {
        name: target(space, x_0_hat - x_0, eps_hat - eps, schedule, T).square().flatten(1).mean(1)
        for name, space in PARAMETERIZATIONS.items()
    }
    snr = schedule(T).logsnr.exp()
    assert torch.allclose(loss["x0"] * snr, loss["eps"])
    assert torch.allclose(loss["v"], loss["x0"] * (snr + 1))


@pytest.mark.parametrize("name", ["x0", "v", "mu", "velocity"])
def test_pure_noise_is_no_singularity(name: str) -> None:
    schedule = ZeroTerminalSNR(base=Linear())
    one = torch.ones(4, dtype=torch.float64)
    x_0, eps = images(), images(seed=1)
    output = target(PARAMETERIZATIONS[name], x_0, eps, schedule, one)
    x_0_back, eps_back = solve(PARAMETERIZATIONS[name], output, eps, schedule, one)
    assert torch.allclose(x_0_back, x_0)
    assert torch.allclose(eps_back, eps)


def test_eps_prediction_is_refused_where_it_is_blind() -> None:
    with pytest.raises(ValueError, match="use v- or x0-prediction"):
        NetworkDenoiser(lambda x, time, c: x, ZeroTerminalSNR(base=Linear()), PARAMETERIZATIONS["eps"])
