"""A training as it is shown."""

from __future__ import annotations

import errno
import io
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from sfumato.cli.live import bars, panel, progress_line, remark, viewing
from sfumato.run.events import Buckets, Finished, HeldOut, Replanned, Started, Stepped, Warned
from sfumato.run.folder import Run
from sfumato.run.plan import Plan
from sfumato.run.progress import Progress

from ..forked import forked
from .conftest import TINY


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


def test_control_characters_do_not_reach_the_panel() -> None:
    console, nasty = Console(file=io.StringIO(), width=90), "\x1b]0;title\x07\x9b2J"
    progress = Progress(Run(Path(nasty)))
    progress.saved = progress.grid = nasty
    console.print(panel(progress, nasty))
    assert isinstance(console.file, io.StringIO)
    assert not {"\x1b", "\x07", "\x9b"} & set(console.file.getvalue())
    assert console.file.getvalue().count("x1b]0;title") == 4


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.parametrize("more", [[], ["--json"]])
def test_a_stdout_that_can_not_be_written_does_not_end_a_training(tmp_path: Path, more: list[str]) -> None:
    words = ["train", "digits", "--images", "40", "--run", "r", *TINY, *more]
    with Path("/dev/full").open("w") as full:
        training = forked(*words, cwd=tmp_path, stdout=full, stderr=subprocess.PIPE)
        _, err = training.communicate(timeout=60)
    assert training.returncode == 0, err
    assert err == "sfumato: stdout can't be written (No space left on device): going on without it\n"
    assert (tmp_path / "r" / "finished.json").exists()


def test_a_view_whose_reader_has_gone_ends_the_training(tmp_path: Path) -> None:
    def gone(*_: object, **__: object) -> None:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    run = Run(tmp_path)
    with pytest.MonkeyPatch.context() as patch, viewing(run, "title", as_json=True) as view:
        patch.setattr("sfumato.cli.live.print_json", gone)
        with pytest.raises(BrokenPipeError):
            view(Warned(8, "oh"))


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (57.0, "in 60 s"),
        (20.0, "in 23 s instead of 60 s: it was faster than when the speed was measured"),
        (97.0, "in 100 s instead of 60 s: it was slower than when the speed was measured"),
    ],
)
def test_a_run_that_missed_its_time_says_so(progress: Progress, seconds: float, said: str, tmp_path: Path) -> None:
    """With the three seconds before training, which the budget counts."""
    plan = Plan(800, 100, 8, 0, 0, seconds=60.0, before=3.0)
    progress.run = Run(tmp_path)
    progress.run.write(progress.run.plan_path, vars(plan))
    progress.take(Started(plan, 0))
    line = remark(progress, Finished(800, seconds))
    assert line is not None
    assert line.split(", loss")[0] == f"finished: 800 images {said}"


@pytest.mark.parametrize("images", [800, 640])
def test_nothing_is_said_of_the_speed_of_a_run_that_was_interrupted_or_ended_early(
    progress: Progress, images: int
) -> None:
    plan = Plan(800, 100, 8, 0, 0, seconds=60.0)
    progress.take(Started(plan, 400 if images == 800 else 0))
    assert str(remark(progress, Finished(images, 9.5))).split(", loss")[0] == f"finished: {images} images in 9.5 s"
    assert progress.resumed == (images == 800)


def test_a_correction_is_said(progress: Progress) -> None:
    longer = Replanned(80, Plan(1600, 200, 8, 6, 4, images_per_second=40.0), 800)
    assert remark(progress, longer) == "at 40 images/s: 1,600 images instead of 800, to keep the budget"
    looks = Replanned(88, Plan(1600, 200, 8, 1, 0, images_per_second=40.0), 1600)
    assert remark(progress, looks) is None


def test_an_extended_run_whose_speed_is_another_one_does_not_go_on_to_two_lengths(progress: Progress) -> None:
    longer = Plan(1600, 200, 8, 0, 0, images_per_second=40.0, since=800, asked="budget +20")
    shorter = replace(longer, images=1520, steps=190, since=840)
    said = []
    for event in (Started(longer, 800), Replanned(800, longer, 800), Replanned(840, shorter, 1600)):
        progress.take(event)
        said.append(remark(progress, event))
    assert said[0] == "resuming at 800: 1,600 images in steps of 8, planned from 40 images/s"
    assert said[1:] == ["going on to 1,600 images instead of 800", None], "less than a tenth is not worth a line"


def test_a_correction_is_said_when_it_is_a_tenth_from_the_last_one_that_was(progress: Progress) -> None:
    said, former = [], 800
    remark(progress, Started(Plan(800, 100, 8, 0, 0), 0))
    for steps in (105, 110, 112, 122, 124, 111):
        line = remark(progress, Replanned(80, Plan(8 * steps, steps, 8, 0, 0, images_per_second=40.0), former))
        said.append(line and line.split(": ")[1].split(",")[0])
        former = 8 * steps
    one, other = "896 images instead of 800", "888 images instead of 992"
    assert said == [None, None, one, None, "992 images instead of 896", other]
