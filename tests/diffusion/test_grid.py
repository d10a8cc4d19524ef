"""Grids: against diffusers' timestep spacings and the papers' formulae, and the rules all grids keep."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDIMScheduler

from sfumato.diffusion import GRIDS, Constant, Cosine, Linear, Schedule, Shifted, ZeroTerminalSNR

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
        assert float(times[0]) == pytest.approx(noisiest(schedule) if name == "karras" else 1, abs=1e-9)
    if name in SPACED and num_steps > 1:
        assert float(times[-2]) == pytest.approx(1 / 100, rel=1e-6)


def noisiest(schedule: Schedule) -> float:
    """Where EDM's grid starts: sigma / alpha = 80, or the chain's end, found by bisection."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        level = schedule(middle)
        low, high = (middle, high) if float(level.sigma) < 80 * float(level.alpha) else (low, middle)
    return high


def root_of_time(schedule: Schedule, t: torch.Tensor) -> torch.Tensor:
    return t.sqrt()


def log_ratio(schedule: Schedule, t: torch.Tensor) -> torch.Tensor:
    return schedule(t).logsnr


def seventh_root(schedule: Schedule, t: torch.Tensor) -> torch.Tensor:
    level = schedule(t)
    return (level.sigma / level.alpha) ** (1 / 7)


@pytest.mark.parametrize(
    ("name", "even"), [("quadratic", root_of_time), ("logsnr", log_ratio), ("karras", seventh_root)]
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
        starts = {"logsnr": 0.99, "karras": min(0.99, noisiest(schedule))}
        assert float(times[0]) == pytest.approx(starts.get(name, 1), abs=1e-9)


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("bad", [0, 101, -3])
def test_impossible_counts_are_refused(name: str, bad: int) -> None:
    with pytest.raises(ValueError, match="choose from 1 to 100"):
        GRIDS[name](bad, Cosine(100))


def test_a_chain_of_one_step() -> None:
    for name, grid in GRIDS.items():
        assert grid(1, Linear(1)).tolist() == pytest.approx([1, 0]), name
    for name in ("logsnr", "karras"):
        with pytest.raises(ValueError, match="no finite logsnr"):
            GRIDS[name](1, ZeroTerminalSNR(base=Linear(1)))
        with pytest.raises(ValueError, match="several"):
            GRIDS[name](2, ZeroTerminalSNR(base=Linear(2)))
