"""The run's diary: events become lines of events.jsonl and pictures become PNG files as they pass by.

A long run takes a million steps, and nobody reads a million lines, so the reports of steps are summed into at most
about a thousand lines: each line holds the mean loss and the sums by noise level of the steps since the line before it.
A line is also closed whenever a checkpoint is saved, so that every step that a checkpoint knows of is in exactly one
line.

A run that resumes at n images has seen things after n, before it was cut off, that are now going to happen again. On
`Started` the diary drops every line that lies beyond, so it reads as if the run had never been interrupted.

A diary that can't be written (a full disk) is no reason to stop training: the lines wait in memory, and a `Warned` is
passed on.
"""

from __future__ import annotations

import json
import os
from collections.abc import Generator, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from sfumato.files import write_atomic
from sfumato.generate.pictures import grid
from sfumato.generate.writers import save_png
from sfumato.run.events import Event, Finished, HeldOut, Sampled, Saved, Started, Stepped, Warned, to_json
from sfumato.run.folder import Run

__all__ = ["MOST_LINES", "read_events", "record"]

MOST_LINES = 1000
# What happens (again) at the moment of a checkpoint, after it is loaded.
_REPEATED = {name.__name__.lower() for name in (HeldOut, Sampled, Finished)}


class Diary:
    """Writes events into a run folder and keeps what can't be written yet.

    Args:
        run: the run folder.
    """

    def __init__(self, run: Run) -> None:
        self.run, self.path = run, run.events_path
        self.steps_a_line = 1
        self._line: Stepped | None = None
        self._waiting = ""
        self._failing = False

    def take(self, event: Event) -> list[str | None]:
        """Write down an event; return what went wrong, if anything did."""
        if isinstance(event, Stepped):
            self._line = _joined(self._line, event)
            whole = event.step // self.steps_a_line > (event.step - event.steps) // self.steps_a_line
            return [self.close_line()] if whole else []
        troubles = []
        if isinstance(event, Started):
            self.steps_a_line = max(1, event.plan.steps // MOST_LINES)
            self.rewind(event.resumed_at)
        if isinstance(event, Sampled):
            troubles.append(_draw(event, self.run))
        if isinstance(event, Saved | Finished):
            troubles.append(self.close_line())
        if not (isinstance(event, Finished) and event.again):
            troubles.append(self.write(event))
        return troubles

    def rewind(self, images: int) -> None:
        """Drop the lines of what will happen again when training goes on from `images`."""
        if self.path.exists():
            kept = [line for line in read_events(self.path) if _past(line, images)]
            write_atomic(self.path, "".join(json.dumps(line) + "\n" for line in kept))

    def close_line(self) -> str | None:
        """Write the steps that were summed up so far."""
        line, self._line = self._line, None
        return self.write(line) if line is not None else None

    def write(self, event: Event) -> str | None:
        """Append an event; on the first failure in a row return what is wrong."""
        self._waiting += json.dumps(to_json(event)) + "\n"
        try:
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
            return f"{self.path} can't be written ({error.strerror}); training goes on" if first else None
        self._waiting, self._failing = "", False
        return None


def _past(line: dict[str, Any], images: int) -> bool:
    """Whether a line lies before the checkpoint of `images` and is not going to be repeated."""
    here = line.get("images", 0)
    return bool(here < images or (here == images and line.get("event") not in _REPEATED))


def read_events(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines of an events.jsonl as dicts; a line that was cut off is left out."""
    with path.open("rb") as file:
        for line in file:
            with suppress(ValueError):
                value = json.loads(line)
                if line.endswith(b"\n") and isinstance(value, dict):
                    yield value


def _joined(a: Stepped | None, b: Stepped) -> Stepped:
    """Return two reports of steps as one: means weighted by steps, sums added."""
    if a is None:
        return b
    steps = a.steps + b.steps
    return replace(
        b,
        loss=(a.loss * a.steps + b.loss * b.steps) / steps,
        grad_norm=(a.grad_norm * a.steps + b.grad_norm * b.steps) / steps,
        buckets=a.buckets + b.buckets,
        steps=steps,
    )


def _draw(event: Sampled, run: Run) -> str | None:
    """Write a grid's PNG; return what went wrong, if anything did."""
    suffix = "" if event.kind == "ema" else f"-{event.kind}"
    path = run.samples / f"{event.images:012d}{suffix}.png"
    facts = {"images": event.images, "seed": event.seed, "weights": event.kind}
    try:
        save_png(grid(event.pictures), path, facts)
    except OSError as error:
        return f"{path} can't be written ({error.strerror}); training goes on"
    return None


def record(events: Generator[Event, None, None], run: Run) -> Generator[Event, None, None]:
    """Write events into the run folder as they pass; closing it closes `events`.

    Args:
        events: what `train` yields.
        run: the run folder.

    Yields:
        The same events, each after it was written, and `Warned` where writing failed.
    """
    diary = Diary(run)
    with closing(events):
        try:
            for event in events:
                troubles = diary.take(event)
                yield event
                yield from (Warned(event.images, trouble) for trouble in troubles if trouble)
        finally:
            diary.close_line()  # before `events` is closed, which saves a checkpoint of these steps
