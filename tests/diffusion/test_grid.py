"""Grids: against diffusers' timestep spacings and the papers' formulae; and those fitted to a model."""

from __future__ import annotations

import itertools

import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, UniPCMultistepScheduler

from sfumato.diffusion.fit import _products, fit_grid, shortest_path, step_costs
from sfumato.diffusion.grid import GRIDS, grid_for, quadratic, trailing
from sfumato.diffusion.oracle import GaussianOracle, MixtureOracle
from sfumato.diffusion.samplers.ddim import DDIM, Ancestral
from sfumato.diffusion.samplers.dpm import DPMSolver, DPMSolverSDE
from sfumato.diffusion.samplers.heun import EDM, Heun
from sfumato.diffusion.samplers.pndm import PNDM
from sfumato.diffusion.samplers.protocol import sample, trajectory
from sfumato.diffusion.samplers.unipc import UniPC
from sfumato.diffusion.schedule import Constant, Cosine, Linear, Schedule, Shifted, ZeroTerminalSNR

from .common import images, noise

THEIRS = {"trailing": "trailing", "leading": "leading", "uniform": "linspace"}
SPACED = [name for name in GRIDS if name not in THEIRS]


@pytest.mark.parametrize("name", THEIRS)
@pytest.mark.parametrize(("num_steps", "chain"), [(1000, 1000), (50, 1000), (7, 1000), (10, 100), (33, 100)])
def test_grids_equal_diffusers(name: str, num_steps: int, chain: int) -> None:
    scheduler = DDIMScheduler(num_train_timesteps=chain, timestep_spacing=THEIRS[name], steps_offset=0)
    scheduler.set_timesteps(num_steps)
    ours = (GRIDS[name](num_steps, Cosine(chain))[:-1] * chain).round().long() - 1
    assert ours.tolist() == scheduler.timesteps.tolist()


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("num_steps", [1, 2, 3, 50, 99, 100])
@pytest.mark.parametrize("schedule", [Cosine(100), Shifted(Linear(100), -1.4), Constant(100)])
def test_grids_fall_from_noise_to_data(name: str, num_steps: int, schedule: Schedule) -> None:
    times = GRIDS[name](num_steps, schedule)
    assert times.shape == (num_steps + 1,)
    assert times.dtype == torch.float64
    assert float(times[-1]) == 0
    assert bool((times.diff() < 0).all())
    if name in THEIRS:
        assert torch.allclose(times * 100, (times * 100).round(), atol=1e-9)
    if name in SPACED or name == "trailing":
        assert float(times[0]) == pytest.approx(noisiest(schedule) if name in FROM_80 else 1, abs=1e-9)
    if name in SPACED and num_steps > 1:
        last = max(1 / 100, reached(schedule, 0.3)) if name == "visible" else 1 / 100
        assert float(times[-2]) == pytest.approx(last, rel=1e-6)


FROM_80 = ("karras", "visible")


@pytest.mark.parametrize("name", ["leading", "uniform"])
@pytest.mark.parametrize("num_steps", [1, 7, 10, 40, 999, 1000])
@pytest.mark.parametrize("kind", [DPMSolverMultistepScheduler, UniPCMultistepScheduler])
def test_solvers_in_logsnr_get_the_points_that_diffusers_gives(name: str, num_steps: int, kind) -> None:
    scheduler = kind(timestep_spacing=THEIRS[name])
    sampler = DPMSolver() if kind is DPMSolverMultistepScheduler else UniPC()
    ours = (grid_for(sampler, name, num_steps, Cosine())[:-1] * 1000).round().long() - 1
    if num_steps == 1000:  # theirs has no grid of the whole chain
        assert ours.tolist() == list(range(999, -1, -1))
        return
    scheduler.set_timesteps(num_steps)
    assert ours.tolist() == scheduler.timesteps.tolist()


@pytest.mark.parametrize("name", ["leading", "uniform"])
@pytest.mark.parametrize("schedule", [Linear(), Cosine()])
@pytest.mark.parametrize("num_steps", [10, 40])
def test_no_solver_in_logsnr_is_led_astray_by_the_last_stride(name: str, schedule, num_steps: int) -> None:
    """With the point 1/T the SDE solver made 2.5 times the variance, and order 3 was 4 times worse than DDIM."""
    oracle = GaussianOracle(schedule, torch.zeros(1).double(), torch.tensor([0.25]).double())
    source = noise(64, (4,), seed=5)

    def error(sampler) -> float:
        times = grid_for(sampler, name, num_steps, schedule)
        level, x = schedule(float(times[0])), source.prior()
        width = (level.abar * 0.25 + level.sigma.square()).sqrt()
        return float((sample(oracle, sampler, times, source, start=width * x) - 0.5 * x).square().mean().sqrt())

    assert max(error(s) for s in (DPMSolver(2), DPMSolver(3), UniPC())) < error(DDIM())
    many = noise(4000, (1,), seed=5)
    end = sample(oracle, DPMSolverSDE(), grid_for(DPMSolverSDE(), name, num_steps, schedule), many)
    plain = sample(oracle, Ancestral(), GRIDS[name](num_steps, schedule), many)
    assert abs(float(end.var()) / 0.25 - 1) < abs(float(plain.var()) / 0.25 - 1)
    assert float(end.var()) / 0.25 < 1.15


def test_other_samplers_keep_the_grids() -> None:
    for name in GRIDS:
        for sampler in (DDIM(), Ancestral(), Heun(), PNDM()):
            assert torch.equal(grid_for(sampler, name, 12, Cosine()), GRIDS[name](12, Cosine()))


def noisiest(schedule: Schedule) -> float:
    """Where EDM's grid starts: sigma / alpha = 80, or the chain's end."""
    return reached(schedule, 80)


def reached(schedule: Schedule, rho: float) -> float:
    """The time of sigma / alpha = rho, or the chain's end, by bisection."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        level = schedule(middle)
        low, high = (middle, high) if float(level.sigma) < rho * float(level.alpha) else (low, middle)
    return high


@pytest.mark.parametrize(
    ("name", "even"),
    [
        ("quadratic", lambda schedule, t: t.sqrt()),
        ("logsnr", lambda schedule, t: schedule(t).logsnr),
        ("visible", lambda schedule, t: schedule(t).logsnr),
        ("karras", lambda schedule, t: (schedule(t).sigma / schedule(t).alpha) ** (1 / 7)),
    ],
)
@pytest.mark.parametrize("schedule", [Linear(), Cosine(50), Shifted(Cosine(), 2.0)])
def test_what_should_be_even_is_even(name: str, even, schedule: Schedule) -> None:
    times = GRIDS[name](20, schedule)
    strides = even(schedule, times[:-1]).diff()
    assert torch.allclose(strides, strides.mean().expand(19), rtol=1e-6)


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("num_steps", [1, 4, 30])
def test_a_chain_that_ends_in_pure_noise(name: str, num_steps: int) -> None:
    """Where logsnr is infinite at t = 1 the grids that need it start a step of the chain later."""
    schedule = ZeroTerminalSNR(base=Linear(100))
    times = GRIDS[name](num_steps, schedule)
    assert bool(times.isfinite().all())
    assert bool((times.diff() < 0).all())
    if name in SPACED:
        starts = {"logsnr": 0.99, **dict.fromkeys(FROM_80, min(0.99, noisiest(schedule)))}
        assert float(times[0]) == pytest.approx(starts.get(name, 1), abs=1e-9)


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("bad", [0, 101, -3])
def test_impossible_counts_are_refused(name: str, bad: int) -> None:
    with pytest.raises(ValueError, match="choose from 1 to 100"):
        GRIDS[name](bad, Cosine(100))


def test_a_chain_of_one_step() -> None:
    for name, grid in GRIDS.items():
        assert grid(1, Linear(1)).tolist() == pytest.approx([1, 0]), name
    for name in ("logsnr", "karras", "visible"):
        with pytest.raises(ValueError, match="no finite logsnr"):
            GRIDS[name](1, ZeroTerminalSNR(base=Linear(1)))
        with pytest.raises(ValueError, match="several"):
            GRIDS[name](2, ZeroTerminalSNR(base=Linear(2)))


SCHEDULE = Linear()


def mixture(schedule, seed: int = 0) -> MixtureOracle:
    means = 0.5 * images(10, (32,), seed=seed)
    return MixtureOracle(schedule, torch.ones(10), means, torch.full((10, 1), 0.01).double())


@pytest.mark.parametrize("schedule", [Linear(), ZeroTerminalSNR(base=Cosine())], ids=["linear", "zero-terminal"])
@pytest.mark.parametrize("order", [1, 2])
def test_a_cost_is_how_far_a_real_step_misses(order: int, schedule) -> None:
    oracle, fine, source = mixture(schedule), trailing(12, schedule), noise(3, (32,))
    states = list(trajectory(oracle, DPMSolver(2), fine, source))
    costs = step_costs(_products(states), oracle, fine, order)
    for p, i, j in [(0, 0, 1), (0, 0, 7), (0, 3, 5), (2, 3, 12), (5, 9, 11)]:
        start = states[i]
        if p < i:  # one step of the sampler from p, carried over to the fine trajectory's image at i
            before = (DDIM() if order == 1 else DPMSolver()).step(
                oracle, states[p].__class__(states[p].x, states[p].t), start.t, source
            )
            start = states[p].__class__(start.x, start.t, history=before.history)
        else:
            start = states[p].__class__(start.x, start.t)
        miss = (DDIM() if order == 1 else DPMSolver()).step(oracle, start, states[j].t, source).x - states[j].x
        expected = miss.square().mean(1).sqrt().mean()
        assert float(costs[p, i, j]) == pytest.approx(float(expected), rel=1e-4, abs=1e-7)


def test_the_path_is_the_best_of_all() -> None:
    generator = torch.Generator().manual_seed(0)
    for num_steps in (1, 2, 3, 5, 7):
        costs = torch.rand(8, 8, 8, generator=generator, dtype=torch.float64)
        order = torch.arange(8)
        costs[(order[:, None, None] > order[:, None]) | (order[:, None] >= order)] = torch.inf

        def total(path: tuple[int, ...], costs: torch.Tensor = costs) -> float:
            before = (path[0], *path)
            return sum(float(costs[step]) for step in zip(before, path, path[1:], strict=False))

        every = [(0, *inner, 7) for inner in itertools.combinations(range(1, 7), num_steps - 1)]
        assert tuple(shortest_path(costs, num_steps)) == min(every, key=total)


@pytest.mark.parametrize(("schedule", "steps"), [(Linear(), 8), (Cosine(), 10)], ids=["linear", "cosine"])
def test_a_fitted_grid_beats_the_others(schedule, steps: int) -> None:
    """In the error that counts, where the walk ends, on other noise than it was fitted on."""
    oracle, source = mixture(schedule), noise(48, (32,), seed=9)
    exact = sample(oracle, DPMSolver(3), quadratic(150, schedule), source)

    def errors(sampler, fitted: torch.Tensor) -> tuple[float, list[float]]:
        found = [
            float((sample(oracle, sampler, times, source) - exact).square().mean(1).sqrt().mean())
            for times in (fitted, *(grid_for(sampler, name, steps, schedule) for name in GRIDS))
        ]
        return found[0], found[1:]

    found = {}
    for sampler in (DDIM(), DPMSolver(2), UniPC()):
        fitted, others = errors(sampler, fit_grid(oracle, noise(16, (32,), seed=7), steps, sampler=sampler))
        found[type(sampler)] = fitted / min(others)
    assert found[DDIM] < 0.95
    assert max(found.values()) < 1.05


def test_a_stochastic_sampler_gets_the_grid_of_its_order() -> None:
    oracle, source, fine = mixture(SCHEDULE), noise(4, (32,)), trailing(30, SCHEDULE)
    for stochastic, plain in ((Ancestral(), DDIM()), (DPMSolverSDE(), DPMSolver())):
        a, b = (fit_grid(oracle, source, 6, sampler=s, fine=fine) for s in (stochastic, plain))
        assert torch.equal(a, b)


@pytest.mark.parametrize("sampler", [DDIM(), Heun(), UniPC(), EDM()], ids=["ddim", "heun", "unipc", "edm"])
def test_a_fitted_grid_is_compared_with_the_named_ones(sampler) -> None:
    """On the images that it was fitted on no named grid, as the sampler takes it, is better."""
    oracle, source, steps = mixture(SCHEDULE), noise(8, (32,), seed=3), 6
    goal = sample(oracle, DPMSolver(2), quadratic(100, SCHEDULE), source)
    solver = Heun() if isinstance(sampler, EDM) else sampler

    def error(times: torch.Tensor) -> float:
        return float((sample(oracle, solver, times, source) - goal).square().mean(1).sqrt().mean())

    fitted = fit_grid(oracle, source, steps, sampler=sampler)
    named = [grid_for(sampler, name, steps, SCHEDULE) for name in GRIDS]
    assert error(fitted) <= min(map(error, named))


def test_a_fitted_grid_keeps_the_rules_of_grids() -> None:
    oracle = mixture(SCHEDULE)
    for steps in (1, 2, 9):
        times = fit_grid(oracle, noise(2, (32,)), steps, fine=trailing(20, SCHEDULE))
        assert times.shape == (steps + 1,)
        assert times.dtype == torch.float64
        named = [float(grid_for(DPMSolver(), name, steps, SCHEDULE)[0]) for name in GRIDS]
        assert float(times[0]) in (1.0, *named), "a named grid may be the best"
        assert float(times[-1]) == 0
        assert bool((times.diff() < 0).all())


def test_impossible_fits_are_refused() -> None:
    oracle, source = mixture(SCHEDULE), noise(2, (32,))
    with pytest.raises(ValueError, match="choose from 1 to 20"):
        fit_grid(oracle, source, 21, fine=trailing(20, SCHEDULE))
