"""Ctrl-C and SIGTERM: stop soon and lose nothing; a second one stops at once.

`raising()` surrounds a whole command: the first signal raises `Stop` where the program stands. `deferring()` surrounds
work that must not be cut in the middle, such as a training step: there the signal is noted, the work asks `stop.asked`
between its steps, and `Stop` is raised when the block ends, after all has been saved. Work that hasn't reached such a
moment after `PATIENCE` seconds is cut off where it stands, and what was last saved counts. In both, a second signal
ends the process without further words; files are safe because every one of them is written aside and renamed.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["Deferred", "Stop", "deferring", "raising"]

SIGNALS = (signal.SIGINT, signal.SIGTERM)
PATIENCE = 7.0
"""Seconds from a signal to the end of the step; with saving, the process should be gone after ten."""


class Stop(KeyboardInterrupt):
    """A signal asked the command to end.

    Args:
        number: the signal.
        said: what to tell the user.
    """

    def __init__(self, number: int, said: str = "stopped") -> None:
        super().__init__(said)
        self.code = 128 + number
        """The exit code that shells use for this signal: 130 for Ctrl-C, 143 for SIGTERM."""


class Deferred:
    """Whether a signal has come, and what to say about it when the block ends.

    Attributes:
        asked: the signal's number, or None.
        holding: signals are noted while True, and raised where the program stands while False.
        said: the line for the user.
    """

    def __init__(self) -> None:
        self.asked: int | None = None
        self.holding = False
        self.said = "stopped"

    def settled(self) -> None:
        """Say that a whole state is reached: from here on nothing cuts in, but a second signal."""
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
    """Note the first SIGINT or SIGTERM, and raise `Stop` for it when the block ends, or when the patience does."""
    stop = Deferred()

    def handle(number: int, frame: FrameType | None) -> None:
        if stop.asked is not None:
            _end(number)
        stop.asked = number
        if not stop.holding:
            raise Stop(number, stop.said)
        _alarm(PATIENCE)

    def cut(number: int, frame: FrameType | None) -> None:
        if stop.asked is not None:
            raise Stop(stop.asked, stop.said)

    with _handled(handle, cut):
        yield stop
    if stop.asked is not None:
        raise Stop(stop.asked, stop.said)


def _alarm(seconds: float) -> None:
    """Have SIGALRM come after so long, or not at all for 0; systems without it are patient for ever."""
    if hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread():
        signal.setitimer(signal.ITIMER_REAL, seconds)


Handler = Callable[[int, FrameType | None], None]


@contextmanager
def _handled(handle: Handler, cut: Handler | None = None) -> Iterator[None]:
    """Install handlers and put the old ones back; only a main thread may do so, others are left alone."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers: dict[int, Handler] = dict.fromkeys(SIGNALS, handle)
    if cut is not None and hasattr(signal, "SIGALRM"):
        handlers[signal.SIGALRM] = cut
    before = {number: signal.signal(number, new) for number, new in handlers.items()}
    try:
        yield
    finally:
        if cut is not None:
            _alarm(0.0)
        for number, old in before.items():
            signal.signal(number, old)


def _end(number: int) -> None:
    """End the process now, with the cursor shown again where a live view hid it."""
    if sys.stderr.isatty():
        os.write(2, b"\x1b[?25h\n")
    os._exit(128 + number)
