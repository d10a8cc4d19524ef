"""From a budget to a length: the arithmetic against a machine of known speed, and a run that keeps its plan."""

from __future__ import annotations

import pytest
import torch

from sfumato.config.train import TrainConfig
from sfumato.errors import UserError
from sfumato.run.events import Finished, HeldOut, Sampled, Started
from sfumato.run.folder import Run
from sfumato.train import plan as planning
from sfumato.train import train
from sfumato.train.clock import moments, regular
from sfumato.train.plan import Speed, measure, plan_for, settle

from .conftest import tiny


class Clock:
    """Time that passes only when somebody works."""

    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now


class Machine:
    """A learner of known cost; the first calls are slow, as they are."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.calls = {"step": 0, "draw": 0, "held_out": 0}

    def spend(self, name: str, seconds: float) -> None:
        self.calls[name] += 1
        self.clock.now += seconds * (5 if self.calls[name] <= 2 else 1)

    def step(self) -> None:
        self.spend("step", 0.05)

    def draw(self, num_steps: int) -> None:
        self.spend("draw", 0.02 * num_steps)

    def held_out(self) -> None:
        self.spend("held_out", 0.03)

    def wait(self) -> None:
        self.clock.now += 0.001


def test_measuring_finds_what_things_cost(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(planning, "time", clock)
    speed = measure(Machine(clock), TrainConfig(grid_steps=25), 3.0)
    assert speed.step == pytest.approx(0.051)
    assert speed.grid == pytest.approx(25 * 0.02, rel=0.05)
    assert speed.held_out == pytest.approx(0.031)
    assert measure(Machine(clock), TrainConfig(grids=0, held_outs=0), 1.0).grid == 0
    twice = measure(Machine(clock), TrainConfig(raw_grids=True), 3.0)
    assert twice.grid == pytest.approx(2 * 25 * 0.02, rel=0.05)


@pytest.mark.parametrize("budget", [30.0, 120.0, 3600.0])
@pytest.mark.parametrize("gone", [0.0, 5.0])
def test_the_whole_plan_fits_the_budget_and_wastes_little(budget, gone):
    config = TrainConfig(batch=32, budget=budget)
    speed = Speed(0.05, 0.5, 0.03)
    plan = plan_for(config, speed, gone)
    looks = len(moments(plan.steps, config.grids)) * 0.5 + len(regular(plan.steps, config.held_outs)) * 0.03
    spent = gone + plan.steps * 0.05 + looks
    assert spent <= budget
    assert spent >= 0.96 * budget - 0.1
    assert plan.seconds == pytest.approx(spent)
    assert plan.images == 32 * plan.steps
    assert plan.images_per_second == pytest.approx(32 / 0.05)


def test_too_short_a_budget_names_one_that_is_enough():
    config = TrainConfig(batch=32, budget=1.5)
    with pytest.raises(UserError, match=r"too short.*--budget (\d+)s") as error:
        plan_for(config, Speed(0.05, 0.5, 0.03), 1.0)
    enough = float(str(error.value).split("--budget ")[1].split("s")[0])
    assert plan_for(TrainConfig(batch=32, budget=enough), Speed(0.05, 0.5, 0.03), 1.0).steps >= 10


def test_looking_never_eats_up_the_training():
    """Where grids and passes cost more than a quarter of the budget there are fewer of them, at least one of each."""
    for grid, held_out in ((20.0, 0.1), (3.0, 2.0), (0.5, 9.0)):
        config, speed = TrainConfig(batch=32, budget=120), Speed(0.05, grid, held_out)
        plan = plan_for(config, speed, 5.0)
        looks = len(moments(plan.steps, plan.grids)) * grid + len(regular(plan.steps, plan.held_outs)) * held_out
        assert 1 <= plan.grids < config.grids
        assert 1 <= plan.held_outs < config.held_outs
        assert looks <= max(0.25 * 120, grid + 2 * held_out)
        assert plan.steps * 0.05 + looks <= 115
    cheap = plan_for(TrainConfig(budget=120), Speed(0.05, 0.1, 0.1), 5.0)
    assert (cheap.grids, cheap.held_outs) == (TrainConfig().grids, TrainConfig().held_outs)
    none = plan_for(TrainConfig(budget=120, grids=0, held_outs=0), Speed(0.05, 90.0, 90.0), 5.0)
    assert (none.grids, none.held_outs) == (0, 0)


def test_a_run_draws_what_its_plan_affords(digits, tmp_path, monkeypatch):
    monkeypatch.setattr(planning, "measure", lambda *_: Speed(0.5, 2.0, 2.0))
    run = Run(tmp_path / "run")
    events = list(train(tiny(digits, train__images="none", train__budget="60", train__grids="9"), run, digits))
    plan = events[0].plan
    assert plan.grids < 9
    assert sum(isinstance(event, Sampled) for event in events) == len(moments(plan.steps, plan.grids))
    assert sum(isinstance(event, HeldOut) for event in events) == len(regular(plan.steps, plan.held_outs))


def test_a_budget_is_planned_once_and_then_kept(digits, tmp_path, monkeypatch):
    monkeypatch.setattr(planning, "measure", lambda *_: Speed(0.5, 0.1, 0.1))
    run = Run(tmp_path / "run")
    config = tiny(digits, train__images="none", train__budget="20", train__grids="0")
    events = list(train(config, run, digits))
    plan = events[0].plan
    assert isinstance(events[0], Started)
    assert isinstance(events[-1], Finished)
    assert run.config().train.images == plan.images
    assert run.read(run.plan_path)["images"] == plan.images
    again, kept = settle(config, run, digits)
    assert again == run.config()
    assert kept == plan
    with pytest.raises(UserError, match=r"train\.budget 20\.0 -> 99\.0"):
        settle(tiny(digits, train__images="none", train__budget="99", train__grids="0"), run, digits)


def test_a_planned_run_has_the_bits_of_one_whose_length_was_given(digits, tmp_path, monkeypatch):
    """Measuring trains a throw-away copy: nothing of it may be left in the run."""

    def plan_for(config: TrainConfig, speed: Speed, gone: float) -> planning.Plan:
        return planning.Plan(40, 5, 8, config.grids, config.held_outs)

    monkeypatch.setattr(planning, "plan_for", plan_for)
    planned, given = Run(tmp_path / "planned"), Run(tmp_path / "given")
    list(train(tiny(digits, train__images="none", train__budget="1"), planned, digits))
    list(train(tiny(digits, train__images="40"), given, digits))
    name = "checkpoints/000000000040/optim.safetensors"
    assert (planned.path / name).read_bytes() == (given.path / name).read_bytes()


def test_settling_writes_nothing(digits, tmp_path):
    state = torch.random.get_rng_state()
    config, plan = settle(tiny(digits, train__images="none", train__budget="2"), Run(tmp_path / "run"), digits)
    assert config.train.images == plan.images > 0
    assert list(tmp_path.iterdir()) == []
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_given_length_needs_no_measuring(digits, tmp_path, monkeypatch):
    monkeypatch.setattr(planning, "measure", lambda *_: pytest.fail("measured"))
    config, plan = settle(tiny(digits), Run(tmp_path / "run"), digits)
    assert (plan.images, plan.steps, plan.seconds) == (160, 20, None)
    assert config == tiny(digits)
