"""Long work in jobs whose results are kept: no job runs twice, also with interruptions and several processes.

    FOLDER/NAME.part     the result of a job: its SHA-256, 32 bytes, then itself
    FOLDER/NAME.lock     locked by the process that runs the job

A job is a function of its name alone, so it doesn't matter which process runs it. Every process goes through the same
list: it takes what is there, locks and runs what no other is running, and then waits for what others run. A dead
process's job is taken over by one that waits. Processes need not know of one another: those of a launcher share the
jobs, and so do two shells that run the same command. Where files can't be locked every process runs everything.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sfumato.files import Lock, write_atomic

Tick = Callable[[int], None]
"""Called with an amount of finished work."""
Progress = Callable[[int, int], None]
"""Called with the amount done and the total amount."""
PATIENCE = 0.2
"""Seconds between two checks of the jobs of other processes."""


def silent(what: str) -> Progress:
    """Report no progress."""
    return lambda done, total: None


@dataclass(frozen=True)
class Job:
    """A named amount of work; `run` does it and returns the result, reporting up to `size` in all on the way."""

    name: str
    size: int
    run: Callable[[Tick], bytes]


@dataclass(frozen=True)
class Stage:
    """Jobs that belong together.

    Attributes:
        what: a description such as "generating images".
        folder: where their results are kept; created if missing.
        jobs: the jobs, their sizes in evaluations of the network.
        unit: evaluations for one image.
    """

    what: str
    folder: Path
    jobs: tuple[Job, ...]
    unit: int = 1

    @property
    def left(self) -> int:
        """The work of the jobs whose results are missing or damaged."""
        return sum(job.size for job in self.jobs if self._read(job) is None)

    def run(self, progress: Callable[[str], Progress] = silent) -> list[bytes]:
        """Run the missing jobs, together with other processes, and return every result; progress counts images. Raises
        OSError where the folder can't be written."""
        results = {job.name: result for job in self.jobs if (result := self._read(job)) is not None}
        left = [job for job in self.jobs if job.name not in results]
        report, total, done = progress(self.what), sum(job.size for job in left), 0

        def advance(amount: int) -> None:
            nonlocal done
            done = min(amount, total)
            report(done // self.unit, total // self.unit)

        while left:
            for job in left:
                result = self._read(job) or self._run(job, lambda amount: advance(done + amount))
                if result is not None:
                    results[job.name] = result
                    advance(total - sum(job.size for job in self.jobs if job.name not in results))
            left = [job for job in left if job.name not in results]
            if left:
                time.sleep(PATIENCE)
        return [results[job.name] for job in self.jobs]

    def _run(self, job: Job, tick: Tick) -> bytes | None:
        """Run a job and keep its result; None where another process runs it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with Lock(self.folder / f"{job.name}.lock") as lock:
            if not lock.held:
                return None
            result = self._read(job)  # another process may have finished it meanwhile
            if result is None:
                result = job.run(tick)
                write_atomic(self._file(job), hashlib.sha256(result).digest() + result)
            lock.path.unlink(missing_ok=True)
            return result

    def _file(self, job: Job) -> Path:
        return self.folder / f"{job.name}.part"

    def _read(self, job: Job) -> bytes | None:
        """The result of a job, None where it is missing or damaged."""
        try:
            content = self._file(job).read_bytes()
        except FileNotFoundError:
            return None
        return content[32:] if content[:32] == hashlib.sha256(content[32:]).digest() else None
