"""The event log of a run: events become lines of events.jsonl.

A long run takes a million steps, so reports of steps are joined into about a thousand lines. A line also ends before a
checkpoint is saved, so every step is in exactly one line, whichever checkpoint the run resumes from.

A run that resumes at n images repeats what it did after n. On `Started` the log drops the lines beyond n, as if the run
had never been interrupted.

A log that can't be written (a full disk) does not stop training: its lines are kept in memory until it can. A log that
was removed or cut short meanwhile is reported.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from sfumato.files import MEGABYTE, sync, write_atomic
from sfumato.run.events import Changed, Event, Finished, HeldOut, Replanned, Sampled, Saved, Started, Stepped, to_json

MAX_LINES = 1000
_REPEATED = {kind.__name__.lower() for kind in (HeldOut, Sampled, Replanned, Changed, Finished)}
"""Events that are repeated on resuming at exactly this many images."""


class EventLog:
    """Writes events to a run's events.jsonl, and keeps in memory what can't be written yet.

    Args:
        path: the file.
        warn: called with the first of several failures in a row, and where lines were lost.
        listener: called with the event of each line, joined as it is written.
    """

    def __init__(
        self, path: Path, warn: Callable[[str], None], listener: Callable[[Event], None] = lambda event: None
    ) -> None:
        self.path, self.warn, self.listener = path, warn, listener
        self._steps_a_line = 1
        self._line: Stepped | None = None
        self._waiting = ""
        self._rewind_to: int | None = None
        self._failing = False
        self._size = 0  # of the file after the last write

    def write(self, event: Event) -> None:
        """Add an event."""
        if isinstance(event, Stepped):
            self._line = event if self._line is None else self._line + event
            if event.step // self._steps_a_line > (event.step - event.steps) // self._steps_a_line:
                self.end_line()
            return
        if isinstance(event, Started | Replanned):
            self.end_line()
            self._steps_a_line = max(1, event.plan.steps // MAX_LINES)
        if isinstance(event, Started):
            self._rewind_to = event.resumed_at if self.path.exists() else None
        if isinstance(event, Saved | Finished):
            self.end_line()
        self._append(event)

    def end_line(self) -> None:
        """Write the steps joined so far."""
        line, self._line = self._line, None
        if line is not None:
            self._append(line)

    def close(self) -> None:
        """Write what is left, trying once more what could not be written."""
        self.end_line()
        if self._waiting:
            self._flush()

    def sync(self) -> None:
        """Flush the log to the disk: a checkpoint must not outlive the lines that lead to it."""
        self.end_line()
        if self.path.exists():
            sync(self.path)

    def _append(self, event: Event) -> None:
        self._waiting += json.dumps(to_json(event)) + "\n"
        self._flush()
        self.listener(event)

    def _flush(self) -> None:
        """Write the lines that wait."""
        try:
            self._rewind()
            size = self.path.stat().st_size if self.path.exists() else 0
            try:
                with self.path.open("a", encoding="utf-8") as file:
                    file.write(self._waiting)
            except OSError:
                with suppress(OSError):
                    os.truncate(self.path, size)  # no half a line
                raise
        except OSError as error:
            first, self._failing = not self._failing, True
            if first:
                self.warn(f"{self.path} can't be written ({error.strerror}); training continues")
        else:
            if size < self._size:
                self.warn(f"{self.path} was removed or cut short: the lines that it lost are gone; training continues")
            self._size, self._waiting, self._failing = size + len(self._waiting.encode()), "", False

    def _rewind(self) -> None:
        """Drop the lines of events that resuming repeats."""
        if self._rewind_to is not None:
            write_atomic(self.path, lines_before(self.path, self._rewind_to), parents=False)
            self._rewind_to, self._size = None, 0


def lines_before(path: Path, images: int) -> str:
    """Return the lines of a log that lead to so many images, without those that are repeated on resuming there."""
    return "".join(json.dumps(line) + "\n" for line in read_events(path) if _before(line, images))


def _before(line: dict[str, Any], images: int) -> bool:
    """Whether a line's event came before the checkpoint of `images`."""
    seen = line.get("images", 0)
    return isinstance(seen, int | float) and bool(
        seen < images or (seen == images and line.get("event") not in _REPEATED)
    )


def read_events(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines of an events.jsonl as dicts; none without a file; a line that was cut off, or is longer than a
    megabyte, is left out."""
    if not path.is_file():  # a pipe or a device never ends
        return
    with path.open("rb") as file:
        whole = True  # whether the next part begins a line
        while part := file.readline(MEGABYTE):
            begins, whole = whole, part.endswith(b"\n")
            with suppress(ValueError, RecursionError):
                if begins and whole and isinstance(value := json.loads(part), dict):
                    yield value


def last_saved(path: Path) -> int:
    """Return the images of the greatest checkpoint that a log names, 0 where it names none."""
    saved = (line.get("images") for line in read_events(path) if line.get("event") == "saved")
    return max((images for images in saved if type(images) is int), default=0)
