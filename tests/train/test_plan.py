"""From a budget to a length, and what a training costs: the arithmetic against a machine of known speed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sfumato.config.config import to_toml
from sfumato.config.train import TrainConfig
from sfumato.data import Dataset
from sfumato.errors import UserError
from sfumato.run.events import Finished, HeldOut, Sampled, Started
from sfumato.run.folder import Run
from sfumato.run.plan import Plan
from sfumato.train import extend, loop, train
from sfumato.train import plan as planning
from sfumato.train import session as sessions
from sfumato.train import speed as speeds
from sfumato.train.budget import Speed, plan_for
from sfumato.train.forecast import Forecast, forecast
from sfumato.train.plan import resolve_course, resolve_length
from sfumato.train.speed import measure
from sfumato.train.trainer import Trainer

from .conftest import go, tiny


class Clock:
    """Time that passes only when somebody works."""

    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now


class Machine:
    """A trainer of known cost; the first calls are slow, as they are."""

    grid_steps = 25

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.calls = {"step": 0, "sample_grid": 0, "held_out": 0}

    def spend(self, name: str, seconds: float) -> None:
        self.calls[name] += 1
        self.clock.now += seconds * (5 if self.calls[name] <= 2 else 1)

    def step(self) -> None:
        self.spend("step", 0.05)

    def sample_grid(self, num_steps: int) -> None:
        self.spend("sample_grid", 0.02 * num_steps)

    def held_out(self) -> None:
        self.spend("held_out", 0.03)

    def wait(self) -> None:
        self.clock.now += 0.001


def test_measuring_finds_what_things_cost(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(speeds, "time", clock)
    speed = measure(Machine(clock), TrainConfig(), 3.0)
    assert speed.step == pytest.approx(0.051)
    assert speed.grid == pytest.approx(25 * 0.02, rel=0.05)
    assert speed.held_out == pytest.approx(0.031)
    assert measure(Machine(clock), TrainConfig(grids=0, held_outs=0), 1.0).grid == 0
    twice = measure(Machine(clock), TrainConfig(raw_grids=True), 3.0)
    assert twice.grid == pytest.approx(2 * 25 * 0.02, rel=0.05)


def test_measuring_takes_little_of_a_budget_where_looks_are_slow(monkeypatch):
    """A step of 0.051 s and 64 images: 0.017 s a forward pass, so grids of 6,400 are computed, not timed."""
    clock = Clock()
    monkeypatch.setattr(speeds, "time", clock)
    machine, start = Machine(clock), clock.now
    speed = measure(machine, TrainConfig(batch=64, grid_images=6400, held_out_images=12800), 3.0)
    assert clock.now - start < 4
    assert machine.calls["sample_grid"] == machine.calls["held_out"] == 0
    assert speed.grid == pytest.approx(25 * 100 * 0.017)
    assert speed.held_out == pytest.approx(2 * 200 * 0.017)


def stop_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have no time pass, so that no run is late, however busy this machine is."""
    clock = Clock()
    for module in (planning, speeds, loop, sessions, extend):
        monkeypatch.setattr(module, "time", clock)


@pytest.mark.parametrize("budget", [30.0, 120.0, 3600.0])
@pytest.mark.parametrize("elapsed", [0.0, 5.0])
def test_the_whole_plan_fits_the_budget_and_wastes_little(budget, elapsed):
    config = TrainConfig(batch=32, budget=budget)
    plan = plan_for(config, Speed(0.05, 0.5, 0.03), elapsed)
    assert (plan.grids, plan.held_outs) == (config.grids, config.held_outs)
    spent = elapsed + plan.steps * 0.05 + len(plan.grid_steps) * 0.5 + len(plan.held_out_steps) * 0.03
    assert spent <= budget
    assert spent >= 0.97 * budget - 0.1
    assert plan.seconds == pytest.approx(spent)
    assert plan.images == 32 * plan.steps
    assert plan.images_per_second == pytest.approx(32 / 0.05)


def test_too_short_a_budget_names_one_that_is_enough():
    config = TrainConfig(batch=32, budget=1.4)
    with pytest.raises(UserError, match=r"too short.*--budget (\d+)s") as error:
        plan_for(config, Speed(0.05, 0.5, 0.03), 1.0)
    enough = float(str(error.value).split("--budget ")[1].split("s")[0])
    assert "a budget of 1.4 s is too short: 1.0 s passed before training, and a step takes 0.05 s" in str(error.value)
    assert plan_for(TrainConfig(batch=32, budget=enough), Speed(0.05, 0.5, 0.03), 1.0).steps >= 10


def test_too_short_a_budget_is_told_in_minutes_and_hours():
    with pytest.raises(UserError) as error:
        plan_for(TrainConfig(batch=32, budget=120), Speed(1700, 30, 60), 0.0)
    assert str(error.value) == "a budget of 2 min 00 s is too short: a step takes 28 min 20 s; give --budget 20h"


def test_a_network_too_slow_for_its_budget_is_measured_with_fewer_images(digits, run, monkeypatch):
    batches = []
    monkeypatch.setattr(speeds, "measure", lambda _, train, __: batches.append(train.batch) or Speed(0.5, 0.1, 0.1))
    config = tiny(train__images="none", train__budget="20", train__grids="0")
    resolve_length(config, run, digits)
    monkeypatch.setattr(speeds, "CPU_FLOPS", 1.0)
    with pytest.raises(UserError, match="is too short"):
        resolve_length(config, run, digits)
    assert batches == [config.train.batch, 1]


@pytest.mark.parametrize(("grid", "held_out"), [(20.0, 0.1), (3.0, 2.0), (0.5, 9.0)])
def test_grids_and_held_out_losses_never_use_up_the_budget(grid, held_out):
    """Where they cost more than a quarter of it there are fewer of them."""
    config = TrainConfig(batch=32, budget=120)
    plan = plan_for(config, Speed(0.05, grid, held_out), 5.0)
    seconds = len(plan.grid_steps) * grid + len(plan.held_out_steps) * held_out
    assert 1 <= plan.grids < config.grids
    assert 1 <= plan.held_outs < config.held_outs
    assert seconds <= max(0.25 * 120, grid + 2 * held_out)
    assert plan.steps * 0.05 + seconds <= 115
    none = plan_for(replace(config, grids=0, held_outs=0), Speed(0.05, grid, held_out), 5.0)
    assert (none.grids, none.held_outs) == (0, 0)


def test_a_run_draws_what_its_plan_affords(digits, run, monkeypatch):
    monkeypatch.setattr(speeds, "measure", lambda *_: Speed(0.5, 2.0, 2.0))
    stop_time(monkeypatch)
    events = list(
        train(tiny(train__images="none", train__budget="60", train__grids="9", optim__decay="cosine"), run, digits)
    )
    plan = events[0].plan
    assert plan.grids < 9
    assert sum(isinstance(event, Sampled) for event in events) == len(plan.grid_steps)
    assert sum(isinstance(event, HeldOut) for event in events) == len(plan.held_out_steps)


def test_a_budget_is_planned_once_and_then_kept(digits, run, monkeypatch):
    monkeypatch.setattr(speeds, "measure", lambda *_: Speed(0.5, 0.1, 0.1))
    stop_time(monkeypatch)
    config = tiny(train__images="none", train__budget="20", train__grids="0", optim__decay="cosine")
    events = list(train(config, run, digits))
    plan = events[0].plan
    assert isinstance(events[0], Started)
    assert isinstance(events[-1], Finished)
    assert run.config().train.images == plan.images
    assert run.read(run.plan_path)["images"] == plan.images
    assert resolve_length(config, run, digits) == (run.config(), plan)
    longer = tiny(train__images="none", train__budget="99", train__grids="0", optim__decay="cosine")
    more = resolve_length(longer, run, digits)[1]
    assert more.images > 3 * plan.images
    assert (more.since, more.start, more.budget) == (plan.images, plan.images, 99.0)


def test_a_planned_run_has_the_bits_of_one_whose_length_was_given(digits, tmp_path, monkeypatch):
    """Measuring trains a throw-away copy: nothing of it may be left in the run."""
    monkeypatch.setattr(planning, "plan_for", lambda config, *_: Plan(40, 5, 8, config.grids, config.held_outs))
    planned, given = Run(tmp_path / "planned"), Run(tmp_path / "given")
    list(train(tiny(train__images="none", train__budget="1"), planned, digits))
    list(train(tiny(train__images="40"), given, digits))
    one, other = (run.checkpoint(40) / "optim.safetensors" for run in (planned, given))
    assert one.read_bytes() == other.read_bytes()


class Ticking(Clock):
    """A clock that moves by a twentieth of a second whenever it is read, however busy the machine is."""

    def perf_counter(self) -> float:
        self.now += 0.05
        return self.now


def test_planning_writes_nothing(digits, tmp_path, monkeypatch):
    clock = Ticking()
    for module in (planning, speeds):
        monkeypatch.setattr(module, "time", clock)
    state = torch.random.get_rng_state()
    config, plan = resolve_length(tiny(train__images="none", train__budget="20"), Run(tmp_path / "run"), digits)
    assert config.train.images == plan.images > 0
    assert list(tmp_path.iterdir()) == []
    assert torch.equal(torch.random.get_rng_state(), state)


def test_what_a_command_leaves_open_stays_as_the_run_has_it(digits, run):
    """Grids took 25 steps by default once; such a run resumes by the same command, and by its own configuration."""
    go(tiny(train__grid_steps="25"), run, digits, 1)
    for steps in ("none", "25"):
        assert resolve_length(tiny(train__grid_steps=steps), run, digits)[0] == tiny(train__grid_steps="25")
    assert resolve_length(tiny(train__grid_steps="24"), run, digits)[0] == tiny(train__grid_steps="24"), "changed"


def test_a_given_length_needs_no_measuring(digits, tmp_path, monkeypatch):
    monkeypatch.setattr(speeds, "measure", lambda *_: pytest.fail("measured"))
    config, plan = resolve_length(tiny(), Run(tmp_path / "run"), digits)
    assert (plan.images, plan.steps, plan.seconds) == (160, 20, None)
    assert config == tiny()


# --- what it costs


def made(**given: object) -> Forecast:
    facts: dict[str, object] = {
        "parameters": 1000, "flops": 10**6, "plan": Plan(1005, 101, 10, 3, 3), "state_bytes": 20_000,
        "activation_bytes": 1000, "store_bytes": 5000, "run_bytes": 60_000, "memory_here": 0, "disk_here": 10**9,
        "train_images": 100, "speed": Speed(step=0.5, grid=2.0, held_out=1.0),
    }  # fmt: skip
    return Forecast(**(facts | given))  # type: ignore[arg-type]


def test_state_is_what_the_trainer_holds(digits: Dataset, tmp_path: Path) -> None:
    config = tiny(net__base="16", net__groups="4")
    found = forecast(config, digits, tmp_path / "not" / "there", seconds=0)
    held = sum(
        t.numel() * t.element_size() for group in Trainer(config, digits).state().values() for t in group.values()
    )
    gradients = 4 * found.parameters
    assert held + gradients == pytest.approx(found.state_bytes, rel=0.01)
    assert found.speed is found.seconds is found.images_per_second is None
    assert found.store_bytes == digits.images.nbytes
    assert not (tmp_path / "not").exists()


def test_time_is_steps_grids_and_held_out_losses() -> None:
    assert made().seconds == 101 * 0.5 + 3 * 2.0 + 4 * 1.0
    assert made().images_per_second == 20
    assert made().epochs == 10.05
    assert made().memory == 30_000


def test_the_batch_that_fits() -> None:
    assert made(memory_here=100_000).fitting_batch == 32  # (80,000 - 20,000) / 1,000 = 60
    assert made(memory_here=20_000).fitting_batch == 0
    assert made().fitting_batch is None


def test_measured_with_fewer_images_it_is_scaled_up(digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that is a thousand times slower measures with one image and multiplies."""
    asked = []

    def measured(trainer: Trainer, config: TrainConfig, seconds: float) -> Speed:
        asked.append((config.batch, config.grid_images, config.held_out_images))
        return Speed(0.1, 0.2, 0.3)

    monkeypatch.setattr(speeds, "measure", measured)
    config, (batch, grid, held_out) = tiny(), (8, 4, 16)
    assert forecast(config, digits, Path(), seconds=1.0).speed == Speed(0.1, 0.2, 0.3)
    monkeypatch.setattr(speeds, "CPU_FLOPS", 1.0)
    assert forecast(config, digits, Path(), seconds=1.0).speed == Speed(0.1 * batch, 0.2 * grid, 0.3 * held_out)
    assert asked == [(batch, grid, held_out), (1, 1, 1)]


def test_an_imported_run_is_begun_with_and_not_gone_on_with(digits: Dataset, tmp_path: Path) -> None:
    run, config = Run(tmp_path / "run"), tiny()
    run.path.mkdir()
    run.config_path.write_text(to_toml(config))
    run.environment_path.write_text('{"command": ["sfumato", "import", "theirs.pt"]}')
    with pytest.raises(UserError, match=f"weights that were imported.*--init {run.path}"):
        resolve_course(config, run, digits)
