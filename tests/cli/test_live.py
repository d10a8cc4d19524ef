"""What is said about a training adds up."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from sfumato.cli.live import bars, panel, progress_line
from sfumato.report.text import count, duration, facts, size
from sfumato.run.events import NUM_BUCKETS, Buckets, HeldOut, Started, Stepped
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
    progress.take(HeldOut(240, 0.125, Buckets(), 15.0, 0.12, Buckets(), True))
    assert progress_line(progress) == "240 of 800 images, loss 1.0000, held-out 0.1250, 16 images/s, 35 s left"


def test_loss_by_noise_is_a_mean_by_level(progress: Progress) -> None:
    progress.take(stepped(1, 1.0, 1.0, bucket=0))
    progress.take(stepped(2, 0.25, 2.0, bucket=9))
    assert progress.by_noise[0] == pytest.approx(1.0)
    assert progress.by_noise[9] == pytest.approx(0.25)
    assert progress.by_noise[4] is None
    assert bars(progress.by_noise) == "█········▃"


def test_bars() -> None:
    assert bars([0.0, 0.5, 1.0, None]) == "▁▅█·"
    assert bars([None]) == "·"
    assert bars([0.0]) == "▁"


def test_the_panel_shows_where_things_stand(progress: Progress) -> None:
    for n in (10, 20, 30):
        progress.take(stepped(n, 1.0, n / 2))
    console = Console(file=io.StringIO(), width=90)
    console.print(panel(progress, "sfumato train faces"))
    assert isinstance(console.file, io.StringIO)
    said = console.file.getvalue()
    for fact in ("sfumato train faces", "240 of 800", "30 %", "35 s left", "16 images/s", "1.00e-03", "none yet"):
        assert fact in said
    assert max(map(len, said.splitlines())) <= 90


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (9.96, "10 s"), (119.4, "119 s"), (119.6, "2 min 00 s"), (3599.6, "1 h 00 min"),
     (7260, "2 h 01 min"), (180000, "2 d 2 h")],
)  # fmt: skip
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_counts_and_sizes() -> None:
    assert [count(n) for n in (7, 999, 1000, 35_746_307, 6.05e9)] == ["7", "999", "1 k", "35.7 M", "6.05 G"]
    assert [size(n) for n in (12, 999, 2_818_292)] == ["12 B", "999 B", "2.82 MB"]
    assert facts([("a", "1\n2"), ("long", "3"), ("none", "")]) == "a     1\n      2\nlong  3"
