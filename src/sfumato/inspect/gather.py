"""Every picture looked at in processes of their own, so that no file can take the survey down.

Each of k processes looks at every k-th picture and sends back a record, or the reason why there is none, as plain
bytes through a pipe. A decoder that crashes takes only its process along, one that hangs is ended after `PATIENCE`
seconds; the picture it stood at is named with that reason, and a new process goes on behind it. Memory is one record a
picture here, and in each process the picture in hand.

Processes begin as copies of this one (`fork`), which costs nothing. Where the system can't do that well (Windows,
macOS), the pictures are looked at here, one after the other, without that protection.
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

import numpy as np
from numpy.typing import NDArray

from sfumato.data.sources.protocol import Source, Unreadable
from sfumato.inspect.look import Sights, look, sight_type

__all__ = ["PATIENCE", "gather"]

PATIENCE = 30.0
"""Seconds that one picture may take."""

Progress = Callable[[int, int], None]
Faults = list[tuple[int, str]]


def gather(
    source: Source, indices: NDArray[np.int64], on_progress: Progress | None = None, workers: int | None = None
) -> tuple[Sights, Faults]:
    """Look at pictures.

    Args:
        source: the pictures.
        indices: which, ascending.
        on_progress: called with (looked at, in all).
        workers: processes; as many as this process may use cores when None; 0 looks here.

    Returns:
        The records of the readable pictures in order, and (index, reason) of the others.
    """
    kind = sight_type(len(source.attributes))
    sights, faults, count = np.zeros(len(indices), kind), Faults(), 0
    forks = sys.platform != "darwin" and "fork" in multiprocessing.get_all_start_methods()
    workers = min(len(indices), _cores() if workers is None else workers) if forks else 0
    answers = _asked(source, indices, workers) if workers else ((i, _answer(source, i)) for i in indices.tolist())
    for done, (i, answer) in enumerate(answers, 1):
        if answer[:1] == b"+":
            sights[count] = np.frombuffer(answer[1:], kind)[0]
            count += 1
        else:
            faults.append((i, answer[1:].decode("utf-8", "replace")))
        if on_progress is not None:
            on_progress(done, len(indices))
    sights = sights[:count]
    return sights[np.argsort(sights["index"])], sorted(faults)


def _cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _answer(source: Source, i: int) -> bytes:
    """Picture i's record behind a plus, or the reason behind a minus."""
    try:
        return b"+" + look(source, i).tobytes()
    except Unreadable as fault:
        return b"-" + fault.reason.encode("utf-8", "replace")
    except MemoryError:
        return b"-it needs more memory than there is"


def _serve(source: Source, indices: list[int], pipe: Connection) -> None:
    """Answer for pictures in turn: the life of a process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the parent decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with suppress(BrokenPipeError):
        for i in indices:
            pipe.send_bytes(_answer(source, i))


class _Worker:
    """A process, the pictures that it answers for, and how many it has."""

    def __init__(self, source: Source, indices: list[int]) -> None:
        context = multiprocessing.get_context("fork")
        self.indices, self.done, self.dead, self.since = indices, 0, False, time.monotonic()
        self.pipe, theirs = context.Pipe(duplex=False)
        self.process = context.Process(target=_serve, args=(source, indices, theirs), daemon=True)
        self.process.start()
        theirs.close()  # so that the process's end is seen here as the end of the pipe

    @property
    def standing_at(self) -> int:
        """The picture that it looks at now."""
        return self.indices[self.done]

    def answers(self) -> Iterator[tuple[int, bytes]]:
        """What it has sent by now, and whether it is dead."""
        try:
            while self.done < len(self.indices) and self.pipe.poll():
                answer = self.pipe.recv_bytes()
                yield self.standing_at, answer
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


def _asked(source: Source, indices: NDArray[np.int64], count: int) -> Iterator[tuple[int, bytes]]:
    """Have processes look, and yield (index, answer) as they come."""
    workers = [_Worker(source, indices[k::count].tolist()) for k in range(count)]
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
                    yield worker.standing_at, b"-" + fault.encode()
                    if rest := worker.indices[worker.done + 1 :]:
                        workers.append(_Worker(source, rest))
    finally:
        for worker in workers:
            worker.end()
