"""A run as it is now, for a reader beside the training: whether a process trains in it, and what it has logged since.

Nothing here takes the run's lock: a training that starts at that moment would find it taken. Whether it is held is read
from /proc/locks; where a system has none, from the process number in the lock file.
"""

from __future__ import annotations

import json
import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sfumato.errors import UserError, similar
from sfumato.files import MEGABYTE, read_regular
from sfumato.run.events import Event, from_json
from sfumato.run.folder import Run
from sfumato.run.progress import Progress

QUIET = 120.0
"""Seconds without a line after which a training may have stalled."""
PATIENCE = 5.0
"""How many times the usual time between two lines may pass before it has."""
_HOLDER = re.compile(r"process (\d+) on (\S+), since (\S+)")


@dataclass(frozen=True)
class State:
    """What a run is doing.

    Attributes:
        word: `training`, `stalled` (a process trains, and has logged nothing for too long), `finished`, `stopped` (no
            process trains, and the planned length is not reached) or `new` (nothing is logged yet).
        quiet: seconds since the last line of the log.
        process: number of the process that trains; None where none does, or it is on another machine.
        memory: bytes in use by that process, 0 where unknown.
    """

    word: str
    quiet: float
    process: int | None
    memory: int


class Follower:
    """Reads a run's log from the beginning, then what is added, a line at a time.

    A log that is written anew, as on resuming, is read again from its beginning, with `progress` anew.

    Attributes:
        progress: of the training so far.
        last: the last event.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self._start_again()

    def _start_again(self) -> None:
        self.progress, self.last = Progress(self.run), None
        self._offset, self._inode = 0, 0
        self._gap = 0.0  # seconds of training between the last two lines

    last: Event | None

    def news(self) -> Iterator[Event]:
        """Yield the events that were logged since the last call."""
        try:
            with self.run.events_path.open("rb") as file:
                state = os.fstat(file.fileno())
                if state.st_ino != self._inode or state.st_size < self._offset:
                    self._start_again()
                    self._inode = state.st_ino
                file.seek(self._offset)
                while (part := file.readline(MEGABYTE)).endswith(b"\n") or len(part) == MEGABYTE:
                    self._offset += len(part)
                    event = _event(part)
                    if event is not None:
                        self._take(event)
                        yield event
        except FileNotFoundError:
            return

    def _take(self, event: Event) -> None:
        before, seconds = getattr(self.last, "seconds", None), getattr(event, "seconds", None)
        if before is not None and seconds is not None:
            self._gap = max(seconds - before, 0.9 * self._gap)
        self.progress.take(event)
        self.last = event

    def state(self) -> State:
        """Return what the run is doing."""
        quiet = 0.0
        with suppress(OSError):
            quiet = max(0.0, time.time() - self.run.events_path.stat().st_mtime)
        process, held = _holder(self.run.lock_path)
        finished = self.run.read(self.run.finished_path)
        if held:
            word = "stalled" if quiet > max(QUIET, PATIENCE * self._gap) else "training"
        elif finished is not None and finished.get("images") == self.progress.images:
            word = "finished"
        else:
            word = "stopped" if self.last is not None else "new"
        return State(word, quiet, process, 0 if process is None else _memory(process))


def check(run: Run) -> None:
    """Raise `UserError` for a folder that is no run."""
    if not run.exists() and not run.lock_path.exists():
        hint = similar(run.path, lambda path: Run(path).exists())
        raise UserError(f"{run.path} is not a run folder: give one, such as runs/faces{hint}")


def _event(line: bytes) -> Event | None:
    """The event of a line, None where it has none."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return from_json(value) if isinstance(value, dict) else None


def _holder(lock: Path) -> tuple[int | None, bool]:
    """Return the process that holds a lock, None where it is unknown or elsewhere, and whether it is held."""
    try:
        text = read_regular(lock, 200).decode(errors="replace")
        inode = lock.stat().st_ino
    except OSError:
        return None, False
    match = _HOLDER.search(text)
    process = int(match[1]) if match and match[2] == socket.gethostname() else None
    with suppress(OSError):
        lines = Path("/proc/locks").read_text("ascii", errors="replace").splitlines()
        held = any(" FLOCK " in line and f":{inode} " in line for line in lines)
        return (process if held else None), held
    if process is None:
        return None, False
    with suppress(PermissionError):
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return None, False
    return process, True


def _memory(process: int) -> int:
    """Bytes in use by a process, 0 where unknown."""
    with suppress(OSError, ValueError, IndexError):
        pages = int(Path(f"/proc/{process}/statm").read_text("ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    return 0
