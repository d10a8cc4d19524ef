"""What is summed up of a training's events adds up."""

from __future__ import annotations

from pathlib import Path

import pytest

from sfumato.run.events import NUM_BUCKETS, Buckets, Started, Stepped
from sfumato.run.folder import Run
from sfumato.run.plan import Plan
from sfumato.run.progress import FORGET, Progress


def stepped(n: int, loss: float, seconds: float, steps: int = 1, bucket: int = 0) -> Stepped:
    total = tuple(8 * loss if i == bucket else 0.0 for i in range(NUM_BUCKETS))
    number = tuple(8 if i == bucket else 0 for i in range(NUM_BUCKETS))
    return Stepped(8 * n, n, loss, 1.0, 1e-3, seconds, Buckets(total, number), steps)


@pytest.fixture
def progress() -> Progress:
    progress = Progress(Run(Path("r")))
    progress.take(Started(Plan(images=800, steps=100, batch=8, grids=0, held_outs=0), 0))
    return progress


def test_the_smoothed_loss_is_the_weighted_mean_of_the_losses(progress: Progress) -> None:
    losses = [1.0, 0.5, 0.7, 0.2]
    for n, loss in enumerate(losses, 1):
        progress.take(stepped(n, loss, float(n)))
    weights = [FORGET ** (len(losses) - n) for n in range(1, len(losses) + 1)]
    assert progress.smoothed == pytest.approx(sum(w * x for w, x in zip(weights, losses, strict=True)) / sum(weights))
    assert progress.loss == 0.2


def test_a_report_of_many_steps_weighs_as_many(progress: Progress) -> None:
    other = Progress(Run(Path("r")))
    for n in range(1, 17):
        other.take(stepped(n, 0.4, float(n)))
    other.take(stepped(17, 0.9, 17.0))
    progress.take(stepped(16, 0.4, 16.0, steps=16))
    progress.take(stepped(17, 0.9, 17.0))
    assert progress.smoothed == pytest.approx(other.smoothed)


def test_speed_and_time_left(progress: Progress) -> None:
    assert progress.speed is None
    for n in (10, 20, 30):
        progress.take(stepped(n, 1.0, n / 2))
    assert progress.speed == pytest.approx(16)
    assert progress.left == pytest.approx((800 - 240) / 16)


def test_loss_by_noise_is_a_mean_by_level(progress: Progress) -> None:
    progress.take(stepped(1, 1.0, 1.0, bucket=0))
    progress.take(stepped(2, 0.25, 2.0, bucket=9))
    assert progress.by_noise[0] == pytest.approx(1.0)
    assert progress.by_noise[9] == pytest.approx(0.25)
    assert progress.by_noise[4] is None
