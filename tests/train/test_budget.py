"""A budget is kept by a rule about the clock: here the clock is a number, and no test measures a time."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from sfumato.config.train import TrainConfig
from sfumato.diffusion import Terms
from sfumato.errors import UserError
from sfumato.run.events import Finished, HeldOut, Replanned, Sampled, Started, Stepped, Warned
from sfumato.run.folder import Run
from sfumato.run.plan import Course, Plan
from sfumato.train import loop, train
from sfumato.train import plan as planning
from sfumato.train import session as sessions
from sfumato.train import speed as speeds
from sfumato.train.budget import AIM, LATE_MONITORING, MIN_STEPS, Speed, corrected, plan_for, spacing
from sfumato.train.metrics import StepMetrics
from sfumato.train.optim import learning_rate
from sfumato.train.pace import Pace
from sfumato.train.trainer import Trainer
from sfumato.train.validation import HeldOutLosses

from .conftest import final, go, log_of, tiny

BUDGET = 40.0


class Clock:
    """A machine whose steps take as long as a function of the time says; unless they are `real` they learn nothing."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, step: Callable[[float], float], looks: float = 0.1, real: bool = False
    ) -> None:
        self.now, self.step, self.looks = 1000.0, step, looks
        for module in (loop, sessions, planning, speeds):
            monkeypatch.setattr(module, "time", self)
        for name, cheap in (("step", idle_step), ("sample_grid", idle_grid), ("held_out", idle_loss)):
            method = ORIGINAL[name] if real else cheap
            monkeypatch.setattr(Trainer, name, self.slowed(method, name == "step"))

    def perf_counter(self) -> float:
        return self.now

    def slowed(self, method: Callable[..., object], steps: bool) -> Callable[..., object]:
        def call(*arguments: object, **more: object) -> object:
            self.now += self.step(self.now - 1000) if steps else self.looks
            return method(*arguments, **more)

        return call


ORIGINAL = {name: getattr(Trainer, name) for name in ("step", "sample_grid", "held_out")}


def idle_step(trainer: Trainer) -> StepMetrics:
    start, batch = trainer.images, trainer.config.train.batch
    trainer.images += batch
    rate = learning_rate(trainer.config.optim, start, batch, trainer.planned)
    return StepMetrics(Terms(torch.ones(1), torch.ones(1)), torch.ones(()), torch.ones(()), rate)


def idle_grid(trainer: Trainer, kind: str = "ema") -> Tensor:
    return torch.zeros(4, 1, 8, 8, dtype=torch.uint8)


def idle_loss(trainer: Trainer) -> HeldOutLosses:
    terms = Terms(torch.ones(2), torch.ones(2))
    return HeldOutLosses(terms, terms, 1.0)


def budgeted(decay: str = "late", **more: str):
    values = {"train__images": "none", "train__budget": str(BUDGET), "optim__decay": decay, "net__dropout": "0"}
    return tiny(**(values | more))


@pytest.fixture
def measured(monkeypatch):
    """What measuring finds, whatever is true."""

    def set_to(step: float, looks: float = 0.1) -> None:
        monkeypatch.setattr(speeds, "measure", lambda *_: Speed(step, looks, looks))

    return set_to


def ended(events: list) -> tuple[float, int]:
    """The seconds and images at the end."""
    assert isinstance(events[-1], Finished)
    return events[-1].seconds, events[-1].images


# --- the loop


def test_at_constant_speed_the_first_plan_stays(digits, run, monkeypatch, measured):
    Clock(monkeypatch, lambda _: 0.2)
    measured(0.2)
    events = list(train(budgeted(), run, digits))
    assert not [event for event in events if isinstance(event, Replanned)]
    assert 0.95 * BUDGET <= ended(events)[0] <= BUDGET


@pytest.mark.parametrize("wrong", [0.25, 0.6, 1.5, 4.0])
@pytest.mark.parametrize("decay", ["late", "constant"])
def test_a_speed_measured_wrongly_is_corrected(digits, run, monkeypatch, measured, wrong, decay):
    Clock(monkeypatch, lambda _: 0.2)
    measured(0.2 * wrong)
    events = list(train(budgeted(decay), run, digits))
    seconds, images = ended(events)
    assert 0.95 * BUDGET <= seconds <= 1.05 * BUDGET
    assert images == run.read(run.plan_path)["revisions"][-1]["images"]
    first = next(event for event in events if isinstance(event, Replanned))
    assert first.images <= 0.06 * max(first.former, 8 * 100)
    assert events[0].plan.images == first.former


def test_time_before_training_counts(digits, run, monkeypatch, measured):
    clock = Clock(monkeypatch, lambda _: 0.2)
    measured(0.2)
    events = list(train(budgeted(), run, digits, began=clock.now - 15))
    assert 0.95 * BUDGET <= 15 + ended(events)[0] <= BUDGET
    assert events[0].plan.before == 15


@pytest.mark.parametrize("since", [0.3, 0.5])
def test_a_machine_that_slows_to_half_still_ends_in_time(digits, run, monkeypatch, measured, since):
    Clock(monkeypatch, lambda now: 0.1 if now < since * BUDGET else 0.2)
    measured(0.1)
    events = list(train(budgeted(), run, digits))
    assert 0.95 * BUDGET <= ended(events)[0] <= 1.15 * BUDGET
    assert isinstance(events[-3], Sampled)  # the last grid stays


def test_a_rate_that_depends_on_the_length_keeps_it_and_drops_looks(digits, run, monkeypatch, measured):
    """Half of the time is planned for grids and held-out losses, so without them a slow machine still fits."""
    Clock(monkeypatch, lambda _: 0.23, looks=0.6)
    measured(0.2, 0.6)
    events = list(train(budgeted("cosine", train__grids="7", train__held_outs="6"), run, digits))
    change = next(event for event in events if isinstance(event, Replanned))
    assert change.plan.images == change.former == events[0].plan.images
    assert ended(events)[0] <= BUDGET
    looks = [event for event in events if isinstance(event, Sampled | HeldOut) and event.images > change.images]
    assert len(looks) < sum(events[0].plan.looks_after(change.images // 8))
    assert isinstance(looks[-1], Sampled)
    assert looks[-1].images == ended(events)[1]


def test_a_run_without_a_budget_is_never_corrected(digits, run, monkeypatch):
    Clock(monkeypatch, lambda now: 1 + now)
    events = list(train(tiny(optim__decay="late"), run, digits))
    assert not [event for event in events if isinstance(event, Replanned)]
    assert run.read(run.plan_path)["checked"] == 0


# --- the same bits


@pytest.fixture
def corrected_run(digits, tmp_path, monkeypatch, measured):
    """A corrected run, and a copy of it as it was after eight steps, with the plans of the whole."""
    config, run, early = budgeted(train__seed="3", train__budget="16"), Run(tmp_path / "run"), Run(tmp_path / "early")
    Clock(monkeypatch, lambda now: 0.2 if now < 5 else 0.3, real=True)
    measured(0.35)
    go(config, run, digits, 8)
    shutil.copytree(run.path, early.path)
    events = go(config, run, digits)
    assert sum(isinstance(event, Replanned) and event.images > 64 for event in events) >= 2
    shutil.copy(run.plan_path, early.plan_path)
    return config, run, early


@pytest.mark.parametrize("window", [1, 16])
def test_a_run_resumed_from_an_older_checkpoint_repeats_its_corrections(digits, monkeypatch, corrected_run, window):
    config, run, early = corrected_run
    Clock(monkeypatch, lambda _: 5.0, real=True)
    init = sessions.Session.__init__

    def windowed(self, *arguments):
        init(self, *arguments)
        self.window = window

    monkeypatch.setattr(sessions.Session, "__init__", windowed)
    plans = run.read(run.plan_path)
    go(config, early, digits)
    assert final(early) == final(run)
    assert early.read(early.plan_path) == plans
    if window == 1:
        assert log_of(early) == log_of(run)


def test_without_its_corrections_it_would_not_be_the_same_run(digits, monkeypatch, corrected_run):
    config, run, early = corrected_run
    table = run.read(run.plan_path)
    early.write(early.plan_path, table | {"revisions": table["revisions"][:-1]})
    Clock(monkeypatch, lambda _: 5.0, real=True)
    go(config, early, digits)
    assert final(early) != final(run)


def test_interrupted_anywhere_it_follows_the_plans(digits, tmp_path, monkeypatch, measured):
    """Closed after every tenth step, so also where a correction comes into force: nothing is corrected twice."""
    config, run = budgeted(), Run(tmp_path / "run")
    Clock(monkeypatch, lambda _: 0.5)
    measured(0.35)
    seen, steps = [], 0
    while not (seen and isinstance(seen[-1], Finished)):
        steps += 10
        seen = go(config, run, digits, steps)
    table = run.read(run.plan_path)
    assert [line["images"] for line in log_of(run) if line["event"] == "replanned"] == [
        plan["since"] for plan in table["revisions"]
    ]
    rates = [line["lr"] for line in log_of(run) if line["event"] == "stepped"]
    assert len(rates) == table["revisions"][-1]["steps"]


def test_the_rate_follows_the_plan_in_force(digits, run, monkeypatch, measured):
    Clock(monkeypatch, lambda _: 0.4)
    measured(0.2)
    events = go(budgeted(), run, digits)
    course = planning.course_of(run, run.config().train)
    assert len(course.plans) > 1
    steps = [event for event in events if isinstance(event, Stepped)]
    for event in steps:
        planned = course.before(event.images).images
        rising = min(1.0, event.images / (0.05 * planned))
        falling = min(1.0, (1 - (event.images - 8) / planned) / 0.3)
        assert event.lr == pytest.approx(run.config().optim.lr * rising * falling, rel=1e-12)
    assert steps[-1].lr < steps[-2].lr < run.config().optim.lr


def test_a_correction_that_can_not_be_recorded_is_not_made(digits, run, monkeypatch, measured):
    Clock(monkeypatch, lambda _: 0.4)
    measured(0.2)
    write = Run.write

    def failing(self, path, value):
        if path == self.plan_path and value["revisions"]:
            raise OSError(28, "No space left on device")
        write(self, path, value)

    monkeypatch.setattr(Run, "write", failing)
    events = list(train(budgeted(), run, digits))
    assert not [event for event in events if isinstance(event, Replanned)]
    warning = next(event for event in events if isinstance(event, Warned))
    assert "plan.json can't be written (No space left on device); the planned length stays" in warning.message
    assert ended(events)[1] == events[0].plan.images


def test_a_damaged_plan_of_a_budget_is_refused(digits, run, monkeypatch, measured):
    Clock(monkeypatch, lambda _: 0.2)
    measured(0.2)
    go(budgeted(), run, digits, 6)
    run.plan_path.write_text('{"images": 8')
    with pytest.raises(UserError, match=r"plan\.json is damaged"):
        go(budgeted(), run, digits, 8)
    run.plan_path.unlink()
    assert isinstance(go(budgeted(), run, digits, 8)[0], Started)


def test_a_budget_that_fails_leaves_nothing(digits, tmp_path, monkeypatch, measured):
    measured(1000.0)
    with pytest.raises(UserError, match="too short"):
        go(budgeted(), Run(tmp_path / "runs" / "one"), digits)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mine").mkdir()
    with pytest.raises(UserError, match="too short"):
        go(budgeted(), Run(tmp_path / "mine"), digits)
    assert list(tmp_path.rglob("*")) == [tmp_path / "mine"]


# --- the rule


def test_where_little_time_is_left_looks_go_and_the_last_of_each_stays():
    """Ten seconds of a minute are left, and a grid takes twenty: training is short, and possible."""
    plan = plan_for(TrainConfig(batch=32, budget=60), Speed(0.5, 20.0, 3.0), 50.0)
    assert (plan.steps, plan.grids, plan.held_outs) == (MIN_STEPS, 1, 1)
    assert plan.grid_steps == [MIN_STEPS]
    assert plan.held_out_steps == [0, MIN_STEPS], "what was trained is measured"
    plan = plan_for(TrainConfig(batch=32, budget=60), Speed(0.1, 2.0, 1.0), 50.0)
    assert (plan.grids, plan.held_outs) == (1, 1)
    assert plan.steps == int((AIM * 60 - 50 - 2.0 - 2 * 1.0) / 0.1), "both looks are counted"
    none = plan_for(TrainConfig(batch=32, budget=60, grids=0, held_outs=0), Speed(0.5, 0.0, 0.0), 50.0)
    assert (none.grids, none.held_outs) == (0, 0)


@pytest.mark.parametrize(
    ("step", "images", "seconds"),
    [
        (0.1, 32 * 1115, (110, 120)),  # fast enough: the budget decides
        (0.4, 20_000, (240, 290)),  # 625 steps take 250 s
        (0.8, 32 * 433, (330, 360)),  # three times the budget
    ],
)
def test_a_slow_machine_sees_the_least_images(step, images, seconds):
    config = TrainConfig(batch=32, budget=120, least_images=20_000)
    plan = plan_for(config, Speed(step, 0.5, 0.1), 2.0)
    assert plan.images == pytest.approx(images, rel=0.002)
    assert seconds[0] <= plan.seconds <= seconds[1]


def test_a_stretched_budget_is_not_late():
    config = tiny(
        train__budget="120", train__images="none", train__least_images="6400", optim__decay="late", train__grids="6"
    )
    speed = Speed(0.3, 0.5, 0.1)
    plan = plan_for(config.train, speed, 2.0)
    assert plan.steps == 800
    for step in (20, 300, 700):
        elapsed = 2 + step * 0.3 + 2
        assert corrected(config, Course((plan,)), step, elapsed, speed).plans == (plan,)


def test_a_late_run_gives_its_looks_first():
    config = tiny(
        train__budget="100", train__images="none", optim__decay="late", train__grids="6", train__held_outs="10"
    )
    plan = plan_for(config.train, Speed(0.1, 1.0, 0.5), 0.0)
    assert (plan.grids, plan.held_outs) == (6, 10)
    speed, step = Speed(0.2, 2.0, 1.0), 40
    new = corrected(config, Course((plan,)), step, 12.0, speed).plans[-1]
    assert new.grids < 6
    assert new.held_outs < 10
    assert speed.looks(new, step) <= LATE_MONITORING * 100
    assert 12.0 + speed.left(new, step) == pytest.approx(98, abs=0.3)
    back = corrected(config, Course((plan, new)), 80, 20.0, Speed(0.05, 0.5, 0.2)).plans[-1]
    assert (back.grids, back.held_outs) == (6, 10)
    assert back.steps > plan.steps


@pytest.mark.parametrize("step", [100, 400, 650])
def test_no_plan_is_so_short_that_the_decay_should_have_begun(step):
    config = tiny(
        train__budget="100", train__images="none", optim__decay="late", train__grids="1", train__held_outs="0"
    )
    plan = Plan(8000, 1000, 8, 1, 0, seconds=98.0)
    new = corrected(config, Course((plan,)), step, 99.0, Speed(0.1, 0.1, 0.0)).plans[-1]
    assert new.steps == math.ceil(step / 0.7)
    assert new.since == step * 8
    after = corrected(config, Course((plan,)), 700, 99.0, Speed(0.1, 0.1, 0.0))
    assert after.plans == (plan,)
    assert after.checked == 5600


def test_small_errors_change_nothing():
    config = tiny(
        train__budget="100", train__images="none", optim__decay="late", train__grids="1", train__held_outs="0"
    )
    plan = plan_for(config.train, Speed(0.1, 0.1, 0.0), 0.0)
    for speed in (0.0985, 0.1015):
        assert corrected(config, Course((plan,)), 30, 3.0, Speed(speed, 0.1, 0.0)).plans == (plan,)
    for speed in (0.097, 0.103):
        assert len(corrected(config, Course((plan,)), 30, 3.0, Speed(speed, 0.1, 0.0)).plans) == 2
    assert corrected(config, Course((plan,)), 30, 3.0, None) == Course((plan,), 240)


def test_checks_are_a_fortieth_apart():
    assert spacing(Plan(8000, 1000, 8, 1, 1)) == 25
    assert spacing(Plan(80, 10, 8, 1, 1)) == 5


def test_saving_is_a_part_of_the_speed(run):
    """Ten steps of 0.2 s; a save of 2 s comes every 40 s, as 30 s would be too often, and every step where asked."""
    for save_every, seconds in (("30", 0.2 * (1 + 2 / 40)), ("100", 0.2 * (1 + 2 / 100)), ("0", 0.2 + 2)):
        config = budgeted(train__save_every=save_every)
        pace = Pace(config, run, Course((Plan(800, 100, 8, 1, 1, grid_seconds=0.5),)), pytest.fail)
        assert pace.check(1, 10.0) is None
        pace.pause("save", 2.0)
        pace.pause("grid", 3.0)
        pace._marks.append((11, 12.0))
        assert pace.speed() == Speed(pytest.approx(seconds), 3.0, 0.0)


def test_what_was_asked_of_the_clock_is_recorded_with_a_checkpoint(digits, run, monkeypatch, measured):
    """A correction at once, since the next step depends on it; that nothing was to correct, with the next save."""
    Clock(monkeypatch, lambda _: 0.2)
    measured(0.2)
    events = train(budgeted(), run, digits)
    for event in events:
        if isinstance(event, Stepped) and event.step == 60:
            assert run.read(run.plan_path)["checked"] == 0
            events.close()
    assert run.read(run.plan_path)["checked"] == 8 * 55
