"""A training as it is shown."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from sfumato.cli.live import bars, panel, progress_line
from sfumato.run.events import Buckets, HeldOut, Started, Stepped
from sfumato.run.folder import Run
from sfumato.run.plan import Plan
from sfumato.run.progress import Progress


@pytest.fixture
def progress() -> Progress:
    progress = Progress(Run(Path("r")))
    progress.take(Started(Plan(images=800, steps=100, batch=8, grids=0, held_outs=0), 0))
    for n in (10, 20, 30):
        progress.take(Stepped(8 * n, n, 1.0, 1.0, 1e-3, n / 2, Buckets()))
    return progress


def test_a_line_and_the_panel_show_where_a_training_stands(progress: Progress) -> None:
    console = Console(file=io.StringIO(), width=90)
    console.print(panel(progress, "sfumato train faces"))
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue()
    for fact in ("sfumato train faces", "240 of 800", "30 %", "35 s left", "16 images/s", "1.00e-03", "none yet"):
        assert fact in lines
    assert max(map(len, lines.splitlines())) <= 90
    progress.take(HeldOut(240, 0.125, Buckets(), 15.0, 0.12, Buckets(), True))
    assert progress_line(progress) == "240 of 800 images, loss 1.0000, held-out 0.1250, 16 images/s, 35 s left"


def test_bars() -> None:
    assert bars([0.0, 0.5, 1.0, None]) == "▁▅█·"
    assert bars([1.0, *[None] * 8, 0.25]) == "█········▃"
    assert bars([None]) == "·"
    assert bars([0.0]) == "▁"
