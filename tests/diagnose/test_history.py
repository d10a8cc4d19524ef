"""What is read from a run's diary: sums against events written by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from sfumato.config.config import Config
from sfumato.config.train import EMAConfig, TrainConfig
from sfumato.diagnose.history import initial_share, read_training
from sfumato.run.folder import Run


def test_what_is_left_of_the_initial_weights_is_half_after_a_half_life() -> None:
    share, half_life = initial_share(EMAConfig(half_life=1000, ramp=None), images=3000, batch=50, planned=3000)
    assert share == pytest.approx(0.5**3)
    assert half_life == pytest.approx(1000)
    share, half_life = initial_share(EMAConfig(half_life=0.1, ramp=None), images=500, batch=50, planned=1000)
    assert share == pytest.approx(0.5**5)
    assert half_life == pytest.approx(100)


def test_a_ramp_leaves_nothing_of_them() -> None:
    share, half_life = initial_share(EMAConfig(half_life=1e9, ramp=0.05), images=3000, batch=50, planned=3000)
    assert share == 0
    assert half_life == pytest.approx(0.05 * 2950)  # the last step starts when 2,950 images have been seen


def stepped(images: int, loss: float, part: int = 0, skew: int = 1) -> dict:
    """A line of two noise levels, the one of `part` seen `skew` times."""
    count, total = [0] * 10, [0.0] * 10
    count[part], total[part] = skew, skew * loss
    count[9], total[9] = 1, 3.0
    return {
        "event": "stepped",
        "images": images,
        "steps": 2,
        "loss": 0.0,
        "grad_norm": loss,
        "buckets": {"total": total, "count": count},
    }


@pytest.fixture
def run(tmp_path: Path) -> Run:
    run = Run(tmp_path / "run")
    run.path.mkdir()
    lines = [{"event": "started", "images": 0}]
    lines += [stepped(10 * n, float(n), skew=1 + 4 * (n % 2)) for n in range(1, 21)]
    lines += [
        {"event": "skipped", "images": 30, "steps": 3, "in_a_row": 3},
        {"event": "skipped", "images": 90, "steps": 2, "in_a_row": 1},
        {"event": "started", "images": 100},
        {"event": "heldout", "images": 200, "loss": 0.5, "train": 0.25},
        {"event": "warned", "images": 200, "message": "careful"},
    ]
    run.events_path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return run


def test_losses_come_in_ten_parts_whose_noise_levels_weigh_alike(run: Run) -> None:
    training = read_training(run, replace(Config(), train=TrainConfig(batch=5, images=400)), images=200)
    # each part joins lines n (seen five times at its level) and n + 1 (once); the other level always lost 3
    expected = [((5 * n + (n + 1)) / 6 + 3) / 2 for n in range(1, 20, 2)]
    assert training.losses == pytest.approx(expected)
    assert training.gradient == pytest.approx([n + 0.5 for n in range(1, 20, 2)])


def test_counts(run: Run) -> None:
    training = read_training(run, replace(Config(), train=TrainConfig(batch=5, images=400)), images=200)
    assert (training.steps, training.skipped, training.in_a_row, training.restarts) == (40, 5, 3, 1)
    assert (training.images, training.planned, training.finished) == (200, 400, False)
    assert training.held_out == ((200, 0.5, 0.25),)
    assert training.warnings == ("careful",)
    run.finished_path.write_text("{}")
    assert read_training(run, Config(), images=200).finished


def test_a_run_without_a_diary_has_no_course(tmp_path: Path) -> None:
    training = read_training(Run(tmp_path), Config(), images=64)
    assert (training.losses, training.steps, training.held_out) == ((), 0, ())
