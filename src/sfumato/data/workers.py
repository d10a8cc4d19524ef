"""A pool of worker processes that applies a function to files and survives files that crash it.

    for answer in run("sfumato.data.store.build:decoder", setup, files, workers=2): ...

The answers are bytes, or a text that says why there is none. They come in the order of the files and don't depend on
the number of processes; only a few batches are in flight at a time. A process that dies is replaced and its file tried
once more; if that one dies too, or a file takes longer than `patience` seconds, at which a worker ends itself, the
answer says so, and the rest goes on.

Processes take a third of a second to start, and each answer a little to come back. So a `Pace` begins in the calling
process, without protection, and says by the time that files take there when processes pay for the rest.

A worker is a plain `python` process with pipes, on every system alike. So it inherits no threads, locks or open files,
and the calling program is not run again. It imports the module of the function `module:name`, calls it with `setup`,
and what that returns with each file:

    to the worker      the setup; then batches: a number n, and n files, each `P` + path or `B` + bytes
    from the worker    `ready`; then for each file `+` and the answer, or `-` and why there is none
    on a third pipe    a byte for each file that is begun, which tells at which file it died

Each item follows its length. Several answers are sent at once, since each write wakes the other side. A worker ends
when its input does.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import struct
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from importlib import import_module
from itertools import islice
from pathlib import Path
from queue import SimpleQueue
from typing import IO, cast

import sfumato
from sfumato.data.sources.protocol import Blob, File, Unreadable, printable
from sfumato.errors import UserError

PATIENCE = 25.0
"""Seconds that a file may take."""
START = 0.35
"""Seconds until processes have started."""
COST = 60e-6
"""Seconds that the calling process takes for an answer of another."""
LOOK = 0.25
"""Seconds of work in the calling process after which a `Pace` decides anew."""
OFTEN = 0.05
"""Seconds after which answers are sent."""

_QUOTA = Path("/sys/fs/cgroup/cpu.max")
"""Microseconds of processor time that a container may use, and in how many."""
_PIPE = 2**18
_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**25), "MALLOC_TRIM_THRESHOLD_": str(2**26)}
"""Has glibc keep freed memory for the next file; otherwise a photograph takes 1.7 times as long, for page faults."""
_LATE = -signal.SIGALRM if hasattr(signal, "SIGALRM") else 1
_LENGTH = struct.Struct("<Q")
_START = """
import sys
if sys.argv[1] not in sys.path:  # use this program's sfumato, whatever else is installed
    sys.path.insert(0, sys.argv[1])
from sfumato.data.workers import main
main(*sys.argv[2:])
"""


def most_workers() -> int:
    """Return how many processes to use at most: $SFUMATO_WORKERS, else one per core, as far as a container may use the
    cores; raises `UserError` where that is not a number."""
    if (setting := _setting()) is not None:
        return setting
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with suppress(OSError, ValueError):  # no control groups, or "max": no limit
        quota, period = map(int, _QUOTA.read_text("ascii").split())
        return min(cores, -(-quota // period))
    return cores


def _setting() -> int | None:
    setting = os.environ.get("SFUMATO_WORKERS")
    if setting and not setting.isdecimal():
        raise UserError(f"SFUMATO_WORKERS is '{setting}': give a number of processes, 0 to use none")
    return int(setting) if setting else None


def paying_workers(files: int, seconds: float, cores: int) -> int:
    """Return how many processes to start for files that take so many seconds each in this process; 0 where that does
    not pay.

    Every core beyond the first is assumed to be half busy. With W processes a file takes (seconds + COST) / ((1 + W) /
    2), and never less than COST. What they save has to be twice their `START`, and each has that long to work.
    """
    workers = min(cores, int(files * seconds / START))
    saved = files * (seconds - max((seconds + COST) * 2 / (1 + workers), COST))
    return workers if saved > 2 * START else 0


class Pace:
    """The time that files take in this process, which decides whether other processes are started for the rest.

    Args:
        files: how many there are.
        protected: start processes for the first file already, since one of the files may have ended a process.
    """

    def __init__(self, files: int, protected: bool = False) -> None:
        self._left, self._since, self._done, setting = files, 0.0, 0, _setting()
        self._cores = most_workers()
        self._decided = setting if setting is not None else -(-files // 16) if protected else None

    def workers(self, done: int = 0) -> int:
        """Count files that were done here since the last call, and return how many processes to start for the others; 0
        for none now. Time counts from the second call on: what is loaded for the first files does not."""
        now = time.perf_counter()
        self._left -= done
        self._done += done
        if self._decided is not None:
            return min(self._decided, self._cores)
        if not self._since:
            self._done, self._since = 0, now if done else 0.0
        elif now - self._since > LOOK and self._done:
            count = paying_workers(self._left, (now - self._since) / self._done, self._cores)
            self._done, self._since = 0, now
            return count
        return 0


def run(
    function: str,
    setup: bytes,
    files: Iterable[File | str],
    workers: int | Pace,
    patience: float = PATIENCE,
    batch: int = 16,
    tries: int = 2,
) -> Iterator[bytes | str]:
    """Yield for each file, in order, its answer, or why there is none.

    Args:
        function: `module:name`; what it returns may raise `Unreadable`.
        setup: its argument in each worker.
        files: read a few batches ahead; a text in place of a file is its answer.
        workers: processes; 0 runs in this process, without protection from crashes, as a `Pace` begins.
        patience: seconds that a file may take.
        batch: files that are sent at once.
        tries: processes that a file may crash before it is skipped.

    Raises:
        UserError: processes can't be started.
    """
    items = map(_packed, files)
    pace, workers = (workers, workers.workers()) if isinstance(workers, Pace) else (None, workers)
    if not workers:
        answer = _loaded(function, setup)
        for item in items:
            yield _unpacked(_answer(answer, item))
            if pace and (workers := pace.workers(1)):
                break
        else:
            return
    crew = _Crew(lambda: _Worker(function, setup, patience), workers, tries)
    waiting: deque[Future[list[bytes]]] = deque()
    threads = ThreadPoolExecutor(workers)
    try:
        while (some := list(islice(items, batch))) or waiting:
            if some:
                waiting.append(threads.submit(crew.answers, some))
            if not some or len(waiting) > 2 * workers + 2:
                yield from map(_unpacked, waiting.popleft().result())
    finally:
        crew.end()
        threads.shutdown(cancel_futures=True)
        crew.close()


class _Crew:
    """The processes, one for each calling thread, started on first use."""

    def __init__(self, start: Callable[[], _Worker], workers: int, tries: int) -> None:
        self.start, self.tries, self.ended = start, tries, False
        self.live: set[_Worker] = set()
        self.idle: SimpleQueue[_Worker | None] = SimpleQueue()
        for _ in range(workers):
            self.idle.put(None)

    def answers(self, items: list[bytes]) -> list[bytes]:
        """Have an idle process answer a batch; where it dies, another continues."""
        worker, replies = self.idle.get(), [b""] * len(items)
        todo, deaths = list(range(len(items))), Counter[int]()
        try:
            while todo and not self.ended:
                worker = worker or self._started()
                try:
                    worker.ask([items[k] for k in todo])
                    while todo:
                        replies[todo[0]] = worker.answer()
                        del todo[0]
                except (OSError, EOFError):
                    # answers that it had not sent are requested again; it died at the last file that it began
                    k, status = todo[max(0, worker.begun() - 1)], worker.close()
                    deaths[k] += 1
                    if status == _LATE or deaths[k] == self.tries:
                        late = f"decoding took more than {worker.patience:g} s"
                        replies[k] = _packed(late if status == _LATE else "the decoder crashed")
                        todo.remove(k)
                    self.live.discard(worker)
                    worker = None
        finally:
            self.idle.put(worker)
        return replies

    def end(self) -> None:
        """End the processes, which wakes the threads that wait for them."""
        self.ended = True
        for worker in list(self.live):
            worker.kill()

    def close(self) -> None:
        """Close the pipes, when no thread uses them."""
        for worker in self.live:
            worker.close()

    def _started(self) -> _Worker:
        try:
            worker = self.start()
        except (OSError, EOFError) as error:
            reason = str(error) or "they end at once"
            raise UserError(
                f"worker processes can't be started ({reason}): set SFUMATO_WORKERS=0 to use none"
            ) from None
        self.live.add(worker)
        if self.ended:
            worker.kill()
        return worker


class _Worker:
    """One process."""

    def __init__(self, function: str, setup: bytes, patience: float) -> None:
        self.patience = patience
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", _START, str(Path(sfumato.__file__).parents[1]), function, str(patience)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=_PIPE,
            env={**_MEMORY, **os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )
        pipes = self._process.stdin, self._process.stdout, self._process.stderr
        self._to, self._from, self._begun = (cast(IO[bytes], pipe) for pipe in pipes)
        self.kill = self._process.kill
        _send(self._to, setup)
        self._to.flush()
        _receive(self._from)

    def ask(self, items: list[bytes]) -> None:
        """Send a batch, after all answers to the last one were read."""
        _send(self._to, str(len(items)).encode(), *items)
        self._to.flush()

    def answer(self) -> bytes:
        """Wait for the answer to the next file; raises EOFError or OSError where the process is dead."""
        reply = _receive(self._from)
        self._begun.read(1)
        return reply

    def begun(self) -> int:
        """Return how many files a dead process had begun and not answered."""
        return len(self._begun.read())

    def close(self) -> int:
        """End the process, close its pipes, and return the status with which it ended."""
        self.kill()
        for pipe in (self._from, self._begun, self._to):
            with suppress(OSError):  # unsent data
                pipe.close()
        return self._process.wait()


# The process


def main(function: str, patience: str) -> None:
    """Answer files until the input ends: a worker's main loop."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the parent handles it
    source, sink, begun = sys.stdin.buffer, os.fdopen(os.dup(1), "wb", _PIPE), os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)  # a library's prints must not mix with the answers
    os.dup2(nowhere, 2)
    try:
        answer = _loaded(function, _receive(source))
        _send(sink, b"ready")
        sink.flush()
        while True:
            sent = time.monotonic()
            for item in [_receive(source) for _ in range(int(_receive(source)))]:
                _end_after(float(patience))
                os.write(begun, b".")
                _send(sink, _answer(answer, item))
                if time.monotonic() - sent > OFTEN:
                    sink.flush()
                    sent = time.monotonic()
            _end_after(0)
            sink.flush()
    except (EOFError, BrokenPipeError):
        os._exit(0)  # without closing `sink`, whose reader may be gone


def _end_after(seconds: float) -> None:
    """End this process with the status `_LATE` after so many seconds, whatever it does; 0 cancels that."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds)
    elif seconds:  # Windows: a thread, which costs more
        faulthandler.dump_traceback_later(seconds, exit=True, file=2)
    else:
        faulthandler.cancel_dump_traceback_later()


def _loaded(function: str, setup: bytes) -> Callable[[File], bytes]:
    module, _, name = function.partition(":")
    made: Callable[[File], bytes] = getattr(import_module(module), name)(setup)
    return made


def _answer(function: Callable[[File], bytes], item: bytes) -> bytes:
    """The answer to a packed file, or the reason, packed."""
    try:
        if item[:1] == b"-":
            return item
        return b"+" + function(Blob(item[1:]) if item[:1] == b"B" else Path(os.fsdecode(item[1:])))
    except Exception as error:  # a bug here must not stop the other files; it is reported with the file
        return _packed(reason_of(error))


def reason_of(error: Exception) -> str:
    """Return in words why a file has no answer: the reason of an `Unreadable`, else the error."""
    if isinstance(error, Unreadable):
        return error.reason
    if isinstance(error, MemoryError):
        return "it needs more memory than is available"
    return f"unexpected {type(error).__name__}: {printable(str(error))[:80]}"


def _packed(file: File | str) -> bytes:
    if isinstance(file, str):
        return b"-" + file.encode("utf-8", "replace")
    return b"B" + file.data if isinstance(file, Blob) else b"P" + os.fsencode(file)


def _unpacked(answer: bytes) -> bytes | str:
    return answer[1:] if answer[:1] == b"+" else answer[1:].decode("utf-8", "replace")


def _send(pipe: IO[bytes], *items: bytes) -> None:
    for item in items:
        pipe.write(_LENGTH.pack(len(item)))
        pipe.write(item)


def _receive(pipe: IO[bytes]) -> bytes:
    """Read one item; raises EOFError where the pipe ends."""
    head = pipe.read(_LENGTH.size)
    length = _LENGTH.unpack(head)[0] if len(head) == _LENGTH.size else -1
    data = pipe.read(max(0, length))
    if len(data) != length:
        raise EOFError
    return data
