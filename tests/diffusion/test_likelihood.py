"""The variational bound: exact on Gaussian data, its decoder a distribution, its terms an independent derivation's."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from sfumato.diffusion.decoder import Discretized, density
from sfumato.diffusion.denoiser import NetworkDenoiser
from sfumato.diffusion.gaussian import Gaussian
from sfumato.diffusion.grid import trailing
from sfumato.diffusion.likelihood import bits_per_dim, bound_term, prior_term, vlb
from sfumato.diffusion.oracle import GaussianOracle
from sfumato.diffusion.parameterization import PARAMETERIZATIONS
from sfumato.diffusion.prediction import Prediction
from sfumato.diffusion.process import marginal, posterior
from sfumato.diffusion.schedule import Cosine, Linear, Schedule
from sfumato.diffusion.variance import Large, Learned, Optimal, Small, Variance

from .common import images, noise, random_function, two_headed

MEAN, SQUARE = 0.3, 0.16


def quadrature(nodes: int = 4) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """All pairs of Gauss-Hermite nodes (x_0 of the data, eps) and their weights: exact for quadratics in both."""
    z, w = (torch.from_numpy(a) for a in np.polynomial.hermite_e.hermegauss(nodes))
    w = w / w.sum()
    x_0, eps = torch.meshgrid(MEAN + SQUARE**0.5 * z, z, indexing="ij")
    return x_0.reshape(-1, 1), eps.reshape(-1, 1), (w[:, None] * w[None, :]).reshape(-1)


def prior_gap(schedule: Schedule) -> float:
    """KL( q(x_T) || N(0, I) ) of the data, in nats."""
    level, zero = schedule(1.0), torch.zeros(()).double()
    noised = level.abar * SQUARE + level.sigma.square()
    return float(Gaussian(level.alpha * MEAN, noised.log()).kl(Gaussian(zero, zero)))


def expected_bound(num_steps: int, variance: Variance, schedule: Linear | Cosine) -> float:
    """E[L] in nats for Gaussian data and the oracle's mean, with a density for the last step."""
    oracle = GaussianOracle(schedule, torch.tensor(MEAN).double(), torch.tensor(SQUARE).double())
    x_0, eps, weight = quadrature()
    times = trailing(num_steps, schedule)
    levels = [schedule(t) for t in times.tolist()]
    total = float((weight * prior_term(x_0, levels[0])[:, 0]).sum())
    for i in range(num_steps):
        x_t = marginal(x_0, levels[i]).sample(eps)
        chain = levels[i + 1], levels[i], levels[max(i - 1, 0)]
        term = bound_term(oracle(x_t, float(times[i])), x_0, x_t, *chain, variance, density)
        total += float((weight * term[:, 0]).sum())
    return total


@pytest.mark.parametrize("num_steps", [25, 100, 1000])
@pytest.mark.parametrize("schedule", [Linear(), Cosine()])
def test_the_oracles_bound_misses_by_the_prior_gap_alone(num_steps: int, schedule) -> None:
    """With the true mean and variance, E[L] - H(x_0) = KL( q(x_T) || N(0, I) ), for every number of steps."""
    oracle = GaussianOracle(schedule, torch.tensor(MEAN).double(), torch.tensor(SQUARE).double())
    bound = expected_bound(num_steps, Optimal(oracle.posterior_variance), schedule)
    entropy = 0.5 * math.log(2 * math.pi * math.e * SQUARE)
    assert bound - entropy == pytest.approx(prior_gap(schedule), abs=1e-9)


@pytest.mark.parametrize("variance", [Small(), Large()])
def test_the_gap_of_a_fixed_variance_falls_as_one_over_the_steps(variance: Variance) -> None:
    """What a wrong variance costs: E KL - 1/2 log(v*/v~), summed over the chain without its last step, is O(1/T)."""
    gaps = []
    for num_steps in (200, 400):
        schedule = Cosine(num_steps=1600)
        oracle = GaussianOracle(schedule, torch.tensor(MEAN).double(), torch.tensor(SQUARE).double())
        x_0, eps, weight = quadrature()
        times = trailing(num_steps, schedule)
        gap = 0.0
        for t, s in zip(times[:-1].tolist(), times[1:].tolist(), strict=True):
            if s < 0.1:  # a fixed stretch of time, so that the number of steps in it alone changes
                break
            x_t = marginal(x_0, schedule(t)).sample(eps)
            for sign, rule in ((1, variance), (-1, Optimal(oracle.posterior_variance))):
                term = bound_term(oracle(x_t, t), x_0, x_t, schedule(s), schedule(t), schedule(1.0), rule)
                gap += sign * float((weight * term[:, 0]).sum())
        gaps.append(gap)
    assert gaps[-1] > 0
    assert gaps[0] / gaps[1] == pytest.approx(2.0, abs=0.05)


@pytest.mark.parametrize("std", [1e-5, 1e-3, 0.01, 0.3, 2.0])
@pytest.mark.parametrize("mean", [-1.0, -0.3, 0.0, 0.77, 1.4])
@pytest.mark.parametrize("levels", [256, 65536])
def test_the_decoders_probabilities_sum_to_one(levels: int, mean: float, std: float) -> None:
    """And those of 65,536 levels in single precision are as good as in double."""
    values = (2 * torch.arange(levels, dtype=torch.float64) / (levels - 1) - 1)[:, None]
    decoder = Gaussian(torch.full_like(values, mean), torch.tensor(2 * math.log(std), dtype=torch.float64))
    nll = Discretized(levels)(decoder, values)
    assert bool((nll >= -1e-12).all())
    assert float((-nll).exp().sum()) == pytest.approx(1.0, abs=1e-9)
    if levels > 256 and abs(mean) <= 1:
        x_0, single = values.float(), Gaussian(decoder.mean.float(), decoder.logvar.float())
        rounded = Discretized(levels)(single, x_0)
        assert float((-rounded.double()).exp().sum()) == pytest.approx(1.0, abs=1e-4)
        exact = Discretized(levels)(Gaussian(single.mean.double(), single.logvar.double()), x_0.double())
        near = (x_0 - mean).abs() < 3 * std + 1e-4  # further out a value's own rounding is many bins' density
        assert torch.allclose(rounded[near].double(), exact[near], rtol=1e-6, atol=1e-5)


def test_the_decoder_equals_scipys_tails() -> None:
    values = (2 * torch.tensor([0.0, 1, 100, 128, 254, 255], dtype=torch.float64) / 255 - 1)[:, None]
    for mean, std in ((0.0, 0.05), (-0.9, 0.02), (0.6, 0.1)):
        got = -Discretized()(
            Gaussian(torch.full_like(values, mean), torch.tensor(2 * math.log(std), dtype=torch.float64)), values
        )
        for value, log_p in zip(values[:, 0].tolist(), got[:, 0].tolist(), strict=True):
            low = -math.inf if value == -1 else (value - 1 / 255 - mean) / std
            high = math.inf if value == 1 else (value + 1 / 255 - mean) / std
            if low + high > 0:
                low, high = -high, -low
            a, b = stats.norm.logcdf(low), stats.norm.logcdf(high)
            assert log_p == pytest.approx(b + math.log1p(-math.exp(a - b)), rel=1e-8, abs=1e-12)


def test_the_decoder_has_finite_gradients_in_single_precision() -> None:
    values = (2 * torch.tensor([0.0, 1, 128, 254, 255]) / 255 - 1)[:, None]
    for mean in (-1.2, 0.0, 0.9):
        m = torch.full_like(values, mean, requires_grad=True)
        logvar = torch.full_like(values, 2 * math.log(0.02), requires_grad=True)
        nll = Discretized()(Gaussian(m, logvar), values)
        nll.sum().backward()
        assert bool(nll.isfinite().all())
        assert bool(m.grad.isfinite().all())
        assert bool(logvar.grad.isfinite().all())


@pytest.mark.parametrize("name", PARAMETERIZATIONS)
@pytest.mark.parametrize("rule", [Small(), Large(), Learned()])
def test_every_term_equals_an_independent_derivation(name: str, rule: Variance) -> None:
    """The bound of a random function on the full chain, against DDPM's formulae in numpy with their tables of beta."""
    schedule, T = Linear(num_steps=20), 20
    shape = (2, 3, 4)
    learned = isinstance(rule, Learned)
    denoiser = NetworkDenoiser(two_headed if learned else random_function, schedule, PARAMETERIZATIONS[name])
    pixels = torch.randint(0, 256, (3, *shape), generator=torch.Generator().manual_seed(0))
    x_0 = 2 * pixels.double() / 255 - 1
    source = noise(3, shape)
    got = vlb(denoiser, x_0, trailing(T, schedule), source, rule)

    betas = np.minimum(np.linspace(1e-4, 0.02, T) * (1000 / T), 0.999)
    alphas, abars = 1 - betas, np.cumprod(1 - betas)
    before = np.append(1.0, abars[:-1])
    tilde = betas * (1 - before) / (1 - abars)
    x = x_0.numpy()
    expected = []
    for i in range(T, 0, -1):
        k = i - 1
        x_t = np.sqrt(abars[k]) * x + np.sqrt(1 - abars[k]) * source.step(T - i).numpy()
        output = random_function(torch.from_numpy(x_t), torch.full((3,), float(k))).numpy()
        a_t = np.sqrt(alphas[k]) * (1 - before[k]) / (1 - abars[k])
        a_0 = np.sqrt(before[k]) * betas[k] / (1 - abars[k])
        x0_hat = {
            "eps": (x_t - np.sqrt(1 - abars[k]) * output) / np.sqrt(abars[k]),
            "x0": output,
            "v": np.sqrt(abars[k]) * x_t - np.sqrt(1 - abars[k]) * output,
            "mu": (output - a_t * x_t) / a_0,
            "refined": (0.01 * np.sqrt(abars[k]) * x_t + (1 - abars[k]) * output) / (1 - 0.99 * abars[k]),
            "velocity": (x_t - np.sqrt(1 - abars[k]) * output) / (np.sqrt(abars[k]) + np.sqrt(1 - abars[k])),
        }[name]
        mean, true = a_t * x_t + a_0 * x0_hat, a_t * x_t + a_0 * x
        log_tilde = np.log(tilde[k] if k else tilde[1])
        if learned:
            f = (np.tanh(np.roll(output, 1, -1)) + 1) / 2
            logvar = f * np.log(betas[k]) + (1 - f) * log_tilde
        else:
            logvar = log_tilde if isinstance(rule, Small) else np.log(betas[k])
        logvar = np.broadcast_to(logvar, x.shape)
        if k:
            nats = 0.5 * (logvar - log_tilde - 1 + tilde[k] / np.exp(logvar) + (mean - true) ** 2 / np.exp(logvar))
        else:
            std = np.exp(logvar / 2)
            low = np.where(x == -1, -np.inf, (x - 1 / 255 - mean) / std)
            high = np.where(x == 1, np.inf, (x + 1 / 255 - mean) / std)
            flip = low + high > 0
            low, high = np.where(flip, -high, low), np.where(flip, -low, high)
            log_b, log_a = stats.norm.logcdf(high), stats.norm.logcdf(low)
            nats = -(log_b + np.log1p(-np.exp(log_a - log_b)))
        expected.append(nats.reshape(3, -1).mean(1) / np.log(2))
    prior = 0.5 * (abars[-1] * x**2 - abars[-1] - np.log1p(-abars[-1]))
    assert np.allclose(got.prior.numpy(), prior.reshape(3, -1).mean(1) / np.log(2), rtol=1e-9)
    assert np.allclose(got.steps.numpy(), np.stack(expected[:-1], 1), rtol=1e-6)
    assert np.allclose(got.decoder.numpy(), expected[-1], rtol=1e-6)
    assert torch.allclose(got.total, got.prior + got.steps.sum(1) + got.decoder)


def test_a_fixed_variance_term_is_the_weighted_noise_error() -> None:
    """KL = (1 - alpha_t)^2 / (2 var alpha_t (1 - abar_t)) || eps - eps^ ||^2 + a constant (DDPM Eq. 12)."""
    schedule, i = Linear(), 300
    x_0, eps, guess = images(), images(seed=1), images(seed=2)
    level_s, level_t = schedule((i - 1) / 1000), schedule(i / 1000)
    x_t = marginal(x_0, level_t).sample(eps)
    x0 = (x_t - level_t.sigma * guess) / level_t.alpha
    beta = schedule.betas()[i - 1]
    term = bound_term(Prediction(x0, guess), x_0, x_t, level_s, level_t, level_t, Large())
    weight = beta**2 / (2 * beta * (1 - beta) * (1 - level_t.abar))
    ratio = posterior(x_t, x_0, level_s, level_t).variance / beta
    constant = 0.5 * (ratio - 1 - ratio.log())
    assert torch.allclose(term, weight * (eps - guess).square() + constant, rtol=1e-7)


def test_a_respaced_chain_has_a_bound_of_its_own() -> None:
    schedule, x_0 = Linear(), 2 * torch.randint(0, 256, (2, 1, 4, 4)).double() / 255 - 1
    denoiser = NetworkDenoiser(random_function, schedule, PARAMETERIZATIONS["x0"])
    result = vlb(denoiser, x_0, trailing(10, schedule), noise(2, (1, 4, 4)), Small())
    assert result.steps.shape == (2, 9)
    assert result.mse.shape == (2, 10)
    assert bool((result.total > 0).all())
    alone = vlb(denoiser, x_0, trailing(1, schedule), noise(2, (1, 4, 4)), Large())
    assert alone.steps.shape == (2, 0)


def test_bits() -> None:
    assert float(bits_per_dim(torch.full((1, 3, 2, 2), math.log(256.0)))) == pytest.approx(8.0)


def test_a_learned_variance_needs_one_that_was_learnt() -> None:
    with pytest.raises(ValueError, match="predicts no variance"):
        Learned().logvar(Linear()(0.1), Linear()(0.2), Prediction(images(), images()))


@pytest.mark.parametrize("far", [3.0, 1e2, 1e3, 1e4, 1e6])
@pytest.mark.parametrize("std", [1e-3, 0.01, 0.3])
def test_the_decoders_gradient_is_right_in_single_precision_far_out(far: float, std: float) -> None:
    """-log of the mass grows like z^2 / 2; its derivative by the mean was 7 % off at 1,000 sigma and 0 at 100,000."""
    found = {}
    for dtype in (torch.float32, torch.float64):
        mean = torch.tensor([far * std, -far * std], dtype=dtype, requires_grad=True)
        logvar = torch.full((2,), 2 * math.log(std), dtype=dtype, requires_grad=True)
        nats = Discretized()(Gaussian(mean, logvar), torch.zeros(2, dtype=dtype))
        found[dtype] = [nats, *torch.autograd.grad(nats.sum(), (mean, logvar))]
    for single, double in zip(*found.values(), strict=True):
        assert torch.allclose(single.double(), double, rtol=1e-5)
    nearer = far - 1 / 255 / std  # the mass is at the bin's near edge
    if nearer * 2 / 255 / std > 20:
        assert float(found[torch.float64][1][0]) == pytest.approx((nearer + 1 / nearer) / std, rel=1e-3)


def test_narrow_bins_have_their_width_times_the_density() -> None:
    """Of a Gaussian much wider than a bin, to the rounding of single precision."""
    x_0 = 2 * torch.tensor([[1000.0], [32000.0], [60000.0]]) / 65535 - 1
    decoder = Gaussian(torch.full_like(x_0, 0.1), torch.tensor(2 * math.log(0.4)))
    nll = Discretized(65536)(decoder, x_0)
    assert torch.allclose(nll, density(decoder, x_0) - math.log(2 / 65535), atol=1e-5)


@pytest.mark.parametrize("num_steps", [10, 200])
def test_the_bound_of_a_density_misses_by_the_prior_gap_alone(num_steps: int) -> None:
    """As above, with the likelihood's own walk and without levels: E[L] - h(x_0) = KL( q(x_T) || N(0, I) )."""
    schedule, count = Cosine(num_steps=1000), 40_000
    oracle = GaussianOracle(schedule, torch.full((1, 1, 1), MEAN).double(), torch.full((1, 1, 1), SQUARE).double())
    x_0 = MEAN + SQUARE**0.5 * images(count, (1, 1, 1), seed=3)
    times, source = trailing(num_steps, schedule), noise(count, (1, 1, 1))
    bound = vlb(oracle, x_0, times, source, Optimal(oracle.posterior_variance), decoder=density)
    bits = bound.total - 0.5 * math.log2(2 * math.pi * math.e * SQUARE)
    error = 4 * float(bits.std()) / count**0.5
    assert abs(float(bits.mean()) - prior_gap(schedule) / math.log(2)) < error < 0.05
