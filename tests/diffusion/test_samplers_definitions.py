"""Samplers against their papers: each step by hand, and the identities between methods."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from sfumato.diffusion.denoiser import Clipped, NetworkDenoiser
from sfumato.diffusion.grid import GRIDS, trailing
from sfumato.diffusion.level import Level
from sfumato.diffusion.oracle import GaussianOracle
from sfumato.diffusion.parameterization import PARAMETERIZATIONS
from sfumato.diffusion.samplers import SAMPLERS
from sfumato.diffusion.samplers.ddim import DDIM, Ancestral, correctable
from sfumato.diffusion.samplers.dpm import DPMSolver, DPMSolverSDE
from sfumato.diffusion.samplers.heun import EDM, Heun
from sfumato.diffusion.samplers.pndm import PNDM, _weights
from sfumato.diffusion.samplers.protocol import Sampler, State, sample, trajectory
from sfumato.diffusion.samplers.unipc import UniPC
from sfumato.diffusion.schedule import Cosine, Linear
from sfumato.diffusion.variance import Small

from .common import Mute, images, noise, random_function

NETWORK = NetworkDenoiser(random_function, Linear(), PARAMETERIZATIONS["eps"])


def exact_flow(x_T: torch.Tensor, oracle: GaussianOracle) -> torch.Tensor:
    """Where the probability-flow ODE takes x_T for Gaussian data: the same quantile of the data's Gaussian."""
    level = oracle.schedule(1.0)
    spread = (level.alpha.square() * oracle.variance + level.sigma.square()).sqrt()
    return oracle.mean + oracle.variance.sqrt() * (x_T - level.alpha * oracle.mean) / spread


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


@pytest.mark.parametrize("name", ["euler", "dpmpp-1"])
def test_the_first_orders_are_ddim(name: str) -> None:
    assert SAMPLERS[name]() == DDIM()


@pytest.mark.parametrize(("s", "t"), [(0.3, 0.31), (0.2, 0.8), (0.5, 0.99)])
def test_ddim_is_the_exponential_integrator_of_first_order(s: float, t: float) -> None:
    """DPM-Solver++ with x0 constant: x_s = sigma_s / sigma_t x_t - alpha_s expm1(-h) x0."""
    x, a, b = images(3), Linear()(s), Linear()(t)
    h = (a.logsnr - b.logsnr) / 2
    expected = a.sigma / b.sigma * x - a.alpha * torch.expm1(-h) * NETWORK(x, t).x0
    assert torch.allclose(DDIM().step(NETWORK, State(x, t), s, noise(3)).x, expected, rtol=1e-9, atol=1e-9)


def test_ddim_is_eulers_method_in_rho() -> None:
    """y = x / alpha, dy / drho = eps."""
    t, s, x = 0.7, 0.4, images(3)
    a, b = Linear()(s), Linear()(t)
    y = x / b.alpha + (a.sigma / a.alpha - b.sigma / b.alpha) * NETWORK(x, t).eps
    assert torch.allclose(DDIM().step(NETWORK, State(x, t), s, noise(3)).x, a.alpha * y, rtol=1e-10)


@pytest.mark.parametrize("name", PARAMETERIZATIONS)
def test_the_sdes_first_step_is_ancestral(name: str) -> None:
    denoiser = NetworkDenoiser(random_function, Linear(), PARAMETERIZATIONS[name])
    for t, s in ((1.0, 0.9), (0.5, 0.48), (0.1, 0.0)):
        state = State(images(2), t, 3)
        a, b = (sampler.step(denoiser, state, s, noise(2)).x for sampler in (DPMSolverSDE(), Ancestral(Small())))
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
            for s in (Heun(), PNDM(), DDIM())
        ]
        assert max(errors) <= errors[-1] + 0.01


def flow_error(sampler: Sampler, times: torch.Tensor, oracle: GaussianOracle) -> float:
    """Root mean square distance to where the exact flow of Gaussian data leads from the grid's start."""
    level = oracle.schedule(float(times[0]))
    start = oracle.schedule(1.0)
    x = noise(50, (4,)).prior()
    width, whole = ((v.abar * oracle.variance + v.sigma.square()).sqrt() for v in (level, start))
    x_T = level.alpha * oracle.mean + width / whole * (x - start.alpha * oracle.mean)
    return float((sample(oracle, sampler, times, Mute(), start=x_T) - exact_flow(x, oracle)).square().mean().sqrt())


NARROW = {
    name: GaussianOracle(schedule, torch.tensor(0.3).double(), torch.tensor(0.25).double())
    for name, schedule in {"cosine": Cosine(), "linear": Linear()}.items()
}


@pytest.mark.parametrize("sampler", [Heun(), PNDM()])
@pytest.mark.parametrize("grid", ["uniform", "trailing", "quadratic"])
def test_more_steps_from_near_pure_noise_are_better(sampler: Sampler, grid: str) -> None:
    """The first step from a cosine chain's end is Euler's at any number of steps: 75 were 40 times worse than 70."""
    errors = [flow_error(sampler, GRIDS[grid](n, Cosine()), NARROW["cosine"]) for n in (10, 20, 40, 70, 75, 100, 250)]
    assert all(later < 1.15 * earlier for earlier, later in itertools.pairwise(errors))
    assert errors[0] < 0.02
    assert errors[3] < 8e-4
    assert errors[-1] < 1e-4 or grid == "trailing"


def test_which_steps_are_corrected_does_not_depend_on_a_tolerance() -> None:
    for n in (1, 10, 75, 235, 1000):
        schedule = Cosine()
        assert not correctable(schedule(1 - 1 / n), schedule(1.0))
    for t, s in ((0.5, 0.4), (0.9, 0.85), (0.01, 0.005)):
        assert correctable(Linear()(s), Linear()(t))
    edm = torch.linspace(80 ** (1 / 7), 0.002 ** (1 / 7), 10, dtype=torch.float64) ** 7
    levels = [Level.from_logsnr(-2 * rho.log()) for rho in edm]
    assert all(correctable(s, t) for t, s in itertools.pairwise(levels))


@pytest.mark.parametrize("name", NARROW)
@pytest.mark.parametrize("grid", [name for name in GRIDS if name != "visible"])  # its last step is long for any sampler
def test_pndm_is_better_than_ddim_on_every_grid(grid: str, name: str) -> None:
    """Times even in logsnr lie a thousand times closer at a cosine chain's end: followed in t, x grew to 200."""
    oracle = NARROW[name]
    for n in (5, 10, 20, 40):
        times = GRIDS[grid](n, oracle.schedule)
        assert flow_error(PNDM(), times, oracle) < 0.6 * flow_error(DDIM(), times, oracle)


@pytest.mark.parametrize("grid", ["trailing", "logsnr", "karras", "quadratic"])
def test_pndms_weights_are_adams_and_bashforths_where_its_grid_is_even(grid: str) -> None:
    times = GRIDS[grid](20, Cosine()).tolist()
    for i in range(4, 19):
        weights = _weights([times[i], *reversed(times[i - 4 : i])], Cosine())
        assert weights == pytest.approx([w / 24 for w in (55, -59, 37, -9)], rel=1e-6)


def test_pndm_does_not_extrapolate_far() -> None:
    """A stride much longer than those before gets as many predictions as can be followed: here DDIM's one."""
    assert len(_weights([0.1, 0.9, 0.901, 0.902, 0.903], Linear())) == 1


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
