"""Objectives: L_simple, the bound from one t, the hybrid, weights, and importance sampling of t."""

from __future__ import annotations

import math

import pytest
import torch

from sfumato.diffusion.denoiser import NetworkDenoiser
from sfumato.diffusion.grid import trailing
from sfumato.diffusion.likelihood import bits_per_dim, prior_term, vlb
from sfumato.diffusion.objective import (
    P2,
    PUBLISHED_WEIGHT,
    Bound,
    EDMWeight,
    Hybrid,
    LossHistory,
    MinSNR,
    Noised,
    SigmoidWeight,
    Simple,
    Terms,
    Weighted,
    learns_from_pure_noise,
    logsnr_rate,
    training_loss,
)
from sfumato.diffusion.oracle import GaussianOracle
from sfumato.diffusion.parameterization import PARAMETERIZATIONS, Eps, target
from sfumato.diffusion.prediction import Prediction
from sfumato.diffusion.process import marginal
from sfumato.diffusion.schedule import Cosine, FlowPath, Linear, ZeroTerminalSNR
from sfumato.diffusion.timesteps import sample_timesteps
from sfumato.diffusion.variance import VARIANCES, Large, Learned, Small, reverse

from .common import images, noise, random_function, two_headed


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


SCHEDULE = Linear(num_steps=12)
SHAPE = (2, 3, 4)
X_0 = 2 * torch.randint(0, 256, (3, *SHAPE), generator=torch.Generator().manual_seed(3)).double() / 255 - 1


@pytest.mark.parametrize("name", PARAMETERIZATIONS)
@pytest.mark.parametrize("rule", [Small(), Large(), Learned()])
def test_the_mean_of_sampled_terms_is_the_full_sum(name: str, rule) -> None:
    """Averaging the objective over every t of the chain gives L_vlb - L_T in nats a coordinate."""
    denoiser = NetworkDenoiser(two_headed, SCHEDULE, PARAMETERIZATIONS[name])
    source = noise(3, SHAPE)
    total = vlb(denoiser, X_0, trailing(12, SCHEDULE), source, rule)
    losses = []
    for i in range(12, 0, -1):
        t = torch.full((3,), i / 12, dtype=torch.float64)
        losses.append(training_loss(Bound(rule), denoiser, X_0, t, source.step(12 - i)).loss)
    expected = total.total - bits_per_dim(prior_term(X_0, SCHEDULE(1.0)))
    got = torch.stack(losses).mean(0) / torch.log(torch.tensor(2.0, dtype=torch.float64))
    assert torch.allclose(got, expected, rtol=1e-9)


def test_a_batch_may_mix_first_and_other_steps() -> None:
    denoiser = NetworkDenoiser(two_headed, SCHEDULE, PARAMETERIZATIONS["eps"])
    t = torch.tensor([1 / 12, 5 / 12, 1.0], dtype=torch.float64)
    eps = images(3, SHAPE, seed=2)
    together = training_loss(Bound(Learned()), denoiser, X_0, t, eps).loss
    for i in range(3):
        alone = training_loss(Bound(Learned()), denoiser, X_0[i : i + 1], t[i : i + 1], eps[i : i + 1]).loss
        assert torch.allclose(together[i], alone[0])


@pytest.mark.parametrize("t", [1 / 12, 0.5, 1.0])
def test_the_bound_teaches_the_variance_alone_in_the_hybrid(t: float) -> None:
    eps, time = images(3, SHAPE, seed=2), torch.full((3,), t, dtype=torch.float64)
    mean, width = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (0.9, 0.2))

    def net(x: torch.Tensor, clock: torch.Tensor, condition: object = None) -> torch.Tensor:
        output = random_function(x, clock)
        return torch.cat([mean * output, width * torch.tanh(output)], 1)

    denoiser = NetworkDenoiser(net, SCHEDULE, Eps())
    hybrid, simple, bound = Hybrid(Simple(Eps()), Bound(Learned()), 1e-3), Simple(Eps()), Bound(Learned())
    values = [training_loss(o, denoiser, X_0, time, eps).loss for o in (hybrid, simple, bound)]
    assert torch.allclose(values[0], values[1] + 1e-3 * values[2])

    def gradients(objective) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.autograd.grad(training_loss(objective, denoiser, X_0, time, eps).loss.sum(), (mean, width))

    of_hybrid, of_simple, of_bound = gradients(hybrid), gradients(simple), gradients(bound)
    assert torch.allclose(of_hybrid[0], of_simple[0])
    assert float(of_simple[1]) == 0
    assert torch.allclose(of_hybrid[1], 1e-3 * of_bound[1])
    assert float(of_bound[0].abs()) > 0


def test_the_learned_variance_interpolates_logarithms() -> None:
    level_s, level_t = SCHEDULE(0.25), SCHEDULE(0.75)
    x_t = images(3, SHAPE)
    small, large = (
        reverse(Prediction(x_t, x_t), x_t, level_s, level_t, rule).logvar.expand(3, *SHAPE)
        for rule in (Small(), Large())
    )
    for f in (0.0, 0.3, 1.0):
        prediction = Prediction(x_t, x_t, torch.full_like(x_t, f))
        assert torch.allclose(Learned().logvar(level_s, level_t, prediction), f * large + (1 - f) * small)
    output = two_headed(x_t, torch.full((3,), 8.0))
    fraction = NetworkDenoiser(two_headed, SCHEDULE, Eps())(x_t, 0.75).fraction
    assert torch.allclose(fraction, (output[:, 2:] + 1) / 2)


def test_the_first_steps_floor_is_the_second_steps() -> None:
    """The published code takes log beta~ at t = 2 for t = 1."""
    betas = SCHEDULE.betas()
    abars = (1 - betas).cumprod(0)
    tilde_2 = betas[1] * (1 - abars[0]) / (1 - abars[1])
    levels = SCHEDULE(0.0), SCHEDULE(1 / 12)
    got = Small().logvar(*levels, Prediction(X_0, X_0), SCHEDULE(2 / 12))
    assert float(got.exp()) == pytest.approx(float(tilde_2), rel=1e-9)
    assert float(Small().logvar(*levels, Prediction(X_0, X_0))) == -torch.inf


WEIGHTS = {
    "min-snr": (MinSNR(5.0), lambda snr: torch.minimum(snr, torch.tensor(5.0)) / snr),
    "p2": (P2(1.0, 0.5), lambda snr: 1 / (1 + snr).sqrt()),
    "edm": (EDMWeight(0.4), lambda snr: 1 + 1 / (snr * 0.16)),
    "sigmoid": (SigmoidWeight(1.5), lambda snr: 1 / (1 + snr * torch.exp(torch.tensor(-1.5)).double())),
}


@pytest.mark.parametrize(("weighting", "formula"), list(WEIGHTS.values()), ids=list(WEIGHTS))
@pytest.mark.parametrize("name", PARAMETERIZATIONS)
def test_a_weighted_loss_is_the_same_in_every_space(weighting, formula, name: str) -> None:
    """Weighted on eps, or converted by hand to the space of x0 (weight SNR w) or v (weight w SNR / (SNR + 1))."""
    t = torch.tensor([1 / 12, 0.5, 1.0], dtype=torch.float64)
    eps, denoiser = images(3, SHAPE, seed=2), NetworkDenoiser(random_function, SCHEDULE, PARAMETERIZATIONS[name])
    got = training_loss(Weighted(weighting), denoiser, X_0, t, eps).loss
    snr = SCHEDULE(t).logsnr.exp()
    x_t = marginal(X_0, SCHEDULE(t)).sample(eps)
    prediction = denoiser(x_t, t)
    in_x0 = (prediction.x0 - X_0).square().flatten(1).mean(1)
    weight = formula(snr) * (logsnr_rate(SCHEDULE, t) / 2 if weighting.by_logsnr else 1)
    assert torch.allclose(got, weight * snr * in_x0, rtol=1e-6)
    in_v = training_loss(Simple(PARAMETERIZATIONS["v"]), denoiser, X_0, t, eps).loss
    assert torch.allclose(got, weight * snr / (snr + 1) * in_v, rtol=1e-6)


def test_the_rate_of_logsnr_is_its_derivative() -> None:
    """Of the straight path 2 / (t (1 - t)); of DDPM's chain T beta_t / sigma_t^2, its differential equation's."""
    t = torch.tensor([0.1, 0.35, 0.5, 0.9], dtype=torch.float64)
    assert torch.allclose(logsnr_rate(FlowPath(1000), t), 2 / (t * (1 - t)), rtol=1e-3)
    schedule = Linear()
    beta = schedule.betas()[(t * 1000).round().long() - 1]
    assert torch.allclose(logsnr_rate(schedule, t), 1000 * beta / schedule(t).sigma.square(), rtol=0.02)
    assert logsnr_rate(FlowPath(1000), torch.ones(1).double()).tolist() == [0.0]


@pytest.mark.parametrize("schedule", [Linear(), Cosine(), FlowPath(4000)], ids=["linear", "cosine", "flow"])
def test_the_sigmoid_weight_is_vdms_loss_on_every_schedule(schedule) -> None:
    """1/2 int w(l) Var[eps | x] dl of Gaussian data: VDM++ Eq. 4, an integral over logsnr that no schedule enters."""
    t = (torch.arange(schedule.num_steps) + 1).double() / schedule.num_steps
    level = schedule(t)
    variance = 0.3 * level.abar / (0.3 * level.abar + level.sigma.square())
    zero = torch.zeros(len(t), 1, dtype=torch.float64)
    loss = Weighted(SigmoidWeight(1.5)).losses(
        Prediction(zero, variance.sqrt()[:, None]), Noised(zero, zero, zero, t, schedule)
    )
    logsnr = torch.linspace(-40, 40, 200_001, dtype=torch.float64)
    abar = torch.sigmoid(logsnr)
    exact = torch.sigmoid(1.5 - logsnr) * 0.3 * abar / (0.3 * abar + 1 - abar) / 2
    assert float(loss.mean()) == pytest.approx(float(torch.trapezoid(exact, logsnr)), rel=0.01)


@pytest.mark.parametrize("name", ["v", "x0", "velocity", "refined"])
def test_losses_of_eps_do_not_train_where_a_sample_starts(name: str) -> None:
    """On a chain that ends in pure noise the error of eps is 0 there, whatever the network predicts."""
    space, chain, flow = PARAMETERIZATIONS[name], ZeroTerminalSNR(base=Linear(100)), FlowPath(100)
    for schedule in (chain, flow):
        assert learns_from_pure_noise(Simple(space), space, schedule)
        assert learns_from_pure_noise(Bound(Small()), space, schedule)
        assert learns_from_pure_noise(Hybrid(Simple(space)), space, schedule)
        for blind in (Simple(Eps()), *map(Weighted, (MinSNR(), P2(), SigmoidWeight()))):
            assert not learns_from_pure_noise(blind, space, schedule)
            assert not learns_from_pure_noise(Hybrid(blind), space, schedule)
            assert learns_from_pure_noise(blind, space, Linear(100))
        assert learns_from_pure_noise(Weighted(EDMWeight()), space, schedule)  # of x_0, 1 / s^2 there


def test_the_published_hybrid_weighs_bits() -> None:
    """IDDPM's code adds T / 1000 times the term at t in bits a dimension to the mean squared error."""
    denoiser, eps = NetworkDenoiser(two_headed, SCHEDULE, Eps()), images(3, SHAPE, seed=2)
    t = torch.tensor([1, 5, 12], dtype=torch.float64) / 12
    got = training_loss(Hybrid(weight=PUBLISHED_WEIGHT), denoiser, X_0, t, eps).loss
    simple = training_loss(Simple(), denoiser, X_0, t, eps).loss
    bits = training_loss(Bound(Learned()), denoiser, X_0, t, eps).loss / 12 / math.log(2)
    assert torch.allclose(got - simple, 12 / 1000 * bits, rtol=1e-9)


@pytest.mark.parametrize("num_steps", [12, 1000])
def test_fixedlarge_has_the_published_width_in_the_decoder(num_steps: int) -> None:
    """The published code: variances (beta~_2, beta_2, .., beta_T), and the first scores x_0."""
    schedule = Linear(num_steps)
    betas = schedule.betas()
    abar = (1 - betas).cumprod(0)
    tilde_2 = betas[1] * (1 - abar[0]) / (1 - abar[1])
    levels = [schedule(i / num_steps) for i in range(4)]
    zero = Prediction(X_0, X_0)
    rule = VARIANCES["fixedlarge"]
    assert float(rule.logvar(levels[0], levels[1], zero, levels[2]).exp()) == pytest.approx(float(tilde_2), rel=1e-9)
    assert float(Large().logvar(levels[0], levels[1], zero, levels[2]).exp()) == pytest.approx(float(betas[0]))
    for a, b, c in ((1, 2, 3), (0, 1, None)):
        later = None if c is None else levels[c]
        assert torch.equal(rule.logvar(levels[a], levels[b], zero, later), Large().logvar(levels[a], levels[b], zero))


@pytest.mark.parametrize("weighting", [MinSNR(), P2(), SigmoidWeight()])
def test_weights_are_finite_from_clean_to_pure_noise(weighting) -> None:
    ends = weighting(torch.tensor([torch.inf, 20.0, 0.0, -20.0, -torch.inf], dtype=torch.float64))
    assert bool(ends.isfinite().all())
    assert bool((ends >= 0).all())


T = 8
SCALE = torch.tensor([100.0, 10, 3, 1, 0.5, 0.2, 0.1, 0.05], dtype=torch.float64)


def trained(rounds: int) -> LossHistory:
    history, t = LossHistory.empty(T), (torch.arange(T) + 1).double() / T
    for k in range(rounds):
        history = history.update(Terms(SCALE * (1 + 0.1 * (-1) ** k), t))
    return history


@pytest.mark.parametrize("rounds", [0, 9])
def test_uniform_until_every_time_was_seen_ten_times(rounds: int) -> None:
    assert torch.allclose(trained(rounds).probabilities, torch.full((T,), 1 / T).double())


def test_probabilities_are_iddpm_equation_18() -> None:
    root = (SCALE**2 * (1 + 0.01)).sqrt()  # mean of (1.1^2 + 0.9^2) / 2
    expected = 0.999 * root / root.sum() + 0.001 / T
    assert torch.allclose(trained(10).probabilities, expected)
    assert torch.allclose(trained(33).probabilities.sum(), torch.ones(()).double())


def test_only_the_last_ten_count() -> None:
    history, t = trained(10), (torch.arange(T) + 1).double() / T
    for _ in range(10):
        history = history.update(Terms(torch.ones(T), t))
    assert torch.allclose(history.probabilities, torch.full((T,), 1 / T).double())


def test_weighted_losses_keep_the_mean_and_lose_variance() -> None:
    history = trained(20)
    u = (torch.arange(200_000).double() + 0.5) / 200_000
    t, weights = history.draw(u)
    loss = SCALE[(t * T).round().long() - 1]
    assert float((weights * loss).mean()) == pytest.approx(float(SCALE.mean()), rel=1e-3)
    assert float((weights * loss).var()) < 0.01 * float(SCALE.var())
    uniform_t, ones = LossHistory.empty(T).draw(u)
    assert torch.allclose(ones, torch.ones_like(ones))
    assert (uniform_t * T).round().long().bincount().tolist() == [0] + [25_000] * T


def test_a_step_met_twice_in_a_batch_counts_twice_and_nan_not_at_all() -> None:
    t = torch.tensor([1.0, 1.0, 0.5, 0.5]).double()
    history = LossHistory.empty(T).update(Terms(torch.tensor([1.0, 2.0, torch.nan, torch.inf]), t))
    assert history.seen.tolist() == [0, 0, 0, 0, 0, 0, 0, 2]
    assert sorted(history.losses[7].tolist())[-2:] == [1.0, 2.0]
    assert bool(history.losses.isfinite().all())
    assert int(LossHistory.empty(T).seen.sum()) == 0
