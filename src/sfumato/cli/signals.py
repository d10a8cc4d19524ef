"""Ctrl-C and SIGTERM: stop soon and lose nothing; a second one stops at once.

`raising()` surrounds a whole command: the first signal raises `Stop` immediately. `deferring()` surrounds work
that must not be interrupted midway, such as a training step: there the signal is noted, the work reads `stop.signal`
between its steps, and `Stop` is raised when the block ends, after everything is saved. Work that takes longer than
`PATIENCE` seconds is interrupted, and the last checkpoint remains. In both, a second signal ends the process at once;
no file is left half written, since files are renamed into place.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
PATIENCE = 7.0
"""Seconds from a signal to the end of the step; with saving, the process should end within ten."""

Handler = Callable[[int, FrameType | None], None]


class Stop(KeyboardInterrupt):
    """A signal asked the command to end; `code` is the exit code that shells use for it: 130 for Ctrl-C, 143 for
    SIGTERM."""

    def __init__(self, number: int, message: str = "stopped") -> None:
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
        self.message = "stopped"

    def finish(self) -> None:
        """Allow the work any time from here on; only a second signal interrupts it."""
        _alarm(0.0)


@contextmanager
def raising() -> Iterator[None]:
    """Turn the first SIGINT or SIGTERM into `Stop`, and the second into the end of the process."""
    seen = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal seen
        if seen:
            _end(number)
        seen = True
        raise Stop(number)

    with _handled(handle):
        yield


@contextmanager
def deferring() -> Iterator[Deferred]:
    """Note the first SIGINT or SIGTERM, and raise `Stop` for it when the block ends, or after `PATIENCE` seconds."""
    stop = Deferred()

    def handle(number: int, frame: FrameType | None) -> None:
        if stop.signal is not None:
            _end(number)
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


def _alarm(seconds: float) -> None:
    """Have SIGALRM come after some seconds, or not at all for 0; a system without it never interrupts."""
    if hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread():
        signal.setitimer(signal.ITIMER_REAL, seconds)


@contextmanager
def _handled(handle: Handler, interrupt: Handler | None = None) -> Iterator[None]:
    """Install handlers and put the old ones back; only the main thread can, others are left alone."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers: dict[int, Handler] = dict.fromkeys(SIGNALS, handle)
    if interrupt is not None and hasattr(signal, "SIGALRM"):
        handlers[signal.SIGALRM] = interrupt
    before = {number: signal.signal(number, new) for number, new in handlers.items()}
    try:
        yield
    finally:
        if interrupt is not None:
            _alarm(0.0)
        for number, old in before.items():
            signal.signal(number, old)


def _end(number: int) -> None:
    """End the process now, with the cursor shown again where a live view hid it."""
    if sys.stderr.isatty():
        os.write(2, b"\x1b[?25h\n")
    os._exit(128 + number)
