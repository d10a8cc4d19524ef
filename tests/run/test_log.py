"""The event log: every step in exactly one line, rewound on resuming, patient with a full disk."""

from __future__ import annotations

import errno
import json
import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest

from sfumato.run.events import (
    Buckets,
    Event,
    Finished,
    HeldOut,
    Sampled,
    Saved,
    Skipped,
    Started,
    Stepped,
    Warned,
    from_json,
    to_json,
)
from sfumato.run.log import MAX_LINES, EventLog, read_events
from sfumato.run.plan import Plan

STEPS = 2500  # of which 2 make a line


def step(k: int) -> Stepped:
    buckets = Buckets((float(k), *[0.0] * 9), (2, *[0] * 9))
    return Stepped(2 * k, k, k / 2, 10.0 * k, 0.1, float(k), buckets)


def story(first: int = 0, last: int = STEPS) -> Iterator[Event]:
    """A run of two images a step that starts after `first` steps."""
    yield Started(Plan(2 * STEPS, STEPS, 2, 0, 0), 2 * first)
    for k in range(first + 1, last + 1):
        yield step(k)
        if k % 999 == 0:
            yield HeldOut(2 * k, 0.5, Buckets(), 1.0, 0.4, Buckets(), True)
            yield Saved(2 * k, Path("checkpoints") / f"{2 * k:012d}", 0.1)
    if last == STEPS:
        yield Finished(2 * STEPS, 9.0)


def record(events: Iterable[Event], path: Path) -> list[str]:
    """Write events as a training does that is then killed, and return the failures."""
    failures: list[str] = []
    log = EventLog(path, failures.append)
    for event in events:
        log.write(event)
    return failures


def lines(path: Path, event: str) -> list[dict]:
    return [line for line in read_events(path) if line["event"] == event]


def covered(path: Path) -> list[int]:
    """The steps that the lines report, in order."""
    return [k for line in lines(path, "stepped") for k in range(line["step"] - line["steps"] + 1, line["step"] + 1)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.jsonl"


def test_every_step_is_in_exactly_one_line_with_its_loss(path):
    assert record(story(), path) == []
    assert covered(path) == list(range(1, STEPS + 1))
    written = lines(path, "stepped")
    assert len(written) <= 2 * MAX_LINES
    for line in written:
        inside = range(line["step"] - line["steps"] + 1, line["step"] + 1)
        assert line["loss"] == pytest.approx(sum(k / 2 for k in inside) / len(inside))
        assert line["grad_norm"] == pytest.approx(sum(10.0 * k for k in inside) / len(inside))
        assert line["buckets"] == {"total": [float(sum(inside)), *[0.0] * 9], "count": [2 * len(inside), *[0] * 9]}
    assert len(lines(path, "heldout")) == 2
    assert len(lines(path, "finished")) == 1


@pytest.mark.parametrize("cut", [500, 501, 1999])
def test_a_line_can_be_ended_early_and_the_run_goes_on(path, cut):
    log = EventLog(path, pytest.fail)
    for event in story(0, cut):
        log.write(event)
    log.sync()
    assert covered(path) == list(range(1, cut + 1))
    record(story(cut), path)
    assert covered(path) == list(range(1, STEPS + 1))


def test_resuming_drops_what_will_happen_again(path):
    record(story(0, 1500), path)  # then killed; the last checkpoint is of step 999
    with path.open("a") as file:
        file.write('{"event": "stepped", "ima')  # in the middle of a line
    record(story(999), path)
    assert covered(path) == list(range(1, STEPS + 1))
    assert [line["images"] for line in lines(path, "heldout")] == [2 * 1998]  # the one at 999 comes again by itself
    assert [line["images"] for line in lines(path, "saved")] == [2 * 999, 2 * 1998]
    assert [line["resumed_at"] for line in lines(path, "started")] == [0, 2 * 999]


EVENTS = [
    (Started(Plan(16, 2, 8, 1, 1), 0), {"images": 0, "plan": vars(Plan(16, 2, 8, 1, 1)), "resumed_at": 0}),
    (Skipped(8, 2, 2, "why"), {"images": 8, "steps": 2, "in_a_row": 2, "reason": "why"}),
    (
        Sampled(8, "raw", 3, 1.5, np.zeros((2, 1, 4, 4), np.uint8)),
        {"images": 8, "kind": "raw", "seed": 3, "seconds": 1.5},
    ),
    (Warned(8, "oh"), {"images": 8, "message": "oh"}),
    (Saved(8, Path("000000000008"), 0.5), {"images": 8, "path": "000000000008", "cost": 0.5}),
    (Finished(16, 2.5), {"images": 16, "seconds": 2.5, "again": False}),
]


@pytest.mark.parametrize(("event", "line"), EVENTS)
def test_events_are_written_whole_and_read_back(event, line, path):
    record([event], path)
    (written,) = read_events(path)
    assert written == {"event": type(event).__name__.lower(), **line}
    assert from_json(written) == event


def test_losses_are_read_back():
    for event in (step(3), HeldOut(2, 0.5, step(1).buckets, 1.0, 0.4, step(2).buckets, True)):
        assert from_json(json.loads(json.dumps(to_json(event)))) == event


@pytest.mark.parametrize("line", [{}, {"event": "sung"}, {"event": "started", "plan": 3}, {"event": "stepped"}])
def test_what_is_not_an_event_is_none(line):
    assert from_json(line) is None


@pytest.mark.parametrize(("first", "full"), [(0, range(101, 400)), (999, range(400))])
def test_a_full_disk_is_reported_once_and_nothing_is_lost(path, monkeypatch, first, full):
    """Also where the disk is full as the run resumes, when the log must be rewound first."""
    if first:
        record(story(0, 1500), path)
    opener, broken = Path.open, [False]

    def failing(self, *arguments, **more):
        file = opener(self, *arguments, **more)
        if broken[0] and self.name.lstrip(".").startswith(path.name) and arguments and arguments[0] in ("a", "wb"):
            write = file.write

            def half(text):
                write(text[: len(text) // 2])
                file.flush()
                raise OSError(errno.ENOSPC, "No space left on device")

            file.write = half
        return file

    monkeypatch.setattr(Path, "open", failing)
    failures: list[str] = []
    log, seen = EventLog(path, failures.append), b""
    for number, event in enumerate(story(first)):
        broken[0] = number in full
        log.write(event)
        if broken[0] and path.exists():
            content = path.read_bytes()
            for line in content.splitlines() if content != seen else []:
                json.loads(line)
            seen = content
    assert len(failures) == 1
    assert "No space" in failures[0]
    assert covered(path) == list(range(1, STEPS + 1))


def test_losses_add_and_average():
    a = Buckets((1.0, 4.0, *[0.0] * 8), (1, 2, *[0] * 8))
    both = a + a
    assert both.count[:2] == (2, 4)
    assert both.means[:3] == (1.0, 2.0, None)
    assert math.isclose(both.mean, 10 / 6)


def test_the_last_line_is_tried_once_more(path, monkeypatch):
    log, opener = EventLog(path, lambda _: None), Path.open
    log.write(Warned(8, "first"))

    def failing(self, *arguments, **more):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", failing)
        log.write(Finished(16, 1.0))
    assert opener is Path.open
    log.close()
    assert [line["event"] for line in read_events(path)] == ["warned", "finished"]
    log.close()
    assert len(list(read_events(path))) == 2


@pytest.mark.parametrize("cut", ["removed", "cut short"])
def test_lines_that_are_gone_are_reported(path, cut):
    failures: list[str] = []
    log = EventLog(path, failures.append)
    for k in range(3):
        log.write(Warned(8 * k, "oh"))
    if cut == "removed":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-5] + b"\n")
    log.write(Warned(24, "oh"))
    log.write(Warned(32, "oh"))
    assert len(failures) == 1
    assert "removed or cut short" in failures[0]


def test_a_log_of_any_kind_is_read_in_bounded_time_and_memory(path, tmp_path):
    whole = json.dumps({"event": "warned", "images": 8, "message": "oh"}) + "\n"
    path.write_text(whole + '{"a": "' + "x" * 3_000_000 + '"}\n' + "[" * 100_000 + "\n" + whole + whole[:-1])
    assert [line["images"] for line in read_events(path)] == [8, 8]
    os.mkfifo(pipe := tmp_path / "pipe")
    assert list(read_events(pipe)) == list(read_events(Path("/dev/zero"))) == []


def test_events_are_short_when_printed() -> None:
    printed = [str(event) for event in story(last=1000)]
    assert max(map(len, printed)) < 120
    assert printed[0] == "Started(plan=<5,000 images: 2,500 steps of 2>, resumed_at=0)"
    assert printed[7] == "Stepped(images=14, step=7, loss=3.5, grad_norm=70, lr=0.1, seconds=7, steps=1)"
    assert "Saved(images=1998, path=checkpoints/000000001998, cost=0.1)" in printed
