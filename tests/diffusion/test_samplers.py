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
    EDM,
    PARAMETERIZATIONS,
    PNDM,
    Ancestral,
    Clipped,
    Cosine,
    DPMSolver,
    DPMSolverSDE,
    Euler,
    FiniteOracle,
    GaussianOracle,
    Heun,
    Large,
    Linear,
    MixtureOracle,
    NetworkDenoiser,
    Noise,
    Prediction,
    Sampler,
    Small,
    State,
    UniPC,
    ZeroTerminalSNR,
    leading,
    sample,
    target,
    trailing,
    trajectory,
)
from sfumato.diffusion import SAMPLERS as REGISTRY

from .common import images, noise, random_function

SAMPLERS: dict[str, Sampler] = {
    "ancestral-small": Ancestral(Small()),
    "ancestral-large": Ancestral(Large()),
    "ddim": DDIM(),
    "ddim-half": DDIM(0.5),
    "ddim-one": DDIM(1.0),
    "euler": Euler(),
    "heun": Heun(),
    # churn ends above the level of the tests that look at a last step; s_noise other than 1 is wrong on purpose
    "edm": EDM(churn=0.02, s_min=1.0, s_noise=1.0),
    "dpmpp-1": DPMSolver(1),
    "dpmpp-2": DPMSolver(2),
    "dpmpp-3": DPMSolver(3),
    "dpmpp-sde-1": DPMSolverSDE(1),
    "dpmpp-sde": DPMSolverSDE(),
    "unipc-1": UniPC(1),
    "unipc": UniPC(),
    "unipc-3-bh1": UniPC(3, "bh1"),
    "pndm": PNDM(),
}
EVERY = pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS.keys())
NETWORK = NetworkDenoiser(random_function, Linear(), PARAMETERIZATIONS["eps"])


class Mute:
    """A source with a start and no noise."""

    def prior(self) -> torch.Tensor:
        return images(2)

    def step(self, i: int) -> torch.Tensor:
        raise AssertionError("asked")


# The contract of every sampler


@EVERY
def test_the_mean_and_variance_of_gaussian_data_are_reached(sampler: Sampler) -> None:
    schedule, n = Cosine(), 8000
    oracle = GaussianOracle(schedule, torch.tensor(0.5), torch.tensor(0.09))
    steps = 250 if sampler.order == 1 else 60
    x = sample(oracle, sampler, trailing(steps, schedule), Noise(0, torch.arange(n), (1,), torch.float64))
    # what is left over: 250 first-order steps (a few per cent), and the statistics of n draws
    assert abs(float(x.mean()) - 0.5) < 0.002 + 4 * 0.3 / math.sqrt(n)
    assert abs(float(x.var()) / 0.09 - 1) < 0.02 + 4 * math.sqrt(2 / n)


@EVERY
def test_a_mixture_with_correlated_coordinates_is_reached(sampler: Sampler) -> None:
    """Shares, mean and covariance of two components that lie askew; the steps leave a few per cent, draws the rest."""
    weights = torch.tensor([0.25, 0.75], dtype=torch.float64)
    means = torch.tensor([[-0.8, -0.5], [0.6, 0.4]], dtype=torch.float64)
    variances = torch.tensor([[0.04, 0.02], [0.03, 0.04]], dtype=torch.float64)
    oracle, n = MixtureOracle(Cosine(), weights, means, variances), 4000
    steps = 200 if sampler.order == 1 else 50
    x = sample(oracle, sampler, trailing(steps, oracle.schedule), Noise(2, torch.arange(n), (2,), torch.float64))
    mean = weights @ means
    covariance = (means.T * weights) @ means - mean[:, None] * mean + torch.diag(weights @ variances)
    left = x[:, 0] < 0
    assert float(left.double().mean()) == pytest.approx(0.25, abs=0.03)
    assert torch.allclose(x.mean(0), mean, atol=0.04)
    assert torch.allclose(x.T.cov(), covariance, atol=0.025)
    assert torch.allclose(x[left].var(0), variances[0], rtol=0.2)
    assert torch.allclose(x[~left].var(0), variances[1], rtol=0.15)


@EVERY
def test_a_finite_set_is_reproduced(sampler: Sampler) -> None:
    points = images(6, (1, 4, 4), seed=3)
    oracle = FiniteOracle(Cosine(), points)
    x = sample(oracle, sampler, trailing(50, oracle.schedule), noise(20, (1, 4, 4)))
    nearest = torch.cdist(x.flatten(1), points.flatten(1)).min(1).values
    assert float(nearest.max()) < 1e-3


@EVERY
def test_evaluations_are_those_promised_and_every_step_has_a_state(sampler: Sampler) -> None:
    calls = []

    @dataclass(frozen=True)
    class Counting:
        schedule: Linear

        def __call__(self, x_t: torch.Tensor, t: float, condition: object = None) -> Prediction:
            calls.append((t, condition))
            return NETWORK(x_t, t)

    times = trailing(10, NETWORK.schedule)
    states = list(trajectory(Counting(Linear()), sampler, times, noise(2), condition="c"))
    first, last = (1 if isinstance(sampler, PNDM) else 0), sampler.evaluations - 1
    assert len(calls) == 10 * sampler.evaluations + first - last
    assert {c for _, c in calls} == {"c"}
    if sampler.evaluations == 1 and not first:
        assert [t for t, _ in calls] == times[:-1].tolist()
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
        return sample(NETWORK, sampler, trailing(8, NETWORK.schedule), noise(2, seed=seed))

    alone = [walk(seed) for seed in range(3)]
    with ThreadPoolExecutor(3) as pool:
        for a, b in zip(alone, pool.map(walk, range(3)), strict=True):
            assert torch.equal(a, b)
    first, second = (trajectory(NETWORK, sampler, trailing(8, NETWORK.schedule), noise(2, seed=s)) for s in (0, 1))
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


@EVERY
def test_a_network_that_learnt_its_variance_can_be_walked(sampler: Sampler) -> None:
    """Its predictions carry a fraction; who has no use for it takes the same way as without."""

    def two_headed(x: torch.Tensor, time: torch.Tensor, condition: object = None) -> torch.Tensor:
        output = random_function(x, time)
        return torch.cat([output, torch.tanh(output.roll(1, -1))], 1)

    denoiser = NetworkDenoiser(two_headed, Linear(), PARAMETERIZATIONS["eps"])
    a, b = (sample(d, sampler, trailing(9, NETWORK.schedule), noise(2)) for d in (denoiser, NETWORK))
    assert torch.equal(a, b)


@EVERY
@pytest.mark.parametrize("name", ["x0", "v", "mu"])
def test_any_parameterisation_gives_the_same_image(sampler: Sampler, name: str) -> None:
    """The same prediction said in other words: a network that returns an oracle's answer in its own space."""
    schedule, space = Linear(), PARAMETERIZATIONS[name]
    oracle = MixtureOracle(schedule, torch.ones(3), images(3, (1, 4, 4)).clamp(-1, 1), torch.full((3, 1, 1, 1), 0.1))

    def network(x: torch.Tensor, time: torch.Tensor, condition: object = None) -> torch.Tensor:
        t = (time[0] + 1) / schedule.num_steps
        said = oracle(x, t)
        return target(space, said.x0, said.eps, schedule, t)

    denoiser = NetworkDenoiser(network, schedule, space)
    times, source = trailing(9, schedule), noise(2, (1, 4, 4))
    a, b = (sample(d, sampler, times, source) for d in (denoiser, oracle))
    assert torch.allclose(a, b, rtol=1e-5, atol=1e-5)


@EVERY
def test_a_chain_that_ends_in_pure_noise_reaches_the_data(sampler: Sampler) -> None:
    """alpha_T = 0: no lambda, no rho, and still the data's mean and spread."""
    schedule = ZeroTerminalSNR(base=Cosine())
    oracle = GaussianOracle(schedule, torch.tensor(0.5), torch.tensor(0.09))
    steps = 150 if sampler.order == 1 else 60
    x = sample(oracle, sampler, trailing(steps, schedule), Noise(0, torch.arange(4000), (1,), torch.float64))
    assert abs(float(x.mean()) - 0.5) < 0.003 + 4 * 0.3 / math.sqrt(4000)
    assert abs(float(x.var()) / 0.09 - 1) < 0.025 + 4 * math.sqrt(2 / 4000)


@EVERY
def test_float32_is_as_good_as_float64(sampler: Sampler) -> None:
    """Coefficients are float64 and differences of near numbers are avoided: what is left is the images' rounding."""
    oracle = MixtureOracle(Cosine(), torch.ones(3), images(3, (1, 4, 4)).clamp(-1, 1), torch.full((3, 1, 1, 1), 0.1))
    times = trailing(20, oracle.schedule)
    exact = sample(oracle, sampler, times, noise(4, (1, 4, 4)))
    single = sample(oracle, sampler, times, Noise(1, torch.arange(4), (1, 4, 4)))
    assert single.dtype == torch.float32
    assert torch.allclose(single.double(), exact, atol=1e-3)


@pytest.mark.parametrize("sampler", [s for s in SAMPLERS.values() if not s.stochastic])
def test_deterministic_samplers_ask_for_no_noise(sampler: Sampler) -> None:
    sample(NETWORK, sampler, trailing(5, NETWORK.schedule), Mute())


@pytest.mark.parametrize("sampler", [s for s in SAMPLERS.values() if s.stochastic])
def test_stochastic_samplers_ask_for_noise(sampler: Sampler) -> None:
    with pytest.raises(AssertionError, match="asked"):
        sample(NETWORK, sampler, trailing(5, NETWORK.schedule), Mute())


def test_the_registry_is_whole() -> None:
    """Every name builds a sampler with its defaults, and every sampler type has a name."""
    built = {name: make() for name, make in REGISTRY.items()}
    assert {type(sampler) for sampler in built.values()} == {type(sampler) for sampler in SAMPLERS.values()}
    assert [built[f"dpmpp-{order}"].order for order in (1, 2, 3)] == [1, 2, 3]
    assert built["ddim"] == DDIM(0.0)


# Each against its definition


def exact_flow(x_T: torch.Tensor, oracle: GaussianOracle) -> torch.Tensor:
    """Where the probability-flow ODE takes x_T for Gaussian data: the same quantile of the data's Gaussian."""
    level = oracle.schedule(1.0)
    spread = (level.alpha.square() * oracle.variance + level.sigma.square()).sqrt()
    return oracle.mean + oracle.variance.sqrt() * (x_T - level.alpha * oracle.mean) / spread


def test_ddim_converges_with_order_one() -> None:
    oracle = GaussianOracle(Cosine(num_steps=8192), torch.tensor(0.3).double(), torch.tensor(0.25).double())
    source, counts = noise(8, (1,)), [32, 64, 128, 256]
    errors = []
    for n in counts:
        x = sample(oracle, DDIM(), trailing(n, oracle.schedule), source)
        errors.append(float((x - exact_flow(source.prior(), oracle)).abs().mean()))
    logs = torch.tensor([[math.log(1 / n), math.log(e)] for n, e in zip(counts, errors, strict=True)])
    centred = logs - logs.mean(0)
    slope = float((centred[:, 0] * centred[:, 1]).sum() / centred[:, 0].square().sum())
    assert slope == pytest.approx(1.0, abs=0.1)
    assert errors[-1] < 6e-3


@pytest.mark.parametrize("num_steps", [5, 100])
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


@pytest.mark.parametrize("sampler", [Euler(), DPMSolver(1)])
@pytest.mark.parametrize("name", PARAMETERIZATIONS)
def test_euler_and_the_first_order_are_ddim(sampler: Sampler, name: str) -> None:
    denoiser = NetworkDenoiser(random_function, Linear(), PARAMETERIZATIONS[name])
    times = trailing(12, denoiser.schedule)
    a, b = (sample(Clipped(denoiser), s, times, noise(2)) for s in (sampler, DDIM()))
    assert torch.allclose(a, b, rtol=1e-6, atol=1e-6)
    if sampler == Euler():
        assert torch.equal(a, b)


def test_euler_is_eulers_method_in_rho() -> None:
    """y = x / alpha, dy / drho = eps."""
    t, s, x = 0.7, 0.4, images(3)
    a, b = Linear()(s), Linear()(t)
    y = x / b.alpha + (a.sigma / a.alpha - b.sigma / b.alpha) * NETWORK(x, t).eps
    assert torch.allclose(Euler().step(NETWORK, State(x, t), s, noise(3)).x, a.alpha * y, rtol=1e-10)


@pytest.mark.parametrize("num_steps", [5, 50])
@pytest.mark.parametrize("name", PARAMETERIZATIONS)
def test_the_first_order_sde_step_is_ancestral(num_steps: int, name: str) -> None:
    denoiser = NetworkDenoiser(random_function, Linear(), PARAMETERIZATIONS[name])
    times = trailing(num_steps, denoiser.schedule)
    a, b = (sample(Clipped(denoiser), s, times, noise(2)) for s in (DPMSolverSDE(1), Ancestral(Small())))
    assert torch.equal(a, b)


def heun_by_hand(y: torch.Tensor, rho_t: float, rho_s: float) -> torch.Tensor:
    """EDM Alg. 1, lines 4-8, in EDM's own variables: sigma(t) = t, D = x0."""

    def D(y: torch.Tensor, rho: float) -> torch.Tensor:
        t = Linear().time(torch.tensor(-2 * math.log(rho), dtype=torch.float64))
        return NETWORK(y / math.sqrt(1 + rho**2), t).x0

    d = (y - D(y, rho_t)) / rho_t
    ahead = y + (rho_s - rho_t) * d
    return y + (rho_s - rho_t) * (d + (ahead - D(ahead, rho_s)) / rho_s) / 2


def test_heun_is_algorithm_1_of_edm() -> None:
    t, s, x = 0.7, 0.6, images(3)
    (a, rho_s), (b, rho_t) = ((float(v.alpha), float(v.sigma / v.alpha)) for v in (Linear()(s), Linear()(t)))
    expected = a * heun_by_hand(x / b, rho_t, rho_s)
    assert torch.allclose(Heun().step(NETWORK, State(x, t), s, noise(3)).x, expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("inside", [True, False])
def test_edm_is_algorithm_2(inside: bool) -> None:
    t, s, x = 0.7, 0.6, images(3)
    (a, rho_s), (b, rho_t) = ((float(v.alpha), float(v.sigma / v.alpha)) for v in (Linear()(s), Linear()(t)))
    sampler = EDM(churn=0.15, s_min=0.1 if inside else 1.1 * rho_t, s_max=2 * rho_t, s_noise=1.007)
    rho = 1.15 * rho_t if inside else rho_t
    y = x / b + math.sqrt(rho**2 - rho_t**2) * 1.007 * noise(3).step(4)
    got = sampler.step(NETWORK, State(x, t, step=4), s, noise(3)).x
    assert torch.allclose(got, a * heun_by_hand(y, rho, rho_s), rtol=1e-8, atol=1e-8)


def test_churn_stays_on_the_schedule() -> None:
    """From t = 1 there is nothing noisier: no noise is drawn and the step is Heun's."""
    state = State(images(3), 1.0)
    a, b = (s.step(NETWORK, state, 0.9, Mute()).x for s in (EDM(churn=0.4, s_max=1e9), Heun()))
    assert torch.equal(a, b)


def test_a_corrected_step_from_far_above_does_no_harm() -> None:
    """A cosine chain ends at rho = 20 000; half a change of slope over that way would be 10 000 images long."""
    oracle = GaussianOracle(Cosine(), torch.tensor(0.0).double(), torch.tensor(0.25).double())
    x_T = noise(50, (4,)).prior()
    exact = exact_flow(x_T, oracle)
    for num_steps in (3, 6, 12):
        errors = [
            float((sample(oracle, s, trailing(num_steps, oracle.schedule), Mute(), start=x_T) - exact).abs().mean())
            for s in (Heun(), PNDM(), Euler())
        ]
        assert max(errors) <= errors[-1] + 0.01


def test_a_multistep_walk_can_be_broken_off_and_taken_up() -> None:
    """All that a sampler remembers is in the state, and changing x costs UniPC its correction and nothing else."""
    times = trailing(12, NETWORK.schedule)
    for sampler in (DPMSolver(3), DPMSolverSDE(), UniPC(), PNDM()):
        states = list(trajectory(NETWORK, sampler, times, noise(2)))
        state = states[5]
        for s in times[6:].tolist():
            state = sampler.step(NETWORK, state, s, noise(2))
        assert torch.equal(state.x, states[-1].x)
        forgetful = sampler.step(NETWORK, State(states[5].x, states[5].t, 5), float(times[6]), noise(2))
        assert not torch.allclose(forgetful.x, states[6].x, atol=1e-6)
        # memory of times that are not later (RePaint goes back up) is no memory
        back = State(states[5].x, 1.0, 5, history=states[5].history)
        plain = State(states[5].x, 1.0, 5)
        a, b = (sampler.step(NETWORK, state, 0.95, noise(2)).x for state in (back, plain))
        if not isinstance(sampler, UniPC):
            assert torch.equal(a, b)


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
@pytest.mark.parametrize("num_steps", [100, 50])
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


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: DPMSolver(4), "orders 1, 2 and 3"),
        (lambda: DPMSolverSDE(3), "orders 1 and 2"),
        (lambda: UniPC(0), "1, 2 or 3"),
        (lambda: UniPC(2, "bh3"), "bh1 or bh2"),
        (lambda: EDM(churn=0.5), "choose from 0"),
        (lambda: EDM(s_min=2.0, s_max=1.0), "must not exceed"),
    ],
)
def test_options_that_do_not_exist_are_refused(make, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make()


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
