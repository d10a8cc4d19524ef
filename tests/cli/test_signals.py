"""When a signal is heard, and when it waits."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sfumato.cli import signals

from .conftest import TINY


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


TRAIN = ["-m", "sfumato", "train", "digits", "--images", "1M", "--run", "r", *TINY]


def started(folder: Path, **options) -> subprocess.Popen:
    """Begin a training in a process of its own, and wait for its first held-out loss."""
    process = subprocess.Popen([sys.executable, *TRAIN], cwd=folder, stderr=subprocess.PIPE, text=True, **options)
    events = folder / "r" / "events.jsonl"
    deadline = time.monotonic() + 60
    while not (events.exists() and b'"stepped"' in events.read_bytes()):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return process


@pytest.mark.parametrize(("number", "code"), [(signal.SIGHUP, 129), (signal.SIGTERM, 143)])
def test_a_training_saves_and_a_second_signal_changes_nothing(tmp_path: Path, number: int, code: int) -> None:
    process = started(tmp_path, stdout=subprocess.DEVNULL)
    process.send_signal(number)
    assert "stopped at" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == code
    assert "Traceback" not in process.stderr.read()
    assert len(list((tmp_path / "r" / "checkpoints").iterdir())) == 1


def test_a_closed_terminal_saves(tmp_path: Path) -> None:
    """The terminal goes away: SIGHUP, and whatever is printed from then on fails."""
    parent, child = os.openpty()
    process = started(tmp_path, stdin=child, stdout=child, start_new_session=True)
    os.close(child)
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


def test_only_a_bare_stop_is_given_a_message() -> None:
    for message, said in ((signals.STOPPED, "new"), ("at 80 images", "at 80 images")):
        with pytest.raises(signals.Stop, match=said), signals.saying("new"):
            raise signals.Stop(signal.SIGINT, message)
