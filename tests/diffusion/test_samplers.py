"""Samplers: one contract over all, then each against closed forms, the papers, and diffusers."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler

from sfumato.diffusion import (
    DDIM,
    PARAMETERIZATIONS,
    Ancestral,
    Clipped,
    Cosine,
    FiniteOracle,
    GaussianOracle,
    Large,
    Linear,
    MixtureOracle,
    NetworkDenoiser,
    Noise,
    Prediction,
    Sampler,
    Small,
    State,
    ZeroTerminalSNR,
    leading,
    sample,
    trailing,
    trajectory,
)

from .common import images, noise, random_function

SAMPLERS: dict[str, Sampler] = {
    "ancestral-small": Ancestral(Small()),
    "ancestral-large": Ancestral(Large()),
    "ddim": DDIM(),
    "ddim-half": DDIM(0.5),
    "ddim-one": DDIM(1.0),
}
EVERY = pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS.keys())
NETWORK = NetworkDenoiser(random_function, Linear(), PARAMETERIZATIONS["eps"])


# The contract of every sampler


@EVERY
def test_the_mean_and_variance_of_gaussian_data_are_reached(sampler: Sampler) -> None:
    schedule, n = Cosine(), 20_000
    oracle = GaussianOracle(schedule, torch.tensor(0.5), torch.tensor(0.09))
    x = sample(oracle, sampler, trailing(250, schedule), Noise(0, torch.arange(n), (1,), torch.float64))
    # what is left over: 250 first-order steps (large variance overshoots by up to 1 %), and the statistics of n draws
    assert abs(float(x.mean()) - 0.5) < 0.002 + 4 * 0.3 / math.sqrt(n)
    assert abs(float(x.var()) / 0.09 - 1) < 0.015 + 4 * math.sqrt(2 / n)


@EVERY
def test_the_components_of_a_mixture_are_reached(sampler: Sampler) -> None:
    weights, means = torch.tensor([0.25, 0.75]), torch.tensor([[-0.8], [0.6]])
    oracle = MixtureOracle(Cosine(), weights, means, torch.tensor([[0.01], [0.0025]]))
    # the narrow component wants the whole chain: with 250 steps the small variance leaves its std 12 % short
    x = sample(oracle, sampler, trailing(1000, oracle.schedule), Noise(2, torch.arange(8000), (1,), torch.float64))
    left = x[x < 0]
    assert len(left) / 8000 == pytest.approx(0.25, abs=0.02)
    assert float(left.mean()) == pytest.approx(-0.8, abs=0.01)
    assert float(left.std()) == pytest.approx(0.1, rel=0.08)
    assert float(x[x > 0].std()) == pytest.approx(0.05, rel=0.08)


@EVERY
def test_a_finite_set_is_reproduced(sampler: Sampler) -> None:
    points = images(6, (1, 4, 4), seed=3)
    oracle = FiniteOracle(Cosine(), points)
    x = sample(oracle, sampler, trailing(100, oracle.schedule), noise(20, (1, 4, 4)))
    nearest = torch.cdist(x.flatten(1), points.flatten(1)).min(1).values
    assert float(nearest.max()) < 1e-3


@EVERY
def test_one_evaluation_a_step_and_a_state_for_each(sampler: Sampler) -> None:
    calls = []

    @dataclass(frozen=True)
    class Counting:
        schedule: Linear

        def __call__(self, x_t: torch.Tensor, t: float, condition: object = None) -> Prediction:
            calls.append((t, condition))
            return NETWORK(x_t, t)

    times = trailing(10, NETWORK.schedule)
    states = list(trajectory(Counting(Linear()), sampler, times, noise(2), condition="c"))
    assert [c for c, _ in calls] == times[:-1].tolist()
    assert {c for _, c in calls} == {"c"}
    assert [s.t for s in states] == times.tolist()
    assert [s.step for s in states] == list(range(11))
    assert torch.equal(states[0].x, noise(2).prior())
    assert states[0].prediction is None
    assert states[-1].prediction is not None


@EVERY
def test_no_noise_in_the_last_step(sampler: Sampler) -> None:
    """At s = 0 the step returns the predicted image itself: mu_theta with alpha_0 = 1, sigma_0 = 0."""
    state = State(images(3), 0.25, step=4)
    finished = sampler.step(NETWORK, state, 0.0, noise(3))
    assert torch.allclose(finished.x, NETWORK(state.x, 0.25).x0, atol=1e-10)


@EVERY
def test_image_i_does_not_depend_on_the_batch(sampler: Sampler) -> None:
    together = sample(NETWORK, sampler, trailing(12, NETWORK.schedule), Noise(5, torch.arange(6), (2, 3, 5)))
    for i in (0, 3, 5):
        alone = sample(NETWORK, sampler, trailing(12, NETWORK.schedule), Noise(5, torch.tensor([i]), (2, 3, 5)))
        assert torch.allclose(together[i], alone[0], atol=1e-5)


@EVERY
def test_one_sampler_serves_two_walks_at_once(sampler: Sampler) -> None:
    def walk(seed: int) -> torch.Tensor:
        return sample(NETWORK, sampler, trailing(20, NETWORK.schedule), noise(2, seed=seed))

    alone = [walk(seed) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        for a, b in zip(alone, pool.map(walk, range(4)), strict=True):
            assert torch.equal(a, b)
    first, second = (trajectory(NETWORK, sampler, trailing(20, NETWORK.schedule), noise(2, seed=s)) for s in (0, 1))
    interleaved = [(a.x, b.x) for a, b in zip(first, second, strict=True)][-1]
    assert torch.equal(interleaved[0], alone[0])
    assert torch.equal(interleaved[1], alone[1])


@EVERY
@pytest.mark.parametrize("shape", [(1,), (3, 8, 8), (4, 7)])
def test_any_shape_and_zero_terminal_snr(sampler: Sampler, shape: tuple[int, ...]) -> None:
    denoiser = NetworkDenoiser(random_function, ZeroTerminalSNR(base=Linear()), PARAMETERIZATIONS["v"])
    x = sample(denoiser, sampler, trailing(7, denoiser.schedule), noise(2, shape))
    assert x.shape == (2, *shape)
    assert bool(x.isfinite().all())


# Each against its definition


def exact_flow(x_T: torch.Tensor, oracle: GaussianOracle) -> torch.Tensor:
    """Where the probability-flow ODE takes x_T for Gaussian data: the same quantile of the data's Gaussian."""
    level = oracle.schedule(1.0)
    spread = (level.alpha.square() * oracle.variance + level.sigma.square()).sqrt()
    return oracle.mean + oracle.variance.sqrt() * (x_T - level.alpha * oracle.mean) / spread


def test_ddim_converges_with_order_one() -> None:
    oracle = GaussianOracle(Cosine(num_steps=8192), torch.tensor(0.3).double(), torch.tensor(0.25).double())
    source, counts = noise(8, (1,)), [32, 64, 128, 256, 512]
    errors = []
    for n in counts:
        x = sample(oracle, DDIM(), trailing(n, oracle.schedule), source)
        errors.append(float((x - exact_flow(source.prior(), oracle)).abs().mean()))
    logs = torch.tensor([[math.log(1 / n), math.log(e)] for n, e in zip(counts, errors, strict=True)])
    centred = logs - logs.mean(0)
    slope = float((centred[:, 0] * centred[:, 1]).sum() / centred[:, 0].square().sum())
    assert slope == pytest.approx(1.0, abs=0.1)
    assert errors[-1] < 3e-3


@pytest.mark.parametrize("num_steps", [5, 50, 1000])
@pytest.mark.parametrize("name", PARAMETERIZATIONS)
def test_ddim_with_eta_one_is_ancestral(num_steps: int, name: str) -> None:
    denoiser = NetworkDenoiser(random_function, Linear(), PARAMETERIZATIONS[name])
    grid = trailing(num_steps, denoiser.schedule)
    # a mu-network read off its own chain divides by (abar_{t-1} - abar_t): float64 still leaves nine digits
    a, b = (sample(Clipped(denoiser), sampler, grid, noise(2)) for sampler in (DDIM(1.0), Ancestral(Small())))
    assert torch.allclose(a, b, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(("s", "t"), [(0.3, 0.31), (0.2, 0.8), (0.5, 1.0)])
def test_one_ddim_step_is_equations_12_and_16(eta: float, s: float, t: float) -> None:
    schedule, state = Linear(), State(images(3), t, step=2)
    abar_s, abar_t = schedule(s).abar, schedule(t).abar
    sigma = eta * ((1 - abar_s) / (1 - abar_t)).sqrt() * (1 - abar_t / abar_s).sqrt()
    eps = NETWORK(state.x, t).eps
    x0 = (state.x - (1 - abar_t).sqrt() * eps) / abar_t.sqrt()
    z = noise(3).step(2)
    expected = abar_s.sqrt() * x0 + (1 - abar_s - sigma**2).sqrt() * eps + sigma * z
    assert torch.allclose(DDIM(eta).step(NETWORK, state, s, noise(3)).x, expected, atol=1e-8)


def test_one_ancestral_step_is_algorithm_2() -> None:
    schedule, i = Linear(), 400
    beta, abar = schedule.betas()[i - 1], schedule(i / 1000).abar
    state = State(images(3), i / 1000, step=7)
    mean = (state.x - beta / (1 - abar).sqrt() * NETWORK(state.x, i / 1000).eps) / (1 - beta).sqrt()
    x = Ancestral(Large()).step(NETWORK, state, (i - 1) / 1000, noise(3)).x
    assert torch.allclose(x, mean + beta.sqrt() * noise(3).step(7), atol=1e-8)


def test_deterministic_ddim_asks_for_no_noise() -> None:
    class Mute:
        def prior(self) -> torch.Tensor:
            return images(2)

        def step(self, i: int) -> torch.Tensor:
            raise AssertionError("asked")

    sample(NETWORK, DDIM(), trailing(5, NETWORK.schedule), Mute())
    with pytest.raises(AssertionError, match="asked"):
        sample(NETWORK, DDIM(0.1), trailing(5, NETWORK.schedule), Mute())


# Against diffusers, on a random function with the same noise

PREDICTION = {"eps": "epsilon", "x0": "sample", "v": "v_prediction"}


class Tape:
    """Our noise, in the order that diffusers' schedulers ask for it."""

    def __init__(self, count: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self.drawn = [torch.randn(2, 3, 4, 4, generator=generator, dtype=torch.float64) for _ in range(count + 1)]

    def prior(self) -> torch.Tensor:
        return self.drawn[0]

    def step(self, i: int) -> torch.Tensor:
        return self.drawn[1 + i]


def their_walk(scheduler, num_steps: int, tape: Tape, **settings: object) -> torch.Tensor:
    """Their loop as their pipeline writes it, in float64, with the tape's noise."""
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    assert torch.allclose(scheduler.alphas_cumprod.double(), (1 - betas).cumprod(0), rtol=1e-3)
    scheduler.alphas_cumprod = (1 - betas).cumprod(0)  # theirs is a float32 running product, good to 1e-4
    scheduler.set_timesteps(num_steps)
    x = tape.prior()
    generator = torch.Generator().manual_seed(0)
    torch.randn(2, 3, 4, 4, generator=generator, dtype=torch.float64)
    for t in scheduler.timesteps:
        output = random_function(x, torch.full((2,), float(t)))
        x = scheduler.step(output, t, x, generator=generator, **settings).prev_sample
    return x


@pytest.mark.parametrize("name", PREDICTION)
@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize(("ours", "theirs"), [(Small(), "fixed_small"), (Large(), "fixed_large")])
@pytest.mark.parametrize("num_steps", [1000, 50])
def test_ancestral_trajectory_equals_diffusers_ddpm(name, clip, ours, theirs, num_steps) -> None:
    scheduler = DDPMScheduler(
        prediction_type=PREDICTION[name], variance_type=theirs, clip_sample=clip, timestep_spacing="leading"
    )
    tape = Tape(num_steps)
    denoiser = NetworkDenoiser(random_function, Linear(), PARAMETERIZATIONS[name])
    mine = sample(Clipped(denoiser) if clip else denoiser, Ancestral(ours), leading(num_steps, denoiser.schedule), tape)
    expected = their_walk(scheduler, num_steps, tape)
    assert torch.allclose(mine, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", PREDICTION)
@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(("spacing", "grid"), [("leading", leading), ("trailing", trailing)])
def test_ddim_trajectory_equals_diffusers(name, clip, eta, spacing, grid) -> None:
    scheduler = DDIMScheduler(
        prediction_type=PREDICTION[name], clip_sample=clip, timestep_spacing=spacing, set_alpha_to_one=True
    )
    tape = Tape(50)
    denoiser = NetworkDenoiser(random_function, Linear(), PARAMETERIZATIONS[name])
    mine = sample(Clipped(denoiser) if clip else denoiser, DDIM(eta), grid(50, denoiser.schedule), tape)
    expected = their_walk(scheduler, 50, tape, eta=eta, use_clipped_model_output=True)
    assert torch.allclose(mine, expected, rtol=1e-6, atol=1e-6)


# Mistakes


@pytest.mark.parametrize("eta", [-0.1, 1.5])
def test_eta_outside_is_refused(eta: float) -> None:
    with pytest.raises(ValueError, match="choose from 0"):
        DDIM(eta)


def test_times_that_rise_are_refused() -> None:
    with pytest.raises(ValueError, match="must decrease"):
        sample(NETWORK, DDIM(), torch.tensor([1.0, 0.2, 0.3, 0.0]), noise(1))


def test_a_walk_can_start_from_a_given_image() -> None:
    times, source = trailing(20, NETWORK.schedule), noise(2)
    whole = list(trajectory(NETWORK, DDIM(0.5), times, source))
    assert torch.equal(
        sample(NETWORK, DDIM(), times, source, start=source.prior()), sample(NETWORK, DDIM(), times, source)
    )
    rest = sample(NETWORK, DDIM(), times[8:], source, start=whole[8].x)
    by_hand = State(whole[8].x, whole[8].t)
    for s in times[9:].tolist():
        by_hand = DDIM().step(NETWORK, by_hand, s, source)
    assert torch.equal(rest, by_hand.x)
