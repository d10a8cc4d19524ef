"""Samplers: one contract over all, then each against closed forms, the papers, and diffusers."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
import torch

from sfumato.diffusion import SAMPLERS as REGISTRY
from sfumato.diffusion.denoiser import NetworkDenoiser
from sfumato.diffusion.grid import trailing
from sfumato.diffusion.noise import Noise
from sfumato.diffusion.oracle import FiniteOracle, GaussianOracle, MixtureOracle
from sfumato.diffusion.parameterization import PARAMETERIZATIONS, target
from sfumato.diffusion.prediction import Prediction
from sfumato.diffusion.samplers.ddim import DDIM, Ancestral
from sfumato.diffusion.samplers.dpm import DPMSolver, DPMSolverSDE
from sfumato.diffusion.samplers.heun import EDM, Heun
from sfumato.diffusion.samplers.pndm import PNDM
from sfumato.diffusion.samplers.protocol import Sampler, State, sample, trajectory
from sfumato.diffusion.samplers.unipc import UniPC
from sfumato.diffusion.schedule import Cosine, FlowPath, Linear, Schedule, ZeroTerminalSNR
from sfumato.diffusion.variance import Large, Small

from .common import Mute, images, noise, random_function, two_headed

SAMPLERS: dict[str, Sampler] = {
    "ancestral-small": Ancestral(Small()),
    "ancestral-large": Ancestral(Large()),
    "ddim": DDIM(),
    "ddim-half": DDIM(0.5),
    "ddim-one": DDIM(1.0),
    "heun": Heun(),
    # churn ends above the level of the tests that look at a last step; s_noise other than 1 is wrong on purpose
    "edm": EDM(churn=0.02, s_min=1.0, s_noise=1.0),
    "dpmpp-2": DPMSolver(2),
    "dpmpp-3": DPMSolver(3),
    "dpmpp-sde": DPMSolverSDE(),
    "unipc-1": UniPC(1),
    "unipc": UniPC(),
    "unipc-3-bh1": UniPC(3, "bh1"),
    "pndm": PNDM(),
}
EVERY = pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS.keys())
PATHS = {"cosine": Cosine(), "zero-terminal": ZeroTerminalSNR(base=Cosine()), "flow": FlowPath()}
NETWORK = NetworkDenoiser(random_function, Linear(), PARAMETERIZATIONS["eps"])


# The contract of every sampler


@EVERY
@pytest.mark.parametrize("schedule", PATHS.values(), ids=PATHS.keys())
def test_the_mean_and_variance_of_gaussian_data_are_reached(sampler: Sampler, schedule: Schedule) -> None:
    """From nearly pure noise, and from pure noise, alpha_T = 0, where there is no lambda and no rho."""
    oracle, n = GaussianOracle(schedule, torch.tensor(0.5), torch.tensor(0.09)), 8000
    steps = 250 if sampler.order == 1 else 60
    x = sample(oracle, sampler, trailing(steps, schedule), Noise(0, torch.arange(n), (1,), torch.float64))
    # what is left over: 250 first-order steps (a few per cent), and the statistics of n samples
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
    denoiser = NetworkDenoiser(two_headed, Linear(), PARAMETERIZATIONS["eps"])
    a, b = (sample(d, sampler, trailing(9, NETWORK.schedule), noise(2)) for d in (denoiser, NETWORK))
    assert torch.equal(a, b)


@EVERY
@pytest.mark.parametrize("name", ["x0", "v", "mu", "velocity"])
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


# Mistakes


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: DPMSolver(4), "orders 2 and 3"),
        (lambda: DPMSolver(1), "first order is DDIM"),
        (lambda: UniPC(0), "1, 2 or 3"),
        (lambda: UniPC(2, "bh3"), "bh1 or bh2"),
        (lambda: EDM(churn=0.5), "choose from 0"),
        (lambda: EDM(s_min=2.0, s_max=1.0), "must not exceed"),
        (lambda: DDIM(-0.1), "choose from 0"),
        (lambda: DDIM(1.5), "choose from 0"),
    ],
)
def test_options_that_do_not_exist_are_refused(make, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make()


def test_times_that_rise_are_refused() -> None:
    with pytest.raises(ValueError, match="must decrease"):
        sample(NETWORK, DDIM(), torch.tensor([1.0, 0.2, 0.3, 0.0]), noise(1))


@EVERY
def test_a_step_that_does_not_go_towards_the_data_is_refused(sampler: Sampler) -> None:
    for s, t in ((0.5, 0.5), (0.6, 0.5), (0.0, 0.0), (-0.1, 0.5)):
        with pytest.raises(ValueError, match="does not go towards the data"):
            sampler.step(NETWORK, State(images(2), t), s, noise(2))


def test_times_may_be_a_list_or_single_precision() -> None:
    times, source = trailing(7, NETWORK.schedule), noise(2)
    exact = sample(NETWORK, DDIM(), times, source)
    assert torch.equal(sample(NETWORK, DDIM(), times.tolist(), source), exact)
    assert torch.equal(sample(NETWORK, DDIM(), times.float(), source), exact)


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
