"""Several processes that decode one collection together: those of a job, on one machine or on several that share the
cache's folder, or any that want the same store at the same time.

The process that holds a build leads it. The others claim parts of the pictures as it does, decode them, and leave the
answers for it to append in order; so the store has the same bytes whoever decoded what. A process that dies has its
claims taken over by the leader; where the leader dies, another takes over the build (`build`).

    CACHE/store/SLOT/.build-KEY-*/parts/    shared      how rows are made, and of which pictures
                                            K           answers for the pictures from K `PART` on; empty when appended
                                            K.lock      held by the process that decodes them
                                            crew-CORES  held by the process that uses these cores of this machine

Processes with the same cores do not decode side by side: one has as many workers as there are cores. So a second
process helps on another machine, or where a scheduler has given each process cores of its own.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from itertools import chain, islice
from pathlib import Path

from sfumato.data.sources.protocol import Encoded, File, files_of
from sfumato.data.store.format import load
from sfumato.data.workers import run
from sfumato.files import Lock, write_atomic

PART = 256
"""Pictures that are claimed at once."""
PAUSE = 0.05
"""Seconds between two looks at what others do."""
LATE = 60.0
"""Seconds that the leader waits for a part of another process before it decodes that too."""
STUCK = 120.0
"""Seconds without a change in a build's folder after which its leader is not waited for any longer."""
DECODER = "sfumato.data.store.build:decoder"
_TRIES = 5

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


def lead(built: Path, shared: Shared, source: Encoded, workers: int) -> Iterator[Answer]:
    """Yield the answers for all pictures in order, while other processes may decode parts of them."""
    remove(built)  # of a build that was killed, or whose rows were made in another way
    folder = built / "parts"
    folder.mkdir()
    parts = Parts(folder, shared, source, workers)
    with ExitStack() as crew:
        crew.callback(parts.close)
        crew.enter_context(Lock(folder / _crew()))
        write_atomic(folder / "shared", json.dumps(asdict(shared)), parents=False)
        yield from parts.in_order()


def remove(built: Path) -> None:
    """Remove what a build shared: renamed first, so that no process can add to it."""
    gone = built / "parts-removed"
    with suppress(FileNotFoundError):
        (built / "parts").rename(gone)
    if gone.exists():
        shutil.rmtree(gone)


def claim(
    entry: Path,
    source: Encoded | None,
    workers: int,
    on_progress: Callable[[int, int], None],
    held: ExitStack,
) -> Path | None:
    """Return a folder to build a store in, which nobody else builds in: one that was left, or a new one; or help the
    process that builds it, and return None where the store is there.

    Args:
        entry: of the store.
        source: its pictures, where other processes can decode them.
        workers: processes for that.
        on_progress: called with the pictures done, and all.
        held: keeps the lock on the folder.
    """
    stuck = set[Path]()
    while not entry.exists() or load(entry) is None:
        with Lock(entry.with_name(f".claim-{entry.name}")) as alone:
            if not alone.held:  # another process is looking just now
                time.sleep(PAUSE)
                continue
            left = set(entry.parent.glob(f".build-{entry.name}-*")) - stuck
            led = next(filter(_is_led, sorted(left)), None)
            folder = _free(entry, sorted(left), held) if led is None else None
            alone.path.unlink(missing_ok=True)
        if led is None:
            return folder
        if not help_build(led, source, workers, on_progress):
            stuck.add(led)
    return None


def _free(entry: Path, left: list[Path], held: ExitStack) -> Path:
    """Lock one of the folders that were left, or a new one."""
    for folder in left:
        try:
            lock = held.enter_context(Lock(folder / "lock", create=False))
        except OSError:  # it was finished meanwhile
            continue
        if lock.held and lock.enforced:  # without locks no build is taken over
            return folder
    for _ in range(_TRIES):
        folder = Path(tempfile.mkdtemp(prefix=f".build-{entry.name}-", dir=entry.parent))
        if held.enter_context(Lock(folder / "lock")).held:
            break  # else another process took it over before it was locked
    return folder


def help_build(
    built: Path, source: Encoded | None, workers: int, on_progress: Callable[[int, int], None], stuck: float = STUCK
) -> bool:
    """Decode parts of a build that another process leads, until it is over, or, returning False, until nothing has
    happened for `stuck` seconds; with no source or no workers only wait."""
    changed, moment, folder, mine = 0.0, time.monotonic(), built / "parts", False
    begun = moment
    with ExitStack() as crew:
        while _is_led(built):
            if time.monotonic() - moment > stuck:
                return False
            if source and workers and (shared := _shared(folder)) is not None:
                with suppress(FileNotFoundError):  # the folder was renamed
                    if mine := mine or _taken(Lock(folder / _crew()), crew):
                        _help(built, shared, source, workers, on_progress)
                    done = sum(name.isdigit() for name in os.listdir(folder))
                    on_progress(min(shared.first + done * PART, shared.total), shared.total)
            if (newest := _newest(built)) != changed:
                changed, moment = newest, time.monotonic()
            time.sleep(PAUSE if time.monotonic() - begun < 1 else 10 * PAUSE)
    return True


def _taken(lock: Lock, kept: ExitStack) -> bool:
    """Take a lock and keep it, if it is free."""
    with ExitStack() as attempt:
        if attempt.enter_context(lock).held:
            kept.push(attempt.pop_all())
            return True
    return False


def _help(built: Path, shared: Shared, source: Encoded, workers: int, on_progress: Callable[[int, int], None]) -> None:
    """Decode parts until none is left, the build is over, or its rows are made in another way."""
    parts = Parts(built / "parts", shared, source, workers)
    try:
        for number, answers in parts.decoded():
            parts.leave(number, answers)
            on_progress(min((number + 1) * PART, shared.total), shared.total)
            if _shared(parts.folder) != shared or not _is_led(built):
                return
    finally:
        parts.close()


def _is_led(built: Path) -> bool:
    """Whether another process holds the build in a folder, or is about to publish it, which removes the lock first."""
    try:
        with Lock(built / "lock", create=False) as lock:
            return not lock.held and not lock.holder.startswith(f"process {os.getpid()} on {socket.gethostname()},")
    except OSError:
        return built.exists()


def _shared(folder: Path) -> Shared | None:
    try:
        return Shared(**json.loads((folder / "shared").read_text("ascii")))
    except (OSError, ValueError, TypeError):
        return None


def _newest(folder: Path) -> float:
    with suppress(OSError):
        return max(path.stat().st_mtime for path in (folder, *folder.iterdir()))
    return 0.0


def _crew() -> str:
    """The name of the lock on the cores that this process may use."""
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else ()
    text = f"{socket.gethostname()} {sorted(cores)}"
    return f"crew-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


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
