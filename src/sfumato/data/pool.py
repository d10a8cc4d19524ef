"""Files decoded by several processes at once, in order, whatever the files do to a decoder.

A thread for each process takes the next batch of files, sends it over and waits for the rows (`worker`); batches are
handed on in their order, and no more than a few are waiting, so memory doesn't grow with the number of files. The rows
don't depend on how many processes there are.

A process that dies is replaced and its file tried once more; if that one dies too, the file did it. One that takes
longer than `PATIENCE` over one file is ended. Either way the file has a reason instead of a row, and the rest goes on.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import IO, cast

import sfumato
from sfumato.data.sources.files import FileSource
from sfumato.data.sources.protocol import File, Unreadable
from sfumato.data.sources.rows import Form, Row, pack_fault, unpack
from sfumato.data.worker import PATIENCE, receive, send, send_files
from sfumato.errors import UserError

__all__ = ["SMALL", "count_workers", "decode"]

SMALL = 1000
"""Fewer files than this are decoded without further processes, which take a third of a second to begin."""

_BATCH, _BATCH_BYTES, _PIPE = 16, 2**22, 2**18
_START = "import sys; sys.path.append(sys.argv[1]); from sfumato.data.worker import main; main()"
_POLL = 0.5


def count_workers(pictures: int) -> int:
    """Return how many processes decode: $SFUMATO_WORKERS, else one a core that this process may use, 0 for few files.

    Raises:
        UserError: $SFUMATO_WORKERS is no number.
    """
    if given := os.environ.get("SFUMATO_WORKERS"):
        if not given.isdecimal():
            raise UserError(f"SFUMATO_WORKERS is '{given}': give a number of processes, 0 to decode without any")
        return int(given)
    if pictures < SMALL:
        return 0
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def decode(source: FileSource, form: Form, first: int, workers: int) -> Iterator[Row | str]:
    """Decode a source's files from the first on.

    Args:
        source: the files.
        form: of the rows.
        first: where to begin.
        workers: processes, at least 1.

    Yields:
        For each file in order its row, or why there is none.

    Raises:
        UserError: processes can't be started, or the source can't be read any more.
    """
    crew = _Crew(source, form, first)
    threads = [threading.Thread(target=crew.serve, args=(place,), daemon=True) for place in range(workers)]
    crew.window = 2 * workers + 2
    for thread in threads:
        thread.start()
    try:
        yield from crew.answers()
    finally:
        crew.end()
        for thread in threads:
            thread.join()


class _Process:
    """One decoding process, how many answers it owes, and since when it has been at its present file."""

    def __init__(self, form: Form) -> None:
        root = str(Path(sfumato.__file__).parents[1])
        self.late, self._owed, self._since = False, 0, 0.0
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", _START, root],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=_PIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )
        self._to, self._from = cast(IO[bytes], self._process.stdin), cast(IO[bytes], self._process.stdout)
        self._ticks = cast(IO[bytes], self._process.stderr)
        receive(self._from)
        send(self._to, json.dumps(asdict(form)).encode())

    def ask(self, files: list[File]) -> None:
        """Send a batch; the answers to the last one were all taken."""
        self._owed, self._since = len(files), time.monotonic()
        send_files(self._to, files)

    def answer(self) -> bytes:
        """Wait for the answer to the next file; raises EOFError or OSError where the process is dead."""
        found = receive(self._from)
        self._owed, self._since = self._owed - 1, time.monotonic()
        self._ticks.read(1)
        return found

    def begun(self) -> int:
        """Return how many files it had begun besides those it answered for; ends it."""
        self.kill()
        return len(self._ticks.read())

    def check(self) -> None:
        """End the process if it has been at one file for too long; who waits for its answer is told."""
        if self._owed and time.monotonic() - self._since > PATIENCE:
            self.late = True
            self.kill()

    def kill(self) -> None:
        """End the process; who waits for its answer is told."""
        self._process.kill()

    def close(self) -> None:
        """End the process and forget it."""
        self.kill()
        self._process.wait()
        self._from.close()
        self._ticks.close()
        with suppress(OSError):  # what had not been sent yet
            self._to.close()


class _Crew:
    """The threads' common ground: which batch is next, which are done, what went wrong."""

    def __init__(self, source: FileSource, form: Form, first: int) -> None:
        row_bytes = 3 * form.size[0] * form.size[1]
        self.source, self.form, self.window = source, form, 1
        self.step = max(1, min(_BATCH, _BATCH_BYTES // row_bytes))
        self.starts = range(first, len(source), self.step)
        self.taken = self.handed = 0
        self.done: dict[int, list[bytes]] = {}
        self.busy: dict[int, _Process] = {}
        self.error: BaseException | None = None
        self.ended = False
        self.changed = threading.Condition()

    def answers(self) -> Iterator[Row | str]:
        """Hand the answers on, in order, and look after the processes meanwhile."""
        for number in range(len(self.starts)):
            with self.changed:
                while number not in self.done:
                    if self.error is not None:
                        raise self.error
                    for process in self.busy.values():
                        process.check()
                    self.changed.wait(_POLL)
                batch = self.done.pop(number)
                self.handed = number + 1
                self.changed.notify_all()
            yield from map(unpack, batch)

    def serve(self, place: int) -> None:
        """Take batches until there is none: the life of a thread."""
        try:
            while (taken := self._take()) is not None:
                number, files = taken
                answers = self._ask(place, files)
                with self.changed:
                    self.done[number] = answers
                    self.changed.notify_all()
        except BaseException as error:  # whatever it is, it belongs to the thread that waits
            with self.changed:
                self.error = self.error or error
                self.changed.notify_all()
        finally:
            if (process := self.busy.pop(place, None)) is not None:
                process.close()

    def end(self) -> None:
        """Let nobody take another batch, nor finish this one."""
        with self.changed:
            self.ended = True
            for process in self.busy.values():
                process.kill()
            self.changed.notify_all()

    def _take(self) -> tuple[int, list[File | bytes]] | None:
        """The next batch: its number and its files, or why one is none; None where there is no more."""
        with self.changed:
            while not self.ended and self.taken < len(self.starts) and self.taken >= self.handed + self.window:
                self.changed.wait()
            if self.ended or self.taken == len(self.starts):
                return None
            number, start = self.taken, self.starts[self.taken]
            self.taken += 1
            # within the lock: archives are read from front to back
            return number, [self._file(i) for i in range(start, min(start + self.step, len(self.source)))]

    def _file(self, i: int) -> File | bytes:
        """File i, or why there is none."""
        try:
            return self.source.file(i)
        except Unreadable as fault:
            return pack_fault(fault.reason)

    def _ask(self, place: int, files: list[File | bytes]) -> list[bytes]:
        """Have files decoded by this place's process, and by others after it where it dies."""
        answers = [file if isinstance(file, bytes) else b"" for file in files]
        todo = [(k, file) for k, file in enumerate(files) if not isinstance(file, bytes)]
        died_at = None
        while todo and not self.ended:
            process = self._process(place)
            try:
                process.ask([file for _, file in todo])
                while todo:
                    answers[todo[0][0]] = process.answer()
                    del todo[0]
            except (OSError, EOFError):
                # answers that it had not sent yet are asked for again; where it stood is the last file that it began
                k = todo[max(0, process.begun() - 1)][0]
                if process.late or died_at == k:
                    reason = f"reading it took more than {PATIENCE:g} s" if process.late else "the decoder died on it"
                    answers[k] = pack_fault(reason)
                    todo = [each for each in todo if each[0] != k]
                died_at = k
                self._drop(place)
        return answers

    def _process(self, place: int) -> _Process:
        """The process of a place, started where there is none."""
        if place not in self.busy:
            try:
                process = _Process(self.form)
            except (OSError, EOFError) as error:
                raise UserError(
                    f"processes that decode can't be started ({error or 'they end at once'}): set SFUMATO_WORKERS=0 to "
                    "decode without them"
                ) from None
            with self.changed:
                self.busy[place] = process
        return self.busy[place]

    def _drop(self, place: int) -> None:
        """Forget a process that is of no use any more."""
        with self.changed:
            process = self.busy.pop(place)
        process.close()
