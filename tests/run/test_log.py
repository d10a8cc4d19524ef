"""The diary: every step in exactly one line, rewound on resuming, patient with a full disk."""

from __future__ import annotations

import errno
import json
import math
from pathlib import Path

import pytest
import torch

import sfumato.run.log as recording
from sfumato.run.events import Buckets, Finished, HeldOut, Sampled, Saved, Skipped, Started, Stepped, Warned
from sfumato.run.folder import Run
from sfumato.run.log import MOST_LINES, read_events, record
from sfumato.train.plan import Plan

STEPS = 2500  # of which 2 make a line


def step(k: int) -> Stepped:
    buckets = Buckets((float(k), *[0.0] * 9), (2, *[0] * 9))
    return Stepped(2 * k, k, k / 2, 10.0 * k, 0.1, float(k), buckets)


def story(first: int = 0, last: int = STEPS):
    """A run of two images a step that starts after `first` steps."""
    yield Started(Plan(2 * STEPS, STEPS, 2, 0, 0), 2 * first)
    for k in range(first + 1, last + 1):
        yield step(k)
        if k % 999 == 0:
            yield HeldOut(2 * k, 0.5, Buckets(), 1.0, 0.4, Buckets(), True)
            yield Saved(2 * k, Path("checkpoints") / f"{2 * k:012d}", 0.1)
    if last == STEPS:
        yield Finished(2 * STEPS, 9.0)


def lines(run: Run, event: str) -> list[dict]:
    return [line for line in read_events(run.events_path) if line["event"] == event]


def covered(run: Run) -> list[int]:
    """The steps that the lines speak of, in order."""
    return [k for line in lines(run, "stepped") for k in range(line["step"] - line["steps"] + 1, line["step"] + 1)]


def test_every_step_is_in_exactly_one_line_with_its_loss(tmp_path):
    run = Run(tmp_path)
    events = list(record(story(), run))
    assert len([e for e in events if isinstance(e, Stepped)]) == STEPS  # passed on one by one
    assert covered(run) == list(range(1, STEPS + 1))
    written = lines(run, "stepped")
    assert len(written) <= 2 * MOST_LINES
    for line in written:
        inside = range(line["step"] - line["steps"] + 1, line["step"] + 1)
        assert line["loss"] == pytest.approx(sum(k / 2 for k in inside) / len(inside))
        assert line["grad_norm"] == pytest.approx(sum(10.0 * k for k in inside) / len(inside))
        assert line["buckets"] == {"total": [float(sum(inside)), *[0.0] * 9], "count": [2 * len(inside), *[0] * 9]}
    assert len(lines(run, "heldout")) == 2
    assert len(lines(run, "finished")) == 1


@pytest.mark.parametrize("cut", [500, 501, 1999])
def test_closing_writes_what_was_summed_so_far_before_the_trainer_saves(tmp_path, cut):
    run, seen_at_close = Run(tmp_path), []

    def trainer():
        try:
            yield from story()
        except GeneratorExit:
            seen_at_close.extend(covered(run))
            raise

    events = record(trainer(), run)
    for event in events:
        if isinstance(event, Stepped) and event.step == cut:
            events.close()
            break
    assert seen_at_close == list(range(1, cut + 1))
    list(record(story(cut), run))
    assert covered(run) == list(range(1, STEPS + 1))


def test_resuming_drops_what_will_happen_again(tmp_path):
    run = Run(tmp_path)
    list(record(story(0, 1500), run))  # then killed; the last checkpoint is of step 999
    with run.events_path.open("a") as file:
        file.write('{"event": "stepped", "ima')  # in the middle of a line
    list(record(story(999), run))
    assert covered(run) == list(range(1, STEPS + 1))
    assert [line["images"] for line in lines(run, "heldout")] == [2 * 1998]  # the one at 999 comes again by itself
    assert [line["images"] for line in lines(run, "saved")] == [2 * 999, 2 * 1998]
    assert [line["resumed_at"] for line in lines(run, "started")] == [0, 2 * 999]


def test_a_run_that_was_finished_already_is_not_written_down(tmp_path):
    run = Run(tmp_path)
    list(record(iter_of(Finished(10, 1.0, again=True)), run))
    assert not run.events_path.exists()


def iter_of(*events):
    yield from events


def test_other_events_are_written_whole(tmp_path):
    run = Run(tmp_path)
    pictures = torch.zeros(2, 1, 4, 4, dtype=torch.uint8)
    list(record(iter_of(Skipped(8, 2, 2, "why"), Sampled(8, pictures, "raw", 3, 1.5), Warned(8, "oh")), run))
    assert list(read_events(run.events_path)) == [
        {"event": "skipped", "images": 8, "steps": 2, "in_a_row": 2, "reason": "why"},
        {"event": "sampled", "images": 8, "kind": "raw", "seed": 3, "seconds": 1.5},
        {"event": "warned", "images": 8, "message": "oh"},
    ]
    assert (run.samples / "000000000008-raw.png").exists()


def test_a_full_disk_is_told_once_and_nothing_is_lost(tmp_path, monkeypatch):
    run, broken = Run(tmp_path), [False]
    opener = Path.open

    def failing(self, *arguments, **more):
        file = opener(self, *arguments, **more)
        if broken[0] and self == run.events_path and arguments and arguments[0] == "a":
            write = file.write

            def half(text):
                write(text[: len(text) // 2])
                file.flush()
                raise OSError(errno.ENOSPC, "No space left on device")

            file.write = half
        return file

    monkeypatch.setattr(Path, "open", failing)
    warnings = []
    for event in record(story(), run):
        if isinstance(event, Stepped):
            broken[0] = 100 < event.step < 400
        warnings += [event] if isinstance(event, Warned) else []
        if broken[0]:
            for line in opener(run.events_path).read().splitlines():
                json.loads(line)
    assert len(warnings) == 1
    assert "No space" in warnings[0].message
    assert covered(run) == list(range(1, STEPS + 1))


def test_a_picture_that_can_not_be_written_is_told(tmp_path, monkeypatch):
    def failing(*_):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(recording, "save_png", failing)
    pictures = torch.zeros(2, 1, 4, 4, dtype=torch.uint8)
    events = list(record(iter_of(Sampled(8, pictures, "ema", 0, 1.0)), Run(tmp_path)))
    assert isinstance(events[1], Warned)
    assert "Read-only" in events[1].message


def test_buckets_add_and_average():
    a = Buckets((1.0, 4.0, *[0.0] * 8), (1, 2, *[0] * 8))
    both = a + a
    assert both.count[:2] == (2, 4)
    assert both.means[:3] == (1.0, 2.0, None)
    assert math.isclose(both.mean, 10 / 6)
