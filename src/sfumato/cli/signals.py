"""Ctrl-C and SIGTERM: stop soon and lose nothing; a second one stops at once.

`raising()` surrounds a whole command: the first signal raises `Stop` where the program stands. `deferring()` surrounds
work that must not be cut in the middle, such as a training step: there the signal is noted, the work asks `stop.asked`
between its steps, and `Stop` is raised when the block ends, after all has been saved. In both, a second signal ends the
process without further words; files are safe because every one of them is written aside and renamed.
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
    """Note the first SIGINT or SIGTERM, and raise `Stop` for it when the block ends."""
    stop = Deferred()

    def handle(number: int, frame: FrameType | None) -> None:
        if stop.asked is not None:
            _end(number)
        stop.asked = number
        if not stop.holding:
            raise Stop(number)

    with _handled(handle):
        yield stop
    if stop.asked is not None:
        raise Stop(stop.asked, stop.said)


@contextmanager
def _handled(handle: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Install a handler and put the old ones back; only a main thread may do so, others are left alone."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = [signal.signal(number, handle) for number in SIGNALS]
    try:
        yield
    finally:
        for number, old in zip(SIGNALS, before, strict=True):
            signal.signal(number, old)


def _end(number: int) -> None:
    """End the process now, with the cursor shown again where a live view hid it."""
    if sys.stderr.isatty():
        os.write(2, b"\x1b[?25h\n")
    os._exit(128 + number)
