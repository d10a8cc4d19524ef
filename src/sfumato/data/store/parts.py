"""The parts of a collection that several processes decode together, as one of them claims and decodes them.

    CACHE/store/SLOT/.build-KEY-*/parts/    shared      how rows are made, and of which pictures
                                            K           answers for the pictures from K `PART` on; empty when appended
                                            K.lock      held by the process that decodes them
                                            crew-CORES  held by the process that uses these cores of this machine

The leader takes the answers of all in order, so the store has the same bytes whoever decoded what (`builders`).
"""

from __future__ import annotations

import hashlib
import os
import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

from sfumato.data.sources.protocol import Encoded, File, files_of
from sfumato.data.workers import run
from sfumato.files import Lock

PART = 256
"""Pictures that are claimed at once."""
PAUSE = 0.05
"""Seconds between two looks at what others do."""
LATE = 60.0
"""Seconds that the leader waits for a part of another process before it decodes that too."""
DECODER = "sfumato.data.store.answers:decoder"

Answer = bytes | str


@dataclass(frozen=True)
class Shared:
    """What a build gives out.

    Attributes:
        form: of the rows, as JSON.
        first, total: the pictures from `first` to the last one before `total` are wanted.
        batch: files that a worker gets at once.
    """

    form: str
    first: int
    total: int
    batch: int


class Parts:
    """The parts of a build, as one process claims and decodes them.

    Args:
        folder: in which they are shared.
        shared: what is given out there.
        source: the pictures.
        workers: processes that decode.
    """

    def __init__(self, folder: Path, shared: Shared, source: Encoded, workers: int) -> None:
        self.folder, self.shared, self.source, self.workers = folder, shared, source, workers
        self.numbers = range(shared.first // PART, -(-shared.total // PART))
        self._next = self.numbers.start
        self._claims: dict[int, ExitStack] = {}
        self._since: dict[int, float] = {}  # when the leader first wanted a part that another has
        self._order = deque[int]()
        self._answers = self._run(self._files())

    def path(self, number: int) -> Path:
        """Where the answers of a part are left."""
        return self.folder / str(number)

    def decoded(self) -> Iterator[tuple[int, Iterator[Answer]]]:
        """Claim and decode parts until none is left, and yield the number and the answers of each; all answers are to
        be taken before the next part."""
        for answer in self._answers:
            number = self._order.popleft()
            yield number, chain([answer], islice(self._answers, len(self._pictures(number)) - 1))

    def leave(self, number: int, answers: Iterator[Answer]) -> None:
        """Leave the answers of a part for the leader."""
        made = self.folder / f"{number}.{os.getpid()}"
        made.write_bytes(_packed(list(answers)))
        made.replace(self.path(number))
        self._claims.pop(number).close()

    def in_order(self) -> Iterator[Answer]:
        """Yield the answers of all parts in order, those of others too: what the leader of a build does."""
        decoded = self.decoded()
        for number in self.numbers:
            while (answers := self._left_by_others(number)) is None:
                if (part := next(decoded, None)) is None:
                    time.sleep(PAUSE)
                elif part[0] == number:
                    answers = part[1]
                    break
                else:  # another process is at the part that is wanted
                    self.leave(*part)
            yield from answers
            self.path(number).write_bytes(b"")  # done
            if number in self._claims:
                self._claims.pop(number).close()
            self.path(number).with_suffix(".lock").unlink(missing_ok=True)

    def close(self) -> None:
        """Give back what is claimed."""
        for claim in self._claims.values():
            claim.close()

    def _pictures(self, number: int) -> range:
        return range(max(number * PART, self.shared.first), min((number + 1) * PART, self.shared.total))

    def _files(self) -> Iterator[File | str]:
        """Claim one part after the other, and yield its files."""
        while self._next < self.numbers.stop:
            number, self._next = self._next, self._next + 1
            if self._claim(number):
                self._order.append(number)
                yield from files_of(self.source, self._pictures(number))

    def _claim(self, number: int) -> bool:
        """Claim a part unless it is claimed or decoded."""
        claim, path = ExitStack(), self.path(number)
        if path.exists():
            return False
        held = claim.enter_context(Lock(path.with_suffix(".lock"))).held
        if held and not path.exists():
            self._claims[number] = claim
            return True
        claim.close()
        return False

    def _left_by_others(self, number: int) -> Iterator[Answer] | None:
        """The answers of a part that another process has left, or of one whose process has died or is late; None where
        it is ours or is being decoded."""
        if number >= self._next or number in self._claims:
            return None
        late = time.monotonic() - self._since.setdefault(number, time.monotonic()) > LATE
        with suppress(FileNotFoundError):
            answers = _unpacked(self.path(number).read_bytes())
            if answers is not None and len(answers) == len(self._pictures(number)):
                return iter(answers)
            self.path(number).unlink()  # damaged
        if late or self._claim(number):
            return self._run(files_of(self.source, self._pictures(number)))
        return None

    def _run(self, files: Iterator[File | str]) -> Iterator[Answer]:
        return run(DECODER, self.shared.form.encode(), files, self.workers, batch=self.shared.batch)


def _packed(answers: list[Answer]) -> bytes:
    """Answers as a file: their SHA-256, then each with its length, negative for a text."""
    parts = []
    for answer in answers:
        content = answer.encode("utf-8", "replace") if isinstance(answer, str) else answer
        length = -len(content) - 1 if isinstance(answer, str) else len(content)
        parts += [length.to_bytes(8, "little", signed=True), content]
    content = b"".join(parts)
    return hashlib.sha256(content).digest() + content


def _unpacked(content: bytes) -> list[Answer] | None:
    """The answers in a file; None where it is damaged."""
    if hashlib.sha256(content[32:]).digest() != content[:32]:
        return None
    answers, at = list[Answer](), 32
    while at < len(content):
        length = int.from_bytes(content[at : at + 8], "little", signed=True)
        at, size = at + 8, length if length >= 0 else -length - 1
        answers.append(content[at : at + size] if length >= 0 else content[at : at + size].decode("utf-8"))
        at += size
    return answers
