"""A warning about a file that takes long in a process which nothing would end, as a worker is (`workers`)."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sfumato.data.workers import PATIENCE

LOG = logging.getLogger("sfumato")


@contextmanager
def watched(name: Callable[[int], str], patience: float = PATIENCE) -> Iterator[Callable[[int | None], None]]:
    """Yield a function to call with the number of each file that this process begins, and with None for a pause: a file
    that takes longer than `patience` seconds is named in a warning, since only a worker would be ended."""
    over, begun = threading.Event(), [(0, 0.0)]

    def watch() -> None:
        while not over.wait(patience / 5):
            number, since = begun[0]
            if since and time.monotonic() - since > patience:
                LOG.warning(
                    "'%s' has taken %g s so far. If it does not end, stop the command and run it with "
                    "SFUMATO_WORKERS=1, which skips a file after %g s",
                    name(number),
                    patience,
                    patience,
                )
                return

    def begin(number: int | None) -> None:
        begun[0] = (0, 0.0) if number is None else (number, time.monotonic())

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield begin
    finally:
        over.set()
