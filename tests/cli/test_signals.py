"""When a signal is heard, and when it waits."""

from __future__ import annotations

import os
import signal
import time

import pytest

from sfumato.cli import signals


def send(number: int = signal.SIGINT) -> None:
    os.kill(os.getpid(), number)
    time.sleep(0)  # the interpreter runs handlers between two instructions


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
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
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)]
    with signals.raising(), signals.deferring():
        assert signal.getsignal(signal.SIGINT) is not before[0]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)] == before
