"""Ctrl-C, SIGTERM and SIGHUP (a closed terminal): stop soon and lose nothing; a second one stops at once.

`raising()` surrounds a whole command: the first signal raises `Stop` immediately. `deferring()` surrounds work
that must not be interrupted midway, such as a training step: there the signal is noted, the work reads `stop.signal`
between its steps, and `Stop` is raised when the block ends, after everything is saved. Work that takes longer than
`PATIENCE` seconds is interrupted, and the last checkpoint remains. In both, a second signal ends the process at once,
with the exit code of the first; no file is left half written, since files are renamed into place. SIGHUP stays ignored
where it was at the start, as under nohup.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else []))
PATIENCE = 7.0
"""Seconds from a signal to the end of the step; with saving, the process should end within ten."""

STOPPED = "stopped"

Handler = Callable[[int, FrameType | None], None]

_first: int | None = None
"""The first signal received in the outermost block."""
_depth = 0
"""How many blocks are open."""


class Stop(KeyboardInterrupt):
    """A signal asked the command to end; `code` is the exit code that shells use for it: 130 for Ctrl-C, 143 for
    SIGTERM, 129 for SIGHUP."""

    def __init__(self, number: int, message: str = STOPPED) -> None:
        super().__init__(message)
        self.code = 128 + number


class Deferred:
    """The signal received, if any, and the message for the end of the block.

    Attributes:
        signal: its number, or None.
        holding: signals are recorded while True, and raised immediately while False.
        message: the line for the user.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self.holding = False
        self.message = STOPPED

    def finish(self) -> None:
        """Allow the work any time from here on; only a second signal interrupts it."""
        _alarm(0.0)


@contextmanager
def raising(lasting: bool = False) -> Iterator[None]:
    """Turn the first signal into `Stop`, and the second into the end of the process.

    Args:
        lasting: from the end of the block to the end of the process, every signal ends it at once and without a
            traceback: Python's own handlers would interrupt whatever tidies up then.
    """

    def handle(number: int, frame: FrameType | None) -> None:
        _note(number)
        raise Stop(number)

    with _handled(handle, lasting=lasting):
        yield


@contextmanager
def deferring() -> Iterator[Deferred]:
    """Note the first signal, and raise `Stop` for it when the block ends, or after `PATIENCE` seconds."""
    stop = Deferred()

    def handle(number: int, frame: FrameType | None) -> None:
        _note(number)
        stop.signal = number
        if not stop.holding:
            raise Stop(number, stop.message)
        _alarm(PATIENCE)

    def interrupt(number: int, frame: FrameType | None) -> None:
        if stop.signal is not None:
            raise Stop(stop.signal, stop.message)

    with _handled(handle, interrupt):
        yield stop
    if stop.signal is not None:
        raise Stop(stop.signal, stop.message)


@contextmanager
def saying(message: str) -> Iterator[None]:
    """Have a `Stop` that says no more than "stopped" say a message."""
    try:
        yield
    except Stop as stop:
        if str(stop) == STOPPED:
            stop.args = (message,)
        raise


@contextmanager
def passing_on(tell: Callable[[int], None]) -> Iterator[None]:
    """Tell of the first signal and go on: another process decides when this one ends. The second ends it at once."""

    def handle(number: int, frame: FrameType | None) -> None:
        _note(number)
        tell(number)

    with _handled(handle):
        yield


@contextmanager
def sending_on(send: Callable[[int], None]) -> Iterator[None]:
    """Send the signals that ask a training for something (`sfumato.train.requests`) to the process that trains."""

    def handle(number: int, frame: FrameType | None) -> None:
        with suppress(IndexError):  # it has not been started
            send(number)

    numbers = [getattr(signal, name) for name in ("SIGUSR1", "SIGUSR2") if hasattr(signal, name)]
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def request(number: int) -> None:
    """Do as if this process had received a signal, unless it has received one; from any thread."""
    if _first is None:
        os.kill(os.getpid(), number)


def _alarm(seconds: float) -> None:
    """Have SIGALRM come after some seconds, or not at all for 0; a system without it never interrupts."""
    if hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread():
        signal.setitimer(signal.ITIMER_REAL, seconds)


def leave(code: int) -> NoReturn:
    """End the process with an exit code, without the finalisers of libraries, which a signal could interrupt."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def _note(number: int) -> None:
    """Keep the first signal; end the process at the second."""
    global _first
    if _first is not None:
        _end(number)
    _first = number


@contextmanager
def _handled(handle: Handler, interrupt: Handler | None = None, lasting: bool = False) -> Iterator[None]:
    """Install handlers and put the old ones back; only the main thread can, others are left alone."""
    global _first, _depth
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ignored = [number for number in SIGNALS[2:] if signal.getsignal(number) is signal.SIG_IGN]
    handlers: dict[int, Handler] = {number: handle for number in SIGNALS if number not in ignored}
    if interrupt is not None and hasattr(signal, "SIGALRM"):
        handlers[signal.SIGALRM] = interrupt
    before = {number: signal.signal(number, new) for number, new in handlers.items()}
    _depth += 1
    try:
        yield
    finally:
        _depth -= 1
        if interrupt is not None:
            _alarm(0.0)
        for number, old in before.items():
            signal.signal(number, _end if lasting else old)
        if not lasting and not _depth:
            _first = None


def _end(number: int, frame: FrameType | None = None) -> None:
    """End the process now, with the cursor shown again where a live view hid it."""
    with suppress(OSError, ValueError):
        if sys.stderr.isatty():
            os.write(2, b"\x1b[?25h\n")
    os._exit(128 + (_first or number))
