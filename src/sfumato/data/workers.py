"""One pool of worker processes: a function of files, whatever the files do to the processes.

    for answer in run("sfumato.data.store.build:decoder", setup, files, workers=2): ...

The answers are bytes, or a text that says why there is none. They come in the order of the files and don't depend on
how many processes there are; only a few batches are waiting at a time, so memory doesn't grow with the number of files.
A process that dies is replaced and its file tried once more; if that one dies too, or a file takes longer than
`patience` seconds, the answer says so, and the rest goes on.

A worker is a plain `python` process with pipes, on every system alike. So it inherits no threads, locks or open files,
and the program that asked is not run again. The function is named `module:name`; a worker imports the module, calls the
function with `setup`, and what that returns with each file. What goes over the pipes:

    to the worker      the setup; then batches: a number n, and n files, each `P` + path or `B` + bytes
    from the worker    `ready`; then for each file `+` and the answer, or `-` and why there is none
    on a third pipe    a byte for each file that is begun, which says at which one it was when it died

Each item stands behind its length, eight bytes. Answers are sent several at once, at least every `OFTEN` seconds, since
each sending wakes the other side. A worker ends when its input does, and by the system's alarm where a file takes it
far too long and nobody is left to end it.
"""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import IO, cast

import sfumato
from sfumato.data.sources.protocol import Blob, File, Unreadable, printable
from sfumato.errors import UserError

__all__ = ["PATIENCE", "SMALL", "count_workers", "main", "run"]

PATIENCE = 25.0
"""Seconds that a file may take."""
SMALL = 1000
"""Fewer pictures than this are decoded without further processes, which take a third of a second to begin."""
OFTEN = 0.05
"""Seconds after which answers are sent."""

_PIPE, _POLL = 2**18, 0.5
_LENGTH = struct.Struct("<Q")
_START = """
import sys
if sys.argv[1] not in sys.path:  # so that it is this program's sfumato, whatever else is installed
    sys.path.insert(0, sys.argv[1])
from sfumato.data.workers import main
main(*sys.argv[2:])
"""


def count_workers(files: int, fewest: int = SMALL) -> int:
    """Return how many processes to use: $SFUMATO_WORKERS, else one for each core that this process may use.

    Args:
        files: how many there are.
        fewest: with fewer files it is 0.

    Raises:
        UserError: $SFUMATO_WORKERS is not a number.
    """
    if given := os.environ.get("SFUMATO_WORKERS"):
        if not given.isdecimal():
            raise UserError(f"SFUMATO_WORKERS is '{given}': give a number of processes, 0 to use none")
        return int(given)
    if files < fewest:
        return 0
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run(
    function: str,
    setup: bytes,
    files: Iterable[File | str],
    workers: int,
    patience: float = PATIENCE,
    batch: int = 16,
    tries: int = 2,
) -> Iterator[bytes | str]:
    """Yield for each file, in order, its answer, or why there is none.

    Args:
        function: `module:name`; what it returns may raise `Unreadable`.
        setup: what it is called with in each worker.
        files: taken one after another, a few batches ahead of what was yielded; in place of a file why there is none.
        workers: processes; 0 answers here, without protection from what the files do.
        patience: seconds that a file may take.
        batch: files that are sent at once.
        tries: processes that may die of a file before it is given up.

    Raises:
        UserError: processes can't be started.
        Exception: what taking the files raises.
    """
    if not workers:
        answer = _loaded(function, setup)
        yield from (_unpacked(_answer(answer, _packed(file))) for file in files)
        return
    pool = _Pool(lambda: _Worker(function, setup, patience), map(_packed, files), 2 * workers + 2, batch, tries)
    threads = [threading.Thread(target=pool.serve, daemon=True) for _ in range(workers)]
    for thread in threads:
        thread.start()
    try:
        yield from map(_unpacked, pool.answers())
    finally:
        pool.end()
        for thread in threads:
            thread.join()


class _Worker:
    """One process, how many answers it owes, and since when it has been at its present file."""

    def __init__(self, function: str, setup: bytes, patience: float) -> None:
        root = str(Path(sfumato.__file__).parents[1])
        self.late, self.patience, self._owed, self._since = False, patience, 0, 0.0
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", _START, root, function, str(patience)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=_PIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )
        pipes = self._process.stdin, self._process.stdout, self._process.stderr
        self._to, self._from, self._begun = (cast(IO[bytes], pipe) for pipe in pipes)
        self._send(setup)
        _receive(self._from)

    def ask(self, files: list[bytes]) -> None:
        """Send a batch; the answers to the last one were all taken."""
        self._owed, self._since = len(files), time.monotonic()
        self._send(str(len(files)).encode(), *files)

    def _send(self, *items: bytes) -> None:
        for item in items:
            _send(self._to, item)
        self._to.flush()

    def answer(self) -> bytes:
        """Wait for the answer to the next file; raises EOFError or OSError where the process is dead."""
        found = _receive(self._from)
        self._owed, self._since = self._owed - 1, time.monotonic()
        self._begun.read(1)
        return found

    def begun(self) -> int:
        """Return how many files it had begun besides those it answered; ends it."""
        self._process.kill()
        return len(self._begun.read())

    def end(self, late: bool = False) -> None:
        """End the process, so that the thread which waits for its answer is woken; where `late`, only if it is."""
        if not late or (self._owed and time.monotonic() - self._since > self.patience):
            self.late = late
            self._process.kill()

    def close(self) -> None:
        """End the process and close the pipes."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._from, self._begun, self._to):
            with suppress(OSError):  # what had not been sent yet
                pipe.close()


class _Pool:
    """What the threads share: the files, the answers, the processes, and the error that ends it all."""

    def __init__(self, start: Callable[[], _Worker], files: Iterator[bytes], window: int, batch: int, tries: int):
        self.start, self.files, self.window, self.batch, self.tries = start, files, window, batch, tries
        self.taken = self.handed = 0
        self.all_taken = self.ended = False
        self.done: dict[int, list[bytes]] = {}
        self.live: set[_Worker] = set()
        self.error: BaseException | None = None
        self.changed = threading.Condition()

    def answers(self) -> Iterator[bytes]:
        """Yield the answers in order, and meanwhile end the processes that are late."""
        while True:
            with self.changed:
                while self.handed not in self.done:
                    if self.error is not None:
                        raise self.error
                    if self.all_taken and self.handed == self.taken:
                        return
                    for worker in self.live:
                        worker.end(late=True)
                    self.changed.wait(_POLL)
                answers = self.done.pop(self.handed)
                self.handed += 1
                self.changed.notify_all()
            yield from answers

    def serve(self) -> None:
        """Take batches until there are none: the life of a thread, with one process after another."""
        worker = None
        try:
            while (taken := self._take()) is not None:
                answers, worker = self._answered(taken[1], worker)
                with self.changed:
                    self.done[taken[0]] = answers
                    self.changed.notify_all()
        except BaseException as error:  # whatever it is, it belongs to the thread that yields the answers
            with self.changed:
                self.error = self.error or error
                self.changed.notify_all()
        finally:
            self._drop(worker)

    def end(self) -> None:
        """Let no thread take another batch, nor finish this one."""
        with self.changed:
            self.ended = True
            for worker in self.live:
                worker.end()
            self.changed.notify_all()

    def _take(self) -> tuple[int, list[bytes]] | None:
        """The next batch and its number; None where there are no more."""
        with self.changed:
            while not self.ended and self.taken >= self.handed + self.window:
                self.changed.wait()
            # within the lock: archives are read from front to back
            files = [] if self.ended or self.all_taken else list(islice(self.files, self.batch))
            self.all_taken = not files
            self.taken += bool(files)
            self.changed.notify_all()
            return (self.taken - 1, files) if files else None

    def _answered(self, files: list[bytes], worker: _Worker | None) -> tuple[list[bytes], _Worker | None]:
        """Have files answered by a process, and by others after it where it dies; returns the last one too."""
        answers: list[bytes] = [b""] * len(files)
        todo, deaths = list(range(len(files))), Counter[int]()
        while todo and not self.ended:
            worker = worker or self._started()
            try:
                worker.ask([files[k] for k in todo])
                while todo:
                    answers[todo[0]] = worker.answer()
                    del todo[0]
            except (OSError, EOFError):
                # answers that it had not sent are asked for again; it died at the last file that it began
                k = todo[max(0, worker.begun() - 1)]
                deaths[k] += 1
                if worker.late or deaths[k] == self.tries:
                    late = f"decoding took more than {worker.patience:g} s"
                    answers[k] = _packed(late if worker.late else "the decoder crashed")
                    todo.remove(k)
                self._drop(worker)
                worker = None
        return answers, worker

    def _started(self) -> _Worker:
        """A new process."""
        try:
            worker = self.start()
        except (OSError, EOFError) as error:
            reason = str(error) or "they end at once"
            raise UserError(
                f"worker processes can't be started ({reason}): set SFUMATO_WORKERS=0 to use none"
            ) from None
        with self.changed:
            self.live.add(worker)
        return worker

    def _drop(self, worker: _Worker | None) -> None:
        """Close a process."""
        if worker is not None:
            with self.changed:
                self.live.discard(worker)
            worker.close()


# The process


def main(function: str, patience: str) -> None:
    """Answer files until the input ends: the life of a worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the one that asks decides
    alarm = getattr(signal, "alarm", lambda seconds: 0)
    source, sink, begun = sys.stdin.buffer, os.fdopen(os.dup(1), "wb", _PIPE), os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)  # what a library prints must not get among the answers
    os.dup2(nowhere, 2)
    try:
        answer = _loaded(function, _receive(source))
        _send(sink, b"ready")
        sink.flush()
        while True:
            sent = time.monotonic()
            for file in [_receive(source) for _ in range(int(_receive(source)))]:
                alarm(max(1, int(2 * float(patience))))
                os.write(begun, b".")
                _send(sink, _answer(answer, file))
                if time.monotonic() - sent > OFTEN:
                    sink.flush()
                    sent = time.monotonic()
            alarm(0)
            sink.flush()
    except (EOFError, BrokenPipeError):
        os._exit(0)  # without closing `sink`, whose reader may be gone


def _loaded(function: str, setup: bytes) -> Callable[[File], bytes]:
    """What a worker does with each file."""
    module, _, name = function.partition(":")
    made: Callable[[File], bytes] = getattr(import_module(module), name)(setup)
    return made


def _answer(function: Callable[[File], bytes], item: bytes) -> bytes:
    """The answer to a file as it goes over the pipe."""
    try:
        if item[:1] == b"-":
            return item
        return b"+" + function(Blob(item[1:]) if item[:1] == b"B" else Path(os.fsdecode(item[1:])))
    except Unreadable as fault:
        return _packed(fault.reason)
    except MemoryError:
        return _packed("it needs more memory than there is")
    except Exception as error:  # a mistake of ours, which must not cost the other files; it is named with the file
        return _packed(f"unexpected {type(error).__name__}: {printable(str(error))[:80]}")


def _packed(file: File | str) -> bytes:
    """A file, or why there is none, as it goes over the pipe."""
    if isinstance(file, str):
        return b"-" + file.encode("utf-8", "replace")
    return b"B" + file.data if isinstance(file, Blob) else b"P" + os.fsencode(file)


def _unpacked(answer: bytes) -> bytes | str:
    """An answer, or why there is none."""
    return answer[1:] if answer[:1] == b"+" else answer[1:].decode("utf-8", "replace")


def _send(pipe: IO[bytes], item: bytes) -> None:
    """Write one item."""
    pipe.write(_LENGTH.pack(len(item)))
    pipe.write(item)


def _receive(pipe: IO[bytes]) -> bytes:
    """Read one item; raises EOFError where the pipe ends."""
    head = pipe.read(_LENGTH.size)
    data = pipe.read(_LENGTH.unpack(head)[0]) if len(head) == _LENGTH.size else b""
    if len(head) < _LENGTH.size or len(data) < _LENGTH.unpack(head)[0]:
        raise EOFError
    return data
