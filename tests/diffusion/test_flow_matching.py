"""The flow path is the variance-preserving process rescaled: everything equals flow matching written in its own form.

In that form z_t = (1 - t) x_0 + t eps, the target is eps - x_0 and the ODE is dz/dt = u(z, t); here x_t = z_t / r_t.
Only that form's formulas stand in these tests, and what is compared differs by float64 rounding.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from sfumato.diffusion.denoiser import NetworkDenoiser
from sfumato.diffusion.flow import Flow
from sfumato.diffusion.grid import trailing
from sfumato.diffusion.likelihood import vlb
from sfumato.diffusion.objective import Bound, Simple, training_loss
from sfumato.diffusion.oracle import MixtureOracle
from sfumato.diffusion.parameterization import X0, Eps, Velocity
from sfumato.diffusion.process import forward_step, marginal, posterior
from sfumato.diffusion.samplers.ddim import DDIM
from sfumato.diffusion.samplers.protocol import State, sample
from sfumato.diffusion.schedule import Cosine, FlowPath, Schedule, Shifted
from sfumato.diffusion.variance import Optimal, Small

from .common import images, noise, random_function

PATH = FlowPath()
NETWORK = NetworkDenoiser(random_function, PATH, Velocity())
T = torch.tensor([0.001, 0.0371, 0.25, 0.5, 0.9004, 1.0], dtype=torch.float64)
EXACT = {"rtol": 1e-13, "atol": 1e-13}


def scale(t: Tensor | float) -> Tensor:
    """r_t = sqrt( (1 - t)^2 + t^2 ), shaped to multiply images."""
    t = torch.as_tensor(t, dtype=torch.float64)
    return ((1 - t).square() + t.square()).sqrt().reshape([*t.shape, *[1] * 3 * t.ndim])


def path(x_0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
    """z_t = (1 - t) x_0 + t eps."""
    t = t.reshape(-1, 1, 1, 1)
    return (1 - t) * x_0 + t * eps


def velocity(z: Tensor, t: Tensor | float) -> Tensor:
    """u(z, t) of the network, which sees z / r_t and the step t T - 1."""
    return random_function(z / scale(t), torch.as_tensor(t, dtype=torch.float64).expand(len(z)) * 1000 - 1)


def test_the_noised_image_is_the_path_over_its_scale() -> None:
    x_0, eps = images(len(T)), images(len(T), seed=1)
    x_t = marginal(x_0, PATH(T)).sample(eps)
    torch.testing.assert_close(scale(T) * x_t, path(x_0, eps, T), **EXACT)
    assert torch.equal(x_t[-1], eps[-1])  # t = 1 is pure noise
    torch.testing.assert_close(PATH(T).logsnr, 2 * ((1 - T) / T).log())
    assert PATH(1.0).alpha == 0
    assert PATH(0.0).sigma == 0


@pytest.mark.parametrize("num_steps", [1, 7, 1000, 1_000_000])
def test_any_length_is_the_same_path(num_steps: int) -> None:
    """T only says which times are steps; the tables of betas are those of the path."""
    chain = FlowPath(num_steps)
    assert float(chain(0.3).alpha / chain(0.3).sigma) == pytest.approx(0.7 / 0.3, rel=1e-14)
    i = max(1, num_steps // 3)
    t, s = i / num_steps, (i - 1) / num_steps
    abar = [(1 - u) ** 2 / ((1 - u) ** 2 + u**2) for u in (s, t)]
    assert float(chain.betas()[i - 1]) == pytest.approx(1 - abar[1] / abar[0], rel=1e-6, abs=1e-12)
    assert float(chain.log_abar()[1]) == pytest.approx(float(2 * chain(1 / num_steps).alpha.log()), rel=1e-4)


def test_the_loss_is_flow_matchings() -> None:
    """|| u(z_t, t) - (eps - x_0) ||^2, and its gradient by the network's output."""
    x_0, eps = images(len(T)), images(len(T), seed=1)
    expected = (velocity(path(x_0, eps, T), T) - (eps - x_0)).square().flatten(1).mean(1)
    torch.testing.assert_close(training_loss(Simple(Velocity()), NETWORK, x_0, T, eps).loss, expected, **EXACT)


def test_image_and_noise_are_read_off_the_path() -> None:
    """x0 = z - t u, eps = z + (1 - t) u, at t = 1 too."""
    z = images(len(T))
    u, t = velocity(z, T), T.reshape(-1, 1, 1, 1)
    prediction = NETWORK(z / scale(T), T)
    torch.testing.assert_close(prediction.x0, z - t * u, **EXACT)
    torch.testing.assert_close(prediction.eps, z + (1 - t) * u, **EXACT)


@pytest.mark.parametrize(("space", "weight"), [(Eps(), lambda t: (1 - t) ** 2), (X0(), lambda t: t**2)])
def test_the_other_losses_are_its_own_times_a_weight(space, weight) -> None:
    x_0, eps = images(len(T)), images(len(T), seed=1)
    own, other = (training_loss(Simple(s), NETWORK, x_0, T, eps).loss for s in (Velocity(), space))
    torch.testing.assert_close(other, weight(T) * own, **EXACT)


def test_velocity_is_the_same_on_every_schedule() -> None:
    """A cosine level is the path's at t = sigma / (alpha + sigma)."""
    x_0, eps, level = images(len(T)), images(len(T), seed=1), Cosine()(T)
    t = level.sigma / (level.alpha + level.sigma)
    output = images(len(T), seed=2)
    torch.testing.assert_close(PATH(t).logsnr, level.logsnr)
    a = NetworkDenoiser(lambda *_: output, Cosine(), Velocity())(marginal(x_0, level).sample(eps), T)
    torch.testing.assert_close(a.x0, path(x_0, eps, t) - t.reshape(-1, 1, 1, 1) * output, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("t", "s"), [(1.0, 0.99), (1.0, 0.0), (0.7123, 0.4), (0.001, 0.0)])
def test_ddim_is_eulers_step_in_flow_time(t: float, s: float) -> None:
    z = images(3)
    x_s = DDIM().step(NETWORK, State(z / scale(t), t), s, noise(3)).x
    torch.testing.assert_close(scale(s) * x_s, z + (s - t) * velocity(z, t), **EXACT)


def test_a_sampled_image_is_the_flows_own() -> None:
    """Euler's method from z_1 = eps in ten equal steps of flow time."""
    z = noise(4).prior()
    for i in range(10, 0, -1):
        z = z - velocity(z, i / 10) / 10
    torch.testing.assert_close(sample(NETWORK, DDIM(), trailing(10, PATH), noise(4)), z, rtol=1e-12, atol=1e-12)


def test_one_step_forward_and_back_is_that_of_the_path() -> None:
    """z_t given z_s by Bayes' rule over independent Gaussians: z_t = (1 - t)/(1 - s) z_s + noise of the rest."""
    s, t, x_0, z_t = 0.3, 0.45, images(2), images(2, seed=1)
    ratio = (1 - t) / (1 - s)
    rest = t**2 - ratio**2 * s**2
    step = forward_step(z_t / scale(s), PATH(s), PATH(t))
    torch.testing.assert_close(scale(t) * step.mean, ratio * z_t, **EXACT)
    torch.testing.assert_close(scale(t) ** 2 * step.variance, torch.full_like(step.variance, rest), **EXACT)
    back = posterior(z_t / scale(t), x_0, PATH(s), PATH(t))
    precision = 1 / s**2 + ratio**2 / rest
    mean = ((1 - s) * x_0 / s**2 + ratio * z_t / rest) / precision
    torch.testing.assert_close(scale(s) * back.mean, mean, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(scale(s) ** 2 * back.variance, torch.full_like(back.variance, 1 / precision))


def test_the_bound_is_the_chains_of_the_path() -> None:
    """L_T is zero, and L_s = (1/2) log-ratios and squares of the Gaussians over z: a KL does not change by scaling."""
    chain = FlowPath(num_steps=5)
    denoiser = NetworkDenoiser(random_function, chain, Velocity())
    x_0, source = images(2).clamp(-1, 1), noise(2)
    bound = vlb(denoiser, x_0, trailing(5, chain), source, Small())
    assert torch.equal(bound.prior, torch.zeros(2, dtype=torch.float64))
    for i, step in enumerate(range(5, 1, -1)):
        t, s = step / 5, (step - 1) / 5
        z = path(x_0, source.step(i), torch.full((2,), t, dtype=torch.float64))
        x0_hat = z - t * random_function(z / scale(t), torch.full((2,), step - 1.0))
        ratio = (1 - t) / (1 - s)
        rest = t**2 - ratio**2 * s**2
        precision = 1 / s**2 + ratio**2 / rest
        nats = ((1 - s) / s**2 / precision * (x0_hat - x_0)).square() * precision / 2
        expected = nats.flatten(1).mean(1) / math.log(2)
        torch.testing.assert_close(bound.steps[:, i], expected, rtol=1e-12, atol=1e-14)
    t = torch.ones(2, dtype=torch.float64)
    first = training_loss(Bound(Small()), denoiser, x_0, t, source.step(0)).loss
    torch.testing.assert_close(first / math.log(2), 5 * bound.steps[:, 0])


def test_the_likelihood_is_the_flows() -> None:
    """d log p / dt = -div u along dz/dt = u, by 200 steps of Runge-Kutta in flow time from t_0 to 1."""
    chain, shape = FlowPath(num_steps=20), (1, 1, 2)
    oracle = MixtureOracle(chain, torch.tensor([1.0, 2.0]), images(2, shape), torch.full((2, 1, 1, 1), 0.2).double())
    x = images(3, shape, seed=4)

    def slope(z: Tensor, t: float) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            prediction = oracle(z / scale(t), t)
            u = prediction.eps - prediction.x0
            rows = u.flatten(1)
            gradients = (torch.autograd.grad(rows[:, i].sum(), z, retain_graph=True)[0] for i in range(rows.shape[1]))
            trace = sum(gradient.flatten(1)[:, i] for i, gradient in enumerate(gradients))
        return u.detach(), trace

    z, total, steps, t = x * scale(0.05), torch.zeros(3).double(), 200, 0.05
    h = (1 - t) / steps
    for i in range(steps):
        at = t + i * h
        k1, d1 = slope(z, at)
        k2, d2 = slope(z + h / 2 * k1, at + h / 2)
        k3, d3 = slope(z + h / 2 * k2, at + h / 2)
        k4, d4 = slope(z + h * k3, min(at + h, 1.0))
        z, total = z + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4), total + h / 6 * (d1 + 2 * d2 + 2 * d3 + d4)
    density_z = total - 0.5 * (z.square() + math.log(2 * math.pi)).flatten(1).sum(1)
    expected = density_z + 2 * scale(0.05).log()  # of x = z / r, two coordinates
    got = Flow(oracle, 1e-9, 1e-9).log_prob(x, None)
    torch.testing.assert_close(got.log_prob, expected, rtol=0, atol=2e-4)
    torch.testing.assert_close(got.latent, z, rtol=0, atol=2e-4)


def test_a_shift_is_that_of_resolution_in_flow_time() -> None:
    """t' = k t / (1 + (k - 1) t) (Esser et al. 2024, 2403.03206, Eq. 23) is logsnr - 2 log k."""
    k = 3.0
    shifted: Schedule = Shifted(PATH, -2 * math.log(k))
    torch.testing.assert_close(shifted(T).logsnr, PATH(k * T / (1 + (k - 1) * T)).logsnr)


def test_the_optimal_variance_of_one_step_is_the_datas() -> None:
    """From pure noise to the image in one step it is the data's own."""
    rule = Optimal(lambda level: torch.tensor(0.09, dtype=torch.float64))
    logvar = rule.logvar(PATH(0.0), PATH(1.0), NETWORK(images(2), 1.0))
    assert float(logvar.exp().max()) == pytest.approx(0.09)
