"""What is read from a run's event log: sums against events written by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from sfumato.config.config import Config, to_toml
from sfumato.config.train import EMAConfig, OptimConfig, TrainConfig
from sfumato.diagnose.evidence import Training
from sfumato.diagnose.history import initial_fraction, read_training
from sfumato.run.events import Buckets, Event, HeldOut, Skipped, Started, Stepped, Warned, to_json
from sfumato.run.folder import Run
from sfumato.run.plan import Course, Plan
from sfumato.run.summary import RunSummary

CONFIG = replace(Config(), train=TrainConfig(batch=5, images=400))


@pytest.mark.parametrize(("half_life", "images", "planned", "expected"), [(1000, 3000, 3000, 3), (0.1, 500, 1000, 5)])
def test_half_of_the_initial_weights_is_left_after_each_half_life(half_life, images, planned, expected) -> None:
    config = EMAConfig(half_life=half_life, ramp=None)
    left, found = initial_fraction(config, images=images, batch=50, planned=planned)
    assert left == pytest.approx(0.5**expected)
    assert found == pytest.approx(images / expected)


def test_a_ramp_leaves_nothing_of_them() -> None:
    left, half_life = initial_fraction(EMAConfig(half_life=1e9, ramp=0.05), images=3000, batch=50, planned=3000)
    assert left == 0
    assert half_life == pytest.approx(0.05 * 2950)  # the last step starts when 2,950 images have been seen


def stepped(images: int, loss: float, num: int = 1) -> Stepped:
    """Two steps at two noise levels: `num` examples with a loss at one, and one example with loss 3 at the other."""
    buckets = Buckets((num * loss, *[0.0] * 8, 3.0), (num, *[0] * 8, 1))
    return Stepped(images, images // 5, 0.0, loss, 0.1, 1.0, buckets, steps=2)


def read(path: Path, *events: Event, finished: bool = False) -> Training:
    """What is read from a run with these events."""
    run = Run(path / "run")
    run.path.mkdir()
    run.config_path.write_text(to_toml(CONFIG))
    run.events_path.write_text("".join(json.dumps(to_json(event)) + "\n" for event in events))
    if finished:
        run.finished_path.write_text("{}")
    return read_training(RunSummary.read(run), CONFIG, images=200)


def test_losses_come_in_ten_parts_at_the_noise_levels_of_the_whole_run(tmp_path: Path) -> None:
    training = read(tmp_path, *(stepped(10 * n, float(n), num=1 + 4 * (n % 2)) for n in range(1, 21)))
    # each part joins lines n (seen five times at its level) and n + 1 (once); the other level, of one example in four,
    # always lost 3
    expected = [(3 * (5 * n + (n + 1)) / 6 + 3) / 4 for n in range(1, 20, 2)]
    assert training.losses == pytest.approx(expected)
    assert training.gradient == pytest.approx([n + 0.5 for n in range(1, 20, 2)])


@pytest.mark.parametrize("finished", [False, True])
def test_counts(finished: bool, tmp_path: Path) -> None:
    plan = Plan(images=400, steps=80, batch=5, grids=0, held_outs=1)
    training = read(
        tmp_path,
        Started(plan, 0),
        stepped(20, 1.0),
        Skipped(30, 3, 3, "loss"),
        Skipped(90, 2, 1, "loss"),
        Started(plan, 100),
        stepped(110, 1.0),
        HeldOut(200, 0.5, Buckets(), 1.0, 0.25, Buckets(), True),
        Warned(200, "careful"),
        finished=finished,
    )
    assert (training.steps, training.skipped, training.in_a_row, training.restarts) == (4, 5, 3, 1)
    assert (training.images, training.planned, training.finished) == (200, 400, finished)
    assert training.held_out == ((200, 0.5, 0.25),)
    assert training.warnings == ("careful",)


@pytest.mark.parametrize(
    ("decay", "start", "expected"),
    [("late", 0, 280), ("late", 300, 370), ("constant", 300, 400), ("cosine", 300, 300), ("cosine", 0, 0)],
)
def test_the_rate_falls_for_the_last_time_in_the_phase_that_was_added(
    decay: str, start: int, expected: int, tmp_path: Path
) -> None:
    config, run = replace(CONFIG, optim=OptimConfig(decay=decay)), Run(tmp_path / "run")
    run.path.mkdir()
    run.config_path.write_text(to_toml(config))
    first = Plan(images=max(start, 1), steps=60, batch=5, grids=0, held_outs=0)
    last = Plan(images=400, steps=80, batch=5, grids=0, held_outs=0, since=start, start=start)
    run.plan_path.write_text(json.dumps(Course((first, last) if start else (last,)).to_table()))
    assert read_training(RunSummary.read(run), config, images=400).decays_at == expected


def test_the_loss_before_the_first_step_is_taken_at_the_training_s_noise_levels(tmp_path: Path) -> None:
    """Held out, both levels have as many images; in training one has three times as many as the other."""
    look = HeldOut(0, 2.0, Buckets((10.0, *[0.0] * 8, 30.0), (10, *[0] * 8, 10)), 1.0, 2.0, Buckets(), True)
    assert read(tmp_path, look, stepped(10, 1.0, num=3)).start == pytest.approx((3 * 1.0 + 3.0) / 4)


def test_a_run_without_events_has_no_course(tmp_path: Path) -> None:
    training = read(tmp_path)
    assert (training.losses, training.steps, training.held_out) == ((), 0, ())
