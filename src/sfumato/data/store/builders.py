"""Several processes that build one store: those of a job, on one machine or on several that share the cache's folder,
or any that want the same store at the same time.

The process that holds a build leads it. The others claim parts of the pictures as it does, decode them, and leave the
answers for it to append in order (`parts`). A process that dies has its claims taken over by the leader; where the
leader dies, another takes over the build (`build`).

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
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import asdict
from pathlib import Path

from sfumato.data.sources.protocol import Encoded
from sfumato.data.store import parts
from sfumato.data.store.format import load
from sfumato.data.store.parts import Answer, Parts, Shared
from sfumato.files import Lock, write_atomic

STUCK = 120.0
"""Seconds without a change in a build's folder after which its leader is not waited for any longer."""
_TRIES = 5


def lead(built: Path, shared: Shared, source: Encoded, workers: int) -> Iterator[Answer]:
    """Yield the answers for all pictures in order, while other processes may decode parts of them."""
    remove(built)  # of a build that was killed, or whose rows were made in another way
    folder = built / "parts"
    folder.mkdir()
    own = Parts(folder, shared, source, workers)
    with ExitStack() as crew:
        crew.callback(own.close)
        crew.enter_context(Lock(folder / _crew()))
        write_atomic(folder / "shared", json.dumps(asdict(shared)), parents=False)
        yield from own.in_order()


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
                time.sleep(parts.PAUSE)
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
                    on_progress(min(shared.first + done * parts.PART, shared.total), shared.total)
            if (newest := _newest(built)) != changed:
                changed, moment = newest, time.monotonic()
            time.sleep(parts.PAUSE if time.monotonic() - begun < 1 else 10 * parts.PAUSE)
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
    own = Parts(built / "parts", shared, source, workers)
    try:
        for number, answers in own.decoded():
            own.leave(number, answers)
            on_progress(min((number + 1) * parts.PART, shared.total), shared.total)
            if _shared(own.folder) != shared or not _is_led(built):
                return
    finally:
        own.close()


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
