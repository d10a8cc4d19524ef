"""Ctrl-C in a program or a notebook that trains: it waits for the end of a step, so that a complete state is saved."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def holding() -> Iterator[None]:
    """Hold Ctrl-C back until the block ends, and raise KeyboardInterrupt then; a second one interrupts at once.

    Only where Python's own handler is in charge, in the main thread; the command line has another.
    """
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    pressed = 0

    def press(*_: object) -> None:
        nonlocal pressed
        pressed += 1
        if pressed > 1:
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, press)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if pressed:
        raise KeyboardInterrupt
