"""Gaussians, the forward process, its posterior, the reverse step and its variances: against the papers and torch."""

from __future__ import annotations

import pytest
import torch
from torch import distributions

from sfumato.diffusion.decoder import density
from sfumato.diffusion.gaussian import Gaussian
from sfumato.diffusion.grid import trailing
from sfumato.diffusion.inverse.posterior import PriorVariance
from sfumato.diffusion.noise import Noise
from sfumato.diffusion.objective import Bound, training_loss
from sfumato.diffusion.oracle import GaussianOracle, posterior_variance
from sfumato.diffusion.prediction import Prediction
from sfumato.diffusion.process import forward_step, marginal, posterior
from sfumato.diffusion.samplers.ddim import Ancestral
from sfumato.diffusion.samplers.protocol import trajectory
from sfumato.diffusion.schedule import Cosine, Linear, Schedule, ZeroTerminalSNR
from sfumato.diffusion.variance import Large, MeasuredVariance, Optimal, Small, noise_errors, reverse

from .common import SCHEDULES, images

EVERY = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES.keys())


@EVERY
def test_the_iterated_chain_equals_the_closed_form(schedule: Schedule) -> None:
    """Mean and variance of q(x_t | x_0), carried one step at a time through x_t = a x_{t-1} + b eps, at every t."""
    x_0 = images(2)
    mean, variance = x_0, torch.zeros_like(x_0)
    for i in range(1, schedule.num_steps + 1):
        level_s, level_t = schedule((i - 1) / schedule.num_steps), schedule(i / schedule.num_steps)
        step = forward_step(mean, level_s, level_t)
        scale = forward_step(torch.ones_like(x_0), level_s, level_t).mean
        mean, variance = step.mean, scale.square() * variance + step.variance
        closed = marginal(x_0, level_t)
        assert torch.allclose(mean, closed.mean, rtol=1e-10, atol=1e-12)
        assert torch.allclose(variance, closed.variance.expand_as(variance), rtol=1e-10)


@EVERY
@pytest.mark.parametrize(("s", "t"), [(0.1, 0.11), (0.2, 0.9), (0.5, 1.0), (0.0, 0.4)])
def test_posterior_is_bayes_rule(schedule: Schedule, s: float, t: float) -> None:
    """q(x_s | x_t, x_0) = q(x_t | x_s) q(x_s | x_0) / q(x_t | x_0): as log densities, at any x_s."""
    x_0, x_t, level_s, level_t = images(seed=1), images(seed=2), schedule(s), schedule(t)
    q = posterior(x_t, x_0, level_s, level_t)
    if s == 0.0:
        assert torch.allclose(q.mean, x_0, atol=1e-12)
        assert float(q.variance) == 0
        return
    for seed in (3, 4):
        x_s = q.sample(images(seed=seed))
        bayes = (
            forward_step(x_s, level_s, level_t).log_prob(x_t)
            + marginal(x_0, level_s).log_prob(x_s)
            - marginal(x_0, level_t).log_prob(x_t)
        )
        assert torch.allclose(q.log_prob(x_s), bayes, rtol=1e-6, atol=1e-6)


def test_bounds_hold_at_the_extremes_of_the_data() -> None:
    """The true reverse variance is beta~ for point data and beta for N(0, I) data (DDPM Sec. 3.2)."""
    schedule, x_t = Linear(), images(seed=2)
    level_s, level_t = schedule(0.35), schedule(0.5)
    # data N(0, 1): x_s and x_t are jointly Gaussian with unit variances and correlation alpha_ts
    conditional = 1 - (level_t.alpha / level_s.alpha).square()
    large = Large().logvar(level_s, level_t, Prediction(x_t, x_t)).exp()
    assert float(large) == pytest.approx(float(conditional), rel=1e-9)
    point = posterior(x_t, torch.zeros_like(x_t), level_s, level_t)
    assert isinstance(point, Gaussian)
    assert float(Small().logvar(level_s, level_t, Prediction(x_t, x_t))) == pytest.approx(float(point.logvar))


def test_times_of_a_batch_may_differ() -> None:
    schedule, x_0, x_t = Linear(), images(3, seed=1), images(3, seed=2)
    s, t = torch.tensor([0.1, 0.4, 0.0]), torch.tensor([0.2, 0.9, 0.5])
    together = posterior(x_t, x_0, schedule(s), schedule(t))
    for i in range(3):
        alone = posterior(x_t[i : i + 1], x_0[i : i + 1], schedule(s[i]), schedule(t[i]))
        assert torch.allclose(together.mean[i], alone.mean[0])
        assert float(together.logvar[i]) == pytest.approx(float(alone.logvar))


def pair() -> tuple[Gaussian, Gaussian]:
    return Gaussian(images(seed=0), images(seed=1)), Gaussian(images(seed=2), images(seed=3))


def test_log_prob_and_kl_equal_torch_distributions() -> None:
    p, q = pair()
    x = images(seed=4)
    p_torch, q_torch = (distributions.Normal(g.mean, g.variance.sqrt()) for g in (p, q))
    assert torch.allclose(p.log_prob(x), p_torch.log_prob(x))
    assert torch.allclose(p.kl(q), distributions.kl_divergence(p_torch, q_torch))


def test_kl_equals_the_general_formula_with_matrices() -> None:
    p, q = pair()
    for i in range(len(p.mean)):
        s_x, s_y = torch.diag(p.variance[i].flatten()), torch.diag(q.variance[i].flatten())
        difference = (p.mean - q.mean)[i].flatten()
        general = 0.5 * (
            torch.logdet(s_y)
            - torch.logdet(s_x)
            - len(difference)
            + torch.trace(torch.linalg.inv(s_y) @ s_x)
            + difference @ torch.linalg.inv(s_y) @ difference
        )
        assert torch.allclose(p.kl(q)[i].sum(), general)


def test_kl_is_zero_only_between_equals_and_precise_near_them() -> None:
    p, q = pair()
    assert torch.equal(p.kl(p), torch.zeros_like(p.mean))
    assert bool((p.kl(q) > 0).all())
    nudge = 1e-6
    near = Gaussian(p.mean, p.logvar + nudge).kl(p)
    assert torch.allclose(near, torch.full_like(near, nudge**2 / 4), rtol=1e-3)


def test_sample_has_the_stated_moments() -> None:
    g = Gaussian(torch.tensor([[2.0, -1.0]]).double(), torch.tensor([[0.5, -3.0]]).double())
    drawn = g.sample(images(200_000, (2,), seed=5))
    assert torch.allclose(drawn.mean(0), g.mean[0], atol=0.01)
    assert torch.allclose(drawn.var(0), g.variance[0], rtol=0.02)


def test_a_point_mass_samples_its_mean() -> None:
    g = Gaussian(images(), torch.tensor(-torch.inf, dtype=torch.float64))
    assert torch.equal(g.sample(images(seed=9)), g.mean)


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
    level = schedule(torch.tensor([0.3, 0.7]))
    batch = spread(level.shaped(x_0[:2]))
    assert batch.shape == (2, 1, 1, 1)
    assert torch.equal(batch.flatten(), spread(level))
    assert 0 <= float(spread(schedule(1.0))) <= 1


@pytest.mark.parametrize("schedule", [Cosine(), Linear(), ZeroTerminalSNR(base=Cosine())])
def test_a_measured_variance_is_right_between_its_times(schedule) -> None:
    """Linear in t it was ten times too large at t = 0.996 of a cosine chain; the oracle's own errors are fed in."""
    square, times = 0.2, torch.tensor([1, 2, 5, 13, 30, 70, 150, 250, 400, 550, 700, 850, 950, 1000]).double() / 1000
    level = schedule(times)
    error = level.abar * square / (level.abar * square + level.sigma.square())  # E (eps - eps^)^2
    measured = MeasuredVariance(schedule, times, error)
    t = torch.tensor([1 / 1000, 0.0015, 0.02, 0.2, 0.5, 0.9, 0.99, 0.996, 0.999, 1.0], dtype=torch.float64)
    truth = posterior_variance(torch.tensor(square), schedule(t))
    assert torch.allclose(measured(schedule(t)), truth, rtol=0.1)


@pytest.mark.parametrize("shape", [(5,), (3, 4), (2, 3, 5), (3, 1, 1), (2, 2, 3, 2)])
@pytest.mark.parametrize("form", ["number", "last axis", "whole"])
def test_a_batch_of_levels_gives_what_each_image_gives_alone(shape: tuple[int, ...], form: str) -> None:
    """Also where the variance has fewer axes than the image, and the image any number of them."""
    schedule, axes = Linear(100), {"number": (), "last axis": shape[-1:], "whole": shape}[form]
    variance = 0.1 + images(1, (*axes, 1), seed=3)[0, ..., 0].square()
    oracle = GaussianOracle(schedule, torch.zeros(axes).double(), variance)
    x_0, eps, t = images(3, shape), images(3, shape, seed=1), torch.tensor([0.01, 0.4, 1.0], dtype=torch.float64)
    measured = MeasuredVariance(schedule, TIMES, torch.linspace(0.9, 0.01, 100))
    for rule in (Optimal(oracle.posterior_variance), Optimal(PriorVariance(0.3)), Optimal(measured), Small(), Large()):
        together = training_loss(Bound(rule, density), oracle, x_0, t, eps).loss
        alone = [training_loss(Bound(rule, density), oracle, *(v[i : i + 1] for v in (x_0, t, eps))) for i in range(3)]
        assert torch.allclose(together, torch.cat([terms.loss for terms in alone]), rtol=1e-10)


def test_the_bound_of_the_optimal_variance_is_a_known_figure() -> None:
    """T KL of two Gaussians by hand, for an image of three axes and one variance."""
    schedule, square = Linear(100), 0.25
    oracle = GaussianOracle(schedule, torch.tensor(0.0).double(), torch.tensor(square).double())
    x_0, eps, t = images(2), images(2, seed=1), torch.tensor([0.3, 0.8], dtype=torch.float64)
    loss = training_loss(Bound(Optimal(oracle.posterior_variance)), oracle, x_0, t, eps).loss
    for i in range(2):
        a, b = schedule(float(t[i])), schedule(float(t[i]) - 0.01)
        x_t = a.alpha * x_0[i] + a.sigma * eps[i]
        x0 = a.alpha * square / (a.abar * square + a.sigma**2) * x_t
        drop = 1 - (a.abar / a.sigma**2) / (b.abar / b.sigma**2)
        small, gain = b.sigma**2 * drop, b.alpha * drop
        wide = small + gain**2 * square * a.sigma**2 / (a.abar * square + a.sigma**2)
        kl = 0.5 * (wide / small).log() - 0.5 + small / (2 * wide) + (gain * (x0 - x_0[i])).square() / (2 * wide)
        assert float(loss[i]) == pytest.approx(100 * float(kl.mean()), rel=1e-9)


def test_steps_that_do_not_go_towards_the_data_are_refused() -> None:
    x, early, late = images(), Linear()(0.2), Linear()(0.6)
    for s, t in ((late, early), (late, late)):
        for wrong in (
            lambda s=s, t=t: posterior(x, x, s, t),
            lambda s=s, t=t: forward_step(x, s, t),
            lambda s=s, t=t: reverse(Prediction(x, x), x, s, t, Small()),
        ):
            with pytest.raises(ValueError, match="earlier s"):
                wrong()


def test_integers_are_no_images() -> None:
    with pytest.raises(ValueError, match="uint8 have no noise level: encode them as floats"):
        marginal(torch.zeros(2, 3, 4, 4, dtype=torch.uint8), Linear()(0.5))


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
