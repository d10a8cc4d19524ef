"""Long work in parts, kept on the disk: interrupted, repeated, or done by several processes, no part is done twice.

    FOLDER/NAME.part     what a part came to: the SHA-256 of it, 32 bytes, then itself
    FOLDER/lock          no content; one byte's range of it is locked while a process does the part that it stands for

A part is a function of its name alone, so it doesn't matter who does it. Every process walks down the same list: what
is there it takes, what nobody does it locks and does, and then it waits for what others do. The kernel lets go of a
dead process's locks, so its part is taken over by one that waits. Processes need not know of one another: those of a
launcher share the work, and so do two shells that were given the same command.

Where files can't be locked every process does everything, and the results are the same.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sfumato.files import write_atomic

try:
    import fcntl
except ImportError:  # a system without it
    fcntl = None  # type: ignore[assignment]

__all__ = ["Task", "Tick", "missing", "share"]

Tick = Callable[[int], None]
"""Called with an amount of work when it is done."""

PATIENCE = 0.2
"""Seconds between two looks at what others do."""


@dataclass(frozen=True)
class Task:
    """One part.

    Attributes:
        name: of its file; the same name is the same part.
        size: how much work it is.
        make: does it and returns its content, telling of amounts of work on the way, up to `size` in all.
    """

    name: str
    size: int
    make: Callable[[Tick], bytes]


def missing(folder: Path, tasks: Sequence[Task]) -> list[Task]:
    """Return the parts that are not there, or damaged."""
    return [task for task in tasks if _read(folder, task) is None]


def share(folder: Path, tasks: Sequence[Task], on_progress: Callable[[int, int], None] | None = None) -> list[bytes]:
    """Do what is missing, together with whoever else does, and return the content of every part.

    Args:
        folder: where the parts are kept; made where there is none.
        tasks: the parts.
        on_progress: called with (work done, work in all), of what was missing at the beginning.

    Raises:
        OSError: the folder can't be written.
    """
    found = {task.name: content for task in tasks if (content := _read(folder, task)) is not None}
    left = [task for task in tasks if task.name not in found]
    total = sum(task.size for task in left)
    meter = _Meter(total, on_progress)
    while left:
        for task in left:
            content = _read(folder, task) or _make(folder, task, meter)
            if content is not None:
                found[task.name] = content
                meter.settle(sum(task.size for task in tasks if task.name not in found))
        left = [task for task in left if task.name not in found]
        if left:
            time.sleep(PATIENCE)
    return [found[task.name] for task in tasks]


def _make(folder: Path, task: Task, tick: Tick) -> bytes | None:
    """Do a part and keep it; None where another process is at it."""
    with _claimed(folder, task) as mine:
        if not mine:
            return None
        content = _read(folder, task)  # another may have done it a moment ago
        if content is None:
            content = task.make(tick)
            write_atomic(_file(folder, task), hashlib.sha256(content).digest() + content)
        return content


class _Meter:
    """Work done, from ticks inside a part and from parts that are finished by whomever."""

    def __init__(self, total: int, report: Callable[[int, int], None] | None) -> None:
        self.total, self.report, self.done = total, report, 0

    def __call__(self, amount: int) -> None:
        """Count work inside a part."""
        self._tell(self.done + amount)

    def settle(self, left: int) -> None:
        """Say how much is left when a part is finished."""
        self._tell(self.total - left)

    def _tell(self, done: int) -> None:
        self.done = min(done, self.total)
        if self.report is not None:
            self.report(self.done, self.total)


def _file(folder: Path, task: Task) -> Path:
    return folder / f"{task.name}.part"


def _read(folder: Path, task: Task) -> bytes | None:
    """The content of a part, None where there is none or it is damaged."""
    try:
        kept = _file(folder, task).read_bytes()
    except FileNotFoundError:
        return None
    content = kept[32:]
    return content if kept[:32] == hashlib.sha256(content).digest() else None


@contextmanager
def _claimed(folder: Path, task: Task) -> Iterator[bool]:
    """Hold a part's lock; yields whether it was to be had."""
    folder.mkdir(parents=True, exist_ok=True)
    place = int.from_bytes(hashlib.sha256(task.name.encode()).digest()[:7], "big")
    handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o666)
    try:
        yield _lock(handle, place)
    finally:
        os.close(handle)  # which also lets go of the lock


def _lock(handle: int, place: int) -> bool:
    """Lock one byte of a file, which need not exist; False where another process has it."""
    if fcntl is None:
        return True
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
    except (BlockingIOError, PermissionError):  # either, as POSIX has it
        return False
    except OSError:  # a file system without locks
        return True
    return True
