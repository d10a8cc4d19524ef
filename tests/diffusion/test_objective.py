"""L_simple: the oracle's value is known, any space can measure any denoiser, and t is uniform on the chain."""

from __future__ import annotations

import pytest
import torch

from sfumato.diffusion import (
    PARAMETERIZATIONS,
    Cosine,
    GaussianOracle,
    Linear,
    NetworkDenoiser,
    Simple,
    marginal,
    sample_timesteps,
    target,
    training_loss,
)

from .common import images, random_function


@pytest.mark.parametrize("name", PARAMETERIZATIONS)
@pytest.mark.parametrize("t", [0.05, 0.5, 0.95])
def test_the_oracles_loss_is_analytic(name: str, t: float) -> None:
    """For data N(m, s^2): Var[eps | x_t] = alpha^2 s^2 / (alpha^2 s^2 + sigma^2); other spaces by their determinant."""
    schedule, n, s2 = Cosine(), 400_000, 0.3
    oracle = GaussianOracle(schedule, torch.tensor(0.4), torch.tensor(s2))
    x_0, eps = 0.4 + s2**0.5 * images(n, (1,), seed=1), images(n, (1,), seed=2)
    time = torch.full((n,), t, dtype=torch.float64)
    loss = training_loss(Simple(PARAMETERIZATIONS[name]), oracle, x_0, time, eps).loss
    level = schedule(time[:1])
    p, q = PARAMETERIZATIONS[name].direction(schedule, time[:1])
    in_eps = level.alpha.square() * s2 / (level.alpha.square() * s2 + level.sigma.square())
    analytic = in_eps * ((level.alpha * q - level.sigma * p) / level.alpha).square()
    assert float(loss.mean() / analytic) == pytest.approx(1.0, abs=5 * (2 / n) ** 0.5)


@pytest.mark.parametrize("name", PARAMETERIZATIONS)
def test_a_networks_own_space_is_plain_squared_error(name: str) -> None:
    schedule, x_0, eps = Linear(), images(5), images(5, seed=1)
    t = torch.tensor([0.001, 0.25, 0.5, 0.75, 1.0], dtype=torch.float64)
    space = PARAMETERIZATIONS[name]
    terms = training_loss(Simple(space), NetworkDenoiser(random_function, schedule, space), x_0, t, eps)
    x_t = marginal(x_0, schedule(t)).sample(eps)
    output = random_function(x_t, t * 1000 - 1)
    expected = (output - target(space, x_0, eps, schedule, t)).square().flatten(1).mean(1)
    assert terms.loss.shape == (5,)
    assert torch.allclose(terms.loss, expected, rtol=1e-6)
    assert torch.equal(terms.t, t)


def test_gradients_are_those_of_the_plain_loss() -> None:
    schedule, x_0, eps, t = Linear(), images(3), images(3, seed=1), torch.tensor([0.2, 0.5, 0.9]).double()
    weight = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    space = PARAMETERIZATIONS["v"]

    def net(x: torch.Tensor, time: torch.Tensor, condition: object) -> torch.Tensor:
        return weight * random_function(x, time)

    training_loss(Simple(space), NetworkDenoiser(net, schedule, space), x_0, t, eps).loss.mean().backward()
    got = weight.grad.clone()
    weight.grad = None
    x_t = marginal(x_0, schedule(t)).sample(eps)
    (net(x_t, t * 1000 - 1, None) - target(space, x_0, eps, schedule, t)).square().mean().backward()
    assert torch.allclose(got, weight.grad)


def test_times_are_the_chains_steps_equally_often() -> None:
    u = (torch.arange(10_000, dtype=torch.float64) + 0.5) / 10_000
    steps, counts = (sample_timesteps(u, 10) * 10).round().long().unique(return_counts=True)
    assert steps.tolist() == list(range(1, 11))
    assert counts.tolist() == [1000] * 10
    edge = sample_timesteps(torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64), 1000)
    assert edge.tolist() == [0.001, 1.0]
