"""The summary of a run: what a log written by hand says, and that reading it needs no torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from sfumato.config.config import to_toml
from sfumato.config.presets import resolve
from sfumato.errors import UserError
from sfumato.run.events import Buckets, Event, HeldOut, Skipped, Started, Stepped, Warned, to_json
from sfumato.run.folder import Run
from sfumato.run.plan import Plan
from sfumato.run.progress import Progress
from sfumato.run.summary import RunSummary

PLAN = Plan(1000, 100, 10, 2, 2, images_per_second=50.0)


def stepped(step: int, loss: float, steps: int = 5) -> Stepped:
    buckets = Buckets((10 * loss * steps, *[0.0] * 9), (10 * steps, *[0] * 9))
    return Stepped(10 * step, step, loss, 2 * loss, 1e-3, step / 2, buckets, steps)


EVENTS: list[Event] = [
    Started(PLAN, 0),
    HeldOut(0, 1.0, Buckets(), 0.1, 0.9, Buckets(), True),
    *[stepped(5 * k, 1 / k) for k in range(1, 5)],
    Started(PLAN, 200),
    Skipped(250, 3, 3, "not finite"),
    Warned(250, "the disk is full"),
    stepped(30, 0.1),
    HeldOut(300, 0.5, Buckets(), 15.1, 0.3, Buckets(), True),
]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    run = Run(tmp_path / "run")
    for folder in (run.weights, run.samples, run.checkpoint(200), run.checkpoint(300)):
        folder.mkdir(parents=True)
    run.config_path.write_text(to_toml(resolve("small8", overrides={"train.images": "1000"})))
    run.events_path.write_text("".join(json.dumps(to_json(event)) + "\n" for event in EVENTS) + '{"event": "ste')
    run.write(run.plan_path, vars(PLAN))
    run.write(run.environment_path, {"device": "cpu"})
    for path in (run.weights_file("ema"), run.grid(10), run.grid(10, "raw"), run.grid(300)):
        path.write_text("")
    return run


def test_a_summary_is_what_the_folder_holds(run: Run) -> None:
    summary = RunSummary.read(run)
    assert summary.events == tuple(EVENTS)
    assert (summary.images, summary.planned, summary.seconds) == (300, 1000, 15.1)
    assert summary.images_per_second == pytest.approx(20), "in steps: 250 images in 12.5 s"
    assert (summary.skipped, summary.restarts, summary.warnings) == (3, 1, ("the disk is full",))
    assert summary.held_out == EVENTS[-1]
    assert summary.plan == PLAN
    assert summary.config["net"]["base"] == resolve("small8").net.base
    assert summary.environment == {"device": "cpu"}
    assert summary.weights == {"ema": run.weights_file("ema")}
    assert summary.grids == (run.grid(10, "raw"), run.grid(10), run.grid(300))
    assert summary.checkpoints == (run.checkpoint(200), run.checkpoint(300))
    assert not summary.finished
    run.write(run.finished_path, {})
    assert RunSummary.read(run).finished


def test_time_and_speed_are_those_that_a_budget_and_the_live_view_have(run: Run) -> None:
    run.write(run.plan_path, {**vars(PLAN), "before": 4.0})
    progress = Progress(run)
    for event in EVENTS:
        progress.take(event)
    summary = RunSummary.read(run)
    assert summary.seconds == pytest.approx(19.1)
    assert summary.images_per_second == progress.speed
    assert summary.describe()["images_per_second"] == progress.speed


def test_the_loss_is_that_of_the_live_view(run: Run) -> None:
    progress, summary = Progress(run), RunSummary.read(run)
    for event in EVENTS:
        progress.take(event)
    assert summary.loss == summary.describe()["loss"] == progress.loss
    assert 0.1 < progress.loss < 1, "a mean of many steps"


def test_a_summary_of_an_earlier_moment_knows_nothing_of_what_came_later(run: Run) -> None:
    then = RunSummary.read(run).until(150)
    assert (then.images, then.seconds, then.loss) == (150, 7.5, pytest.approx(0.589, abs=1e-3))
    assert (then.grids, then.checkpoints, then.warnings) == ((run.grid(10, "raw"), run.grid(10)), (), ())
    assert then.averaged_grids == [run.grid(10)]
    assert RunSummary.read(run).until(300) == RunSummary.read(run)


def test_the_length_is_that_of_whole_batches(run: Run) -> None:
    run.write(run.plan_path, vars(Plan(1005, 101, 10, 2, 2)))
    assert RunSummary.read(run).planned == 1010
    run.plan_path.unlink()
    assert RunSummary.read(run).planned == 1024, "1,000 images in steps of 32"


def test_a_part_of_a_run_is_compared_at_the_noise_levels_of_the_whole(tmp_path: Path) -> None:
    """One level has a hundredth of the examples, so that the second part has none of it."""
    both = [
        Stepped(100, 1, 0.2, 1.0, 1e-3, 1.0, Buckets((2.0, 20.0, *[0.0] * 8), (1, 99, *[0] * 8))),
        Stepped(200, 2, 0.1, 1.0, 1e-3, 1.0, Buckets((0.0, 10.0, *[0.0] * 8), (0, 100, *[0] * 8))),
    ]
    summary = RunSummary(Run(tmp_path), {}, {}, None, tuple(both), False, {}, (), ())
    first, last = (summary.training_loss(part.buckets) for part in both)
    assert first == pytest.approx((1 * 2.0 + 199 * 20 / 99) / 200)
    assert last == pytest.approx((1 * 2.0 + 199 * 0.1) / 200)
    weighed = replace(summary, config={"diffusion": {"timesteps": {"kind": "importance"}}})
    assert weighed.training_loss(both[1].buckets) == pytest.approx(0.1)


def test_steps_are_joined_into_parts(run: Run) -> None:
    summary = RunSummary.read(run)
    assert len(summary.stepped()) == len(summary.stepped(9)) == 5
    first, last = summary.stepped(2)
    assert (first.images, first.steps, last.images, last.steps) == (100, 10, 300, 15)
    assert first.loss == pytest.approx((1 + 1 / 2) / 2)
    assert last.buckets.mean == pytest.approx((1 / 3 + 1 / 4 + 0.1) / 3)
    assert last.grad_norm == pytest.approx(2 * last.loss)


def test_a_young_run_is_a_run(tmp_path: Path) -> None:
    run = Run(tmp_path)
    with pytest.raises(UserError, match="not a run folder"):
        RunSummary.read(run)
    run.config_path.write_text(to_toml(resolve("small8")))
    summary = RunSummary.read(run)
    assert (summary.images, summary.seconds, summary.images_per_second, summary.held_out) == (0, 0.0, None, None)
    assert summary.stepped(10) == summary.events == summary.checkpoints == ()
    assert summary.plan is None


def test_reading_a_run_needs_no_torch(run: Run) -> None:
    code = (
        "import sys; from sfumato.run.folder import Run; from sfumato.run.summary import RunSummary; "
        "RunSummary.read(Run(sys.argv[1])); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(run.path)], check=True)


def test_a_log_of_any_length_is_read_in_bounded_memory(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sfumato.run.summary.MOST_EVENTS", 8)
    many = [event for k in range(1, 101) for event in (stepped(k, 1 / k, 1), Warned(10 * k, f"{k}"))]
    run.events_path.write_text("".join(json.dumps(to_json(event)) + "\n" for event in [*EVENTS[:2], *many]))
    summary = RunSummary.read(run)
    reports = summary.of(Stepped)
    assert len(reports) < 8
    assert len(summary.warnings) < 8
    assert summary.warnings[-1] == "100"
    assert sum(report.steps for report in reports) == reports[-1].step == 100
    total = sum(sum(report.buckets.total) for report in reports)
    assert total == pytest.approx(sum(10 / k for k in range(1, 101)))
    assert [event.images for event in summary.events] == sorted(event.images for event in summary.events)


@pytest.mark.parametrize(
    "change",
    [{"images": "x"}, {"seconds": None}, {"loss": []}, {"step": 1.5}, {"buckets": {"total": ["a"], "count": [1]}}],
)
def test_events_of_other_types_are_left_out(run: Run, change: dict[str, object]) -> None:
    line = {**to_json(stepped(50, 0.5)), **change}
    with run.events_path.open("w") as file:
        file.write(json.dumps(line) + "\n" + json.dumps({"event": "started", "plan": {"images": "many"}}) + "\n")
    summary = RunSummary.read(run)
    assert (summary.events, summary.images, summary.seconds) == ((), 0, 0.0)


def test_files_of_another_kind_are_left_out(run: Run) -> None:
    for path in (run.plan_path, run.environment_path):
        path.write_text("[" * 100_000)
    assert RunSummary.read(run).plan is None
    run.environment_path.write_text('{"packages": "torch", "device": 7}')
    run.plan_path.write_text(json.dumps({**vars(PLAN), "steps": "many"}))
    assert RunSummary.read(run).describe()["torch"] is None
    assert RunSummary.read(run).plan is None
    for path in (run.plan_path, run.events_path, run.environment_path):
        path.unlink()
        path.symlink_to("/dev/zero")
    assert RunSummary.read(run).describe()["images"] == 0
    run.config_path.unlink()
    os.mkfifo(run.config_path)
    with pytest.raises(UserError, match=r"config\.toml can't be read: not a regular file"):
        RunSummary.read(run)
