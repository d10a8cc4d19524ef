"""What is summed up of a training's events adds up."""

from __future__ import annotations

from pathlib import Path

import pytest

from sfumato.run.events import NUM_BUCKETS, Buckets, HeldOut, Replanned, Sampled, Saved, Started, Stepped
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
    assert progress.loss == pytest.approx(sum(w * x for w, x in zip(weights, losses, strict=True)) / sum(weights))
    assert progress.last_loss == 0.2


def test_a_report_of_many_steps_weighs_as_many(progress: Progress) -> None:
    other = Progress(Run(Path("r")))
    for n in range(1, 17):
        other.take(stepped(n, 0.4, float(n)))
    other.take(stepped(17, 0.9, 17.0))
    progress.take(stepped(16, 0.4, 16.0, steps=16))
    progress.take(stepped(17, 0.9, 17.0))
    assert progress.loss == pytest.approx(other.loss)


def test_speed_and_time_left(progress: Progress) -> None:
    assert progress.speed is None
    for n in (10, 20, 30):
        progress.take(stepped(n, 1.0, n / 2))
    assert progress.speed == pytest.approx(16)
    assert progress.left == pytest.approx((800 - 240) / 16)


def test_the_time_left_counts_grids_and_held_out_losses_apart(progress: Progress) -> None:
    """Steps of 0.1 s; two grids of 5 s in the first tenth of the run do not change the speed or double the rest."""
    plan = Plan(800, 100, 8, grids=6, held_outs=4, grid_seconds=4.0, held_out_seconds=1.0)
    left, seconds, grids = [], 0.0, set(plan.grid_steps)
    progress.take(Started(plan, 0))
    for n in range(1, 51):
        seconds += 0.1
        progress.take(stepped(n, 1.0, seconds))
        if n == 10:
            seconds += 2.0
            progress.take(Saved(8 * n, Path("x"), 2.0))
        if n in plan.held_out_steps:
            seconds += 1.0
            progress.take(HeldOut(8 * n, 1.0, Buckets(), seconds, 1.0, Buckets(), True))
        if n in grids:
            seconds += 5.0
            progress.take(Sampled(8 * n, "ema", 0, seconds))
        if n >= 2:
            assert progress.speed == pytest.approx(80)
            left.append(progress.left)
    assert left[0] == pytest.approx(9.8 + 6 * 4.0 + 4 * 1.0)
    assert plan.looks_after(50) == (2, 2)
    assert left[-1] == pytest.approx(5.0 + 2 * 5.0 + 2 * 1.0)


def test_a_corrected_plan_changes_what_is_left(progress: Progress) -> None:
    for n in (10, 20):
        progress.take(stepped(n, 1.0, n / 2))
    progress.take(Replanned(160, Plan(1600, 200, 8, 0, 0, since=160), 800))
    assert progress.planned == 1600
    assert progress.left == pytest.approx((1600 - 160) / 16)


def test_loss_by_noise_is_a_mean_by_level(progress: Progress) -> None:
    progress.take(stepped(1, 1.0, 1.0, bucket=0))
    progress.take(stepped(2, 0.25, 2.0, bucket=9))
    assert progress.by_noise[0] == pytest.approx(1.0)
    assert progress.by_noise[9] == pytest.approx(0.25)
    assert progress.by_noise[4] is None
