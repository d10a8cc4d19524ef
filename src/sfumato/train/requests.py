"""Requests to a training that runs: a sample grid now, a checkpoint now.

    touch RUN/sample-now      or  kill -USR1 PROCESS      samples the grids after the step under way
    touch RUN/save-now        or  kill -USR2 PROCESS      saves a checkpoint then, which is kept

A file is removed when what it asks for is done. Neither changes the bits of the training. A process that has a handler
of its own for a signal keeps it. Of several processes rank 0 does what is asked; the others ignore the signals, which a
scheduler sends to all of them.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType

from sfumato.run.folder import Run

KINDS = ("sample", "save")
SIGNALS = {"sample": "SIGUSR1", "save": "SIGUSR2"}
"""The name of each request's signal; a system without it has the file alone."""


class Requests:
    """The requests to a run that are not done yet."""

    def __init__(self, run: Run) -> None:
        self._files = {"sample": run.sample_now_path, "save": run.save_now_path}
        self._signalled: set[str] = set()
        self._stuck: set[str] = set()  # files that can't be removed would ask for ever

    def pending(self, kind: str) -> bool:
        """Whether a request of one of the `KINDS` is waiting."""
        return kind in self._signalled or (kind not in self._stuck and self._files[kind].exists())

    def done(self, kind: str) -> None:
        """Take note that what was asked for is done."""
        self._signalled.discard(kind)
        try:
            self._files[kind].unlink(missing_ok=True)
        except OSError:
            self._stuck.add(kind)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Note the signals until the block ends, in the main thread and where nobody else handles them."""
        with _handled({kind: self._noting(kind) for kind in KINDS}):
            yield

    def _noting(self, kind: str) -> Callable[[int, FrameType | None], None]:
        """Return a handler that notes a request."""
        return lambda *_: self._signalled.add(kind)


@contextmanager
def ignored() -> Iterator[None]:
    """Ignore the signals until the block ends, as a rank does that follows another."""
    with _handled(dict.fromkeys(KINDS, signal.SIG_IGN)):
        yield


@contextmanager
def _handled(handlers: Mapping[str, Callable[[int, FrameType | None], None] | signal.Handlers]) -> Iterator[None]:
    """Handle the signals of kinds in the main thread, where nobody else does, and put the old handlers back."""
    before = {}
    if threading.current_thread() is threading.main_thread():
        for kind, handler in handlers.items():
            number = getattr(signal, SIGNALS[kind], None)
            if number is not None and signal.getsignal(number) is signal.SIG_DFL:
                before[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
