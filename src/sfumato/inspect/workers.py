"""A function called in several processes, so that no image can end the scan.

Each of k processes takes every k-th index and sends back the function's bytes through a pipe. A decoder that crashes
takes only its process along, and one that hangs is ended after `PATIENCE` seconds: the index gets the reason in place
of an answer, and a new process goes on behind it.

Processes start as copies of this one (`fork`), which costs nothing. Where the system cannot do that well (Windows,
macOS), the function is called here, without that protection.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from multiprocessing.connection import Connection, wait

__all__ = ["PATIENCE", "answers"]

PATIENCE = 30.0
"""Seconds that one image may take."""

Answer = Callable[[int], bytes]


def answers(answer: Answer, indices: list[int], workers: int | None = None) -> Iterator[tuple[int, bytes | str]]:
    """Yield (index, answer, or why there is none) for all indices, in the order in which they are done.

    Args:
        answer: the function.
        indices: what it is called with.
        workers: processes; as many as this process may use cores when None; 0 calls it here.
    """
    forks = sys.platform != "darwin" and "fork" in multiprocessing.get_all_start_methods()
    count = min(len(indices), _cores() if workers is None else workers) if forks else 0
    return _collected(answer, indices, count) if count else ((i, answer(i)) for i in indices)


def _cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _collected(answer: Answer, indices: list[int], count: int) -> Iterator[tuple[int, bytes | str]]:
    workers = [_Worker(answer, indices[k::count]) for k in range(count)]
    try:
        while workers:
            wait([worker.pipe for worker in workers], timeout=1.0)
            for worker in list(workers):
                yield from worker.answers()
                if worker.done == len(worker.indices):
                    workers.remove(worker)
                    worker.end()
                elif (fault := worker.fault()) is not None:
                    workers.remove(worker)
                    worker.end()
                    yield worker.current, fault
                    if rest := worker.indices[worker.done + 1 :]:
                        workers.append(_Worker(answer, rest))
    finally:
        for worker in workers:
            worker.end()


class _Worker:
    """A process, the indices that it answers for, and how many it has."""

    def __init__(self, answer: Answer, indices: list[int]) -> None:
        context = multiprocessing.get_context("fork")
        self.indices, self.done, self.dead, self.since = indices, 0, False, time.monotonic()
        self.pipe, theirs = context.Pipe(duplex=False)
        self.process = context.Process(target=_serve, args=(answer, indices, theirs), daemon=True)
        self.process.start()
        theirs.close()  # so that the process's end is seen here as the end of the pipe

    @property
    def current(self) -> int:
        """The index that it works on now."""
        return self.indices[self.done]

    def answers(self) -> Iterator[tuple[int, bytes]]:
        """What it has sent by now; notes whether it is dead."""
        try:
            while self.done < len(self.indices) and self.pipe.poll():
                answer = self.pipe.recv_bytes()
                yield self.current, answer
                self.done, self.since = self.done + 1, time.monotonic()
        except (EOFError, OSError):
            self.dead = True

    def fault(self) -> str | None:
        """Why it must be ended, None while all is well."""
        if self.dead:
            return "reading it crashed the decoder"
        return f"reading it took more than {PATIENCE:g} s" if time.monotonic() - self.since > PATIENCE else None

    def end(self) -> None:
        """End the process, if it still lives."""
        self.process.kill()
        self.process.join()
        self.pipe.close()


def _serve(answer: Answer, indices: list[int], pipe: Connection) -> None:
    """Answer for indices in turn: the life of a process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the parent decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with suppress(BrokenPipeError):
        for i in indices:
            pipe.send_bytes(answer(i))
