"""When a signal is heard, and when it waits."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sfumato.cli import signals
from sfumato.run.events import Buckets, Event, Initialised, Stepped

from ..forked import forked
from .conftest import tiny


def send(number: int = signal.SIGINT) -> None:
    os.kill(os.getpid(), number)
    time.sleep(0)  # the interpreter runs handlers between two instructions


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_raising_cuts_in_and_knows_the_code(number: int, code: int) -> None:
    with pytest.raises(signals.Stop) as stop, signals.raising():  # noqa: PT012
        send(number)
        raise AssertionError("not reached")
    assert stop.value.code == code


def test_deferring_waits_for_the_end_of_the_block() -> None:
    done = False
    with pytest.raises(signals.Stop, match="saved"), signals.deferring() as stop:  # noqa: PT012
        stop.holding, stop.message = True, "saved"
        send()
        assert stop.signal == signal.SIGINT
        done = True
    assert done


def test_deferring_does_not_wait_before_there_is_something_to_save() -> None:
    with pytest.raises(signals.Stop), signals.deferring():  # noqa: PT012
        send()
        raise AssertionError("not reached")


def test_patience_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "PATIENCE", 0.05)
    start = time.monotonic()
    with pytest.raises(signals.Stop), signals.deferring() as stop:  # noqa: PT012
        stop.holding = True
        send()
        time.sleep(10)
    assert time.monotonic() - start < 5


def test_finishing_work_is_not_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "PATIENCE", 0.05)
    done = False
    with pytest.raises(signals.Stop), signals.deferring() as stop:  # noqa: PT012
        stop.holding = True
        send()
        stop.finish()
        time.sleep(0.2)
        done = True
    assert done


def test_handlers_are_put_back() -> None:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM)
    before = [signal.getsignal(number) for number in numbers]
    with signals.raising(), signals.deferring():
        assert signal.getsignal(signal.SIGINT) is not before[0]
    assert [signal.getsignal(number) for number in numbers] == before


def test_a_hangup_that_is_ignored_stays_ignored() -> None:
    """As under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals.raising(), signals.deferring() as stop:
            send(signal.SIGHUP)
            assert stop.signal is None
    finally:
        signal.signal(signal.SIGHUP, before)


SECOND = """
import os, signal, sys
from sfumato.cli import signals
{kind}
os.kill(os.getpid(), signal.{second})
raise SystemExit("not reached")
"""
KINDS = {
    "inside": "with signals.raising():\n  try: os.kill(os.getpid(), signal.SIGTERM)\n"
    "  except signals.Stop: os.kill(os.getpid(), signal.{second})",
    "after deferring": "with signals.raising():\n  try:\n    with signals.deferring(): "
    "os.kill(os.getpid(), signal.SIGTERM)\n  except signals.Stop: os.kill(os.getpid(), signal.{second})",
    "after all": "try:\n  with signals.raising(lasting=True): os.kill(os.getpid(), signal.SIGTERM)\n"
    "except signals.Stop: pass",
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("second", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_second_signal_ends_at_once_with_the_code_of_the_first(kind: str, second: str) -> None:
    code = SECOND.format(kind=KINDS[kind].format(second=second), second=second)
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (143, "")


def test_a_block_of_its_own_begins_anew() -> None:
    for _ in range(2):
        with pytest.raises(signals.Stop), signals.raising():
            send()


Start = Callable[..., subprocess.Popen[str]]


def executed(*words: str, **options: Any) -> subprocess.Popen[str]:
    """The command as a shell starts it."""
    return subprocess.Popen([sys.executable, "-m", "sfumato", *words], text=True, **options)


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Start]:
    """Begin a training of a day in a process of its own."""
    processes = []

    def start(*more: str, begin: Start = forked, **options: Any) -> subprocess.Popen[str]:
        words = ["train", "digits", "--run", "r", "--images", "100M", *tiny("--train.grids", "0"), *more]
        processes.append(begin(*words, cwd=tmp_path, stderr=subprocess.PIPE, **options))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("begin", "number", "code"),
    [(forked, signal.SIGINT, 130), (executed, signal.SIGTERM, 143), (forked, signal.SIGHUP, 129)],
)
def test_a_training_saves_and_ends_and_a_second_signal_changes_nothing(
    begin: Start, number: int, code: int, started: Start, tmp_path: Path
) -> None:
    process = started("--json", begin=begin, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    for line in process.stdout:
        if json.loads(line)["event"] == "stepped":
            break
    process.send_signal(number)
    said = process.stderr.readline()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (code, "")
    assert "the same command resumes" in said
    last = [json.loads(line) for line in out.splitlines()][-1]["images"] if out else 8
    (saved,) = (tmp_path / "r" / "checkpoints").iterdir()
    assert int(saved.name) == last
    assert f"stopped at {last:,} images" in said


def test_a_second_signal_ends_at_once(started: Start, tmp_path: Path) -> None:
    process = started("--json", stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGSTOP)
    for number in (signal.SIGTERM, signal.SIGINT):
        process.send_signal(number)
    process.send_signal(signal.SIGCONT)
    assert process.wait(timeout=30) in (130, 143)
    assert (tmp_path / "r" / "config.toml").exists()


def test_a_closed_terminal_saves(started: Start, tmp_path: Path) -> None:
    """The terminal goes away: SIGHUP, and whatever is printed from then on fails."""
    parent, child = os.openpty()
    process = started(stdin=child, stdout=child, start_new_session=True)
    os.close(child)
    seen = b""
    while not re.search(rb"[1-9][\d,]* of 100,000,000", seen):
        seen += os.read(parent, 4096)
    os.close(parent)
    process.send_signal(signal.SIGHUP)
    assert process.wait(20) == 129
    assert len(list((tmp_path / "r" / "checkpoints").iterdir())) == 1


def test_a_stop_before_training_says_that_nothing_was_saved(sfumato, tmp_path: Path, monkeypatch) -> None:
    def stopped(*_: object, **__: object) -> None:
        send()

    monkeypatch.setattr("sfumato.train.choose.choose", stopped)
    result = sfumato("train", "digits", "--images", "80")
    assert (result.code, result.err) == (130, "sfumato: stopped before training began; nothing was saved\n")
    assert not Path("runs").exists()


@pytest.mark.parametrize("begun", [False, True])
def test_a_stop_in_the_first_steps_says_what_is_saved(begun: bool, sfumato, monkeypatch) -> None:
    """A step that takes longer than a signal waits, before the first checkpoint, or after that of the weights with
    which the run began."""

    def events(*_: object, **__: object) -> Iterator[Event]:
        yield from [Initialised(0, "faces", "all")] if begun else []
        yield Stepped(8, 1, 0.5, 1.0, 0.1, 2.0, Buckets(), 1)
        send()
        time.sleep(20)

    monkeypatch.setattr("sfumato.train.train", events)
    monkeypatch.setattr(signals, "PATIENCE", 0.05)
    result = sfumato("train", "digits", "--images", "80", *tiny(), "--json")
    said = "runs/digits is at its last checkpoint" if begun else "before the first checkpoint; the same command begins"
    assert result.code == 130
    assert said in result.err


def test_only_a_bare_stop_is_given_a_message() -> None:
    for message, said in ((signals.STOPPED, "new"), ("at 80 images", "at 80 images")):
        with pytest.raises(signals.Stop, match=said), signals.saying("new"):
            raise signals.Stop(signal.SIGINT, message)
