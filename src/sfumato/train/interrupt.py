"""The end of a program or a notebook that trains: Ctrl-C waits for the end of a step, so that a complete state is
saved, and a generator that nobody closed is closed, and saves, while Python is still whole."""

from __future__ import annotations

import atexit
import functools
import logging
import os
import signal
import threading
import weakref
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

LOG = logging.getLogger("sfumato")
_OPEN: weakref.WeakKeyDictionary[Generator[Any], int] = weakref.WeakKeyDictionary()
"""Generators that may still run, and the process that each was made in."""


def closed_at_exit(function: Callable[P, Generator[T]]) -> Callable[P, Generator[T]]:
    """Have the generators of a function be closed when the interpreter ends, before modules are taken down."""

    @functools.wraps(function)
    def opened(*args: P.args, **kwargs: P.kwargs) -> Generator[T]:
        events = function(*args, **kwargs)
        _OPEN[events] = os.getpid()
        return events

    return opened


@atexit.register
def _close_all() -> None:
    """Close what is open; a copy in a forked process is not ours to close."""
    for events in [events for events, process in _OPEN.items() if process == os.getpid()]:
        try:
            with suppress(ValueError):  # another thread runs it
                events.close()
        except Exception as error:
            LOG.warning("%s", error)


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
