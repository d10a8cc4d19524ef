"""Atomic writes, bounded reads, and locks that end with their process.

A file is written under a hidden name beside its own, flushed to the disk and renamed; then the folder is flushed too,
because a rename is stored in the folder. A file from elsewhere is opened once and read whole, if it is a regular file
and not too large. Every `OSError` names its file.
"""

from __future__ import annotations

import errno
import os
import shutil
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # a system without flock: locks are not enforced
    fcntl = None  # type: ignore[assignment]


MEGABYTE = 2**20


@contextmanager
def hidden(path: Path, suffix: str = "") -> Iterator[Path]:
    """Yield a hidden name beside a path, for a file or a folder that is renamed to it when it is whole.

    What is left under the hidden name is removed, and an `OSError` names the path instead.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part{suffix}")
    try:
        yield part
    except OSError as error:
        named = path if error.filename is None else str(error.filename).replace(part.name, path.name)
        error.filename = str(named)
        del error.filename2  # of a rename, which would be the same name
        raise
    finally:
        if part.is_dir():
            shutil.rmtree(part, ignore_errors=True)
        with suppress(OSError):
            part.unlink(missing_ok=True)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Have an `OSError` name the file: calls with a descriptor, such as fsync, leave the name out."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


def sync(path: Path) -> None:
    """Flush a file, or the names in a folder, to the disk."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except PermissionError:  # a folder may be writable and not readable
        return
    try:
        with naming(path):
            os.fsync(handle)
    finally:
        os.close(handle)


def write_synced(path: Path, content: bytes | str) -> None:
    """Write a file and flush it to the disk."""
    with naming(path), path.open("wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def replacing(path: Path, parents: bool = True) -> Iterator[IO[bytes]]:
    """Yield a file that takes the place of another when the block ends, making its folder; where the block fails the
    old content is untouched.

    Args:
        parents: make the folders above its folder too.
    """
    path.parent.mkdir(parents=parents, exist_ok=True)
    with hidden(path) as part:
        with naming(part), part.open("w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    sync(path.parent)


def write_atomic(path: Path, content: bytes | str, parents: bool = True) -> None:
    """Write a file, whole or not at all, as `replacing`."""
    with replacing(path, parents) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def read_regular(path: Path, most: int) -> bytes:
    """Return the content of a file, from one opening of it; a file that is replaced meanwhile is read as it was.

    Args:
        most: the most bytes it may have.

    Raises:
        OSError: it can't be read, is larger, or is no regular file: a pipe would wait, a device would not end.
    """
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        with naming(path):
            state = os.fstat(handle)
            if not stat.S_ISREG(state.st_mode):
                raise OSError(errno.EINVAL, "not a regular file")
            if state.st_size > most:
                raise OSError(errno.EFBIG, f"larger than {most:,} bytes")
            with os.fdopen(handle, "rb", closefd=False) as file:
                return file.read(state.st_size)
    finally:
        os.close(handle)


class Lock:
    """An exclusive lock on a file, for a `with` block. It never waits: `held` says whether the lock was free.

    The kernel holds it (`flock`) and releases it when the process ends, however it ends, so no lock is left behind. The
    file stays behind; its text names the process that took the lock last. Entering raises `OSError` where the file
    can't be opened, or does not exist and `create` is False.

    Attributes:
        held: whether the block has the lock; also True where locks can't be enforced.
        enforced: False on a system or a file system without locks.
        holder: the process that has the lock, where this one does not.
    """

    def __init__(self, path: Path, create: bool = True) -> None:
        self.path, self.flags = path, os.O_RDWR | (os.O_CREAT if create else 0)
        self.held, self.enforced, self.holder = False, fcntl is not None, ""

    def __enter__(self) -> Lock:
        self._handle = os.open(self.path, self.flags, 0o666)
        self.held = self._take()
        with suppress(OSError):
            if self.held:
                since = datetime.now(UTC).isoformat(timespec="seconds")
                os.ftruncate(self._handle, 0)
                os.pwrite(self._handle, f"process {os.getpid()} on {socket.gethostname()}, since {since}\n".encode(), 0)
            else:
                self.holder = os.pread(self._handle, 200, 0).decode(errors="replace").strip()
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._handle)  # which also releases the lock
        self.held = False

    def is_in_place(self) -> bool:
        """Whether the path still leads to the file that was opened: not if it, or its folder, was moved or removed."""
        try:
            return os.path.samestat(os.fstat(self._handle), self.path.stat())
        except OSError:
            return False

    def _take(self) -> bool:
        try:
            if fcntl is not None:
                fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # such as a network file system without locks
            self.enforced = False
        return self.is_in_place()  # not if it was removed between opening and locking
