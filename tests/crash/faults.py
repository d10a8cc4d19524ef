"""Faults at chosen calls: a process counts its calls on one folder, and dies or gets an error at the n-th of them.

It works without privileges on any system, since Python's own functions are replaced: those of `os`, and `open` with the
files it returns. A call is counted before it is made, so being killed at call n means that n calls were made; a write
can also be cut in half, which a real disk does and a signal between two system calls does not.
"""

from __future__ import annotations

import builtins
import io
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHANGES = ("fsync", "ftruncate", "mkdir", "pwrite", "remove", "rename", "replace", "rmdir", "truncate", "unlink")
READS = ("listdir", "pread", "scandir", "stat")
CHANGING = {*CHANGES, "create", "write"}
"""The calls that change a folder, as they are noted; being killed between two others makes no difference."""
GROWING = frozenset({"create", "mkdir", "pwrite", "write"})
"""The calls that fail on a full disk."""
FOREVER = 10**9


@dataclass(frozen=True)
class Fault:
    """What happens at one call or several in a row, counted from 0.

    Attributes:
        at: the first call.
        error: the errno of the error that is raised; None for a signal.
        number: the signal.
        calls: for how many calls it lasts.
        names: which of these calls fail; all by default.
        torn: half of a write is done.
    """

    at: int
    error: int | None = None
    number: int = signal.SIGKILL
    calls: int = 1
    names: frozenset[str] = frozenset()
    torn: bool = False


class Calls:
    """Counts the calls on a folder in this process, and lets a fault happen.

    Args:
        folder: whose calls are counted.
        fault: what happens.
        noted: called with the number, the name and the path of each call before it is made.
    """

    def __init__(self, folder: Path, fault: Fault | None, noted: Callable[[int, str, str], None]) -> None:
        self.folder, self.fault, self.noted = str(folder), fault, noted
        self.count = 0
        self.paths: dict[int, str] = {}  # of open descriptors

    def install(self) -> None:
        """Replace the functions of `os` and `open`, for the rest of the process."""
        for name in (*CHANGES, *READS):
            setattr(os, name, self._counted(name, getattr(os, name)))
        self._os_open, self._os_close, self._open = os.open, os.close, io.open
        os.open, os.close = self.os_open, self.os_close  # type: ignore[assignment]
        io.open = builtins.open = self.open  # type: ignore[assignment]

    def _path(self, path: object, dir_fd: int | None = None) -> str | None:
        """The path of a call, where it is in the folder."""
        if isinstance(path, int):
            return self.paths.get(path)
        text = os.fspath(path) if isinstance(path, str | os.PathLike) else ""
        if dir_fd is not None:
            text = os.path.join(self.paths.get(dir_fd, ""), text)
        text = os.path.abspath(text) if isinstance(text, str) and text else ""
        return text if text == self.folder or text.startswith(self.folder + os.sep) else None

    def meet(self, name: str, path: str, named: bool = True, half: Callable[[], object] = lambda: None) -> None:
        """Count a call, and let the fault happen if this is its turn."""
        number, fault = self.count, self.fault
        self.count += 1
        self.noted(number, name, path)
        if fault is None or not fault.at <= number < fault.at + fault.calls:
            return
        if fault.names and name not in fault.names:
            return
        if fault.torn:
            half()
        if fault.error is None:
            os.kill(os.getpid(), fault.number)
        else:
            raise OSError(fault.error, os.strerror(fault.error), *([path] if named else []))

    def _counted(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(path: Any = ".", *more: Any, **options: Any) -> Any:
            where = self._path(path, options.get("dir_fd", options.get("src_dir_fd")))
            if where is not None:
                self.meet(name, where, named=not isinstance(path, int))
            return call(path, *more, **options)

        return counted

    def os_open(self, path: Any, flags: int, *more: Any, **options: Any) -> int:
        where = self._path(path, options.get("dir_fd"))
        if where is not None:
            self.meet("create" if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) else "open", where)
        handle: int = self._os_open(path, flags, *more, **options)
        if where is not None:
            self.paths[handle] = where
        return handle

    def os_close(self, handle: int) -> None:
        self.paths.pop(handle, None)
        self._os_close(handle)

    def open(self, file: Any, mode: str = "r", *more: Any, **options: Any) -> Any:
        where = self._path(file)
        if where is None:
            return self._open(file, mode, *more, **options)
        if not isinstance(file, int):
            self.meet("open" if set(mode) <= set("rbt") else "create", where)
        opened = _File(self, self._open(file, mode, *more, **options), where)
        self.paths[opened.fileno()] = where
        return opened


class _File:
    """An open file whose reads, writes and closing are counted."""

    def __init__(self, calls: Calls, file: Any, path: str) -> None:
        self._calls, self._file, self._path = calls, file, path

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Any:
        return iter(self._file)

    def read(self, *size: int) -> Any:
        self._calls.meet("read", self._path, named=False)
        return self._file.read(*size)

    def readline(self, *size: int) -> Any:
        self._calls.meet("read", self._path, named=False)
        return self._file.readline(*size)

    def write(self, content: Any) -> int:
        def half() -> None:
            self._file.write(content[: len(content) // 2])
            self._file.flush()

        self._calls.meet("write", self._path, named=False, half=half)
        written: int = self._file.write(content)
        return written

    def close(self) -> None:
        if self._file.closed:
            return
        self._calls.paths.pop(self._file.fileno(), None)
        self._file.close()
        self._calls.meet("close", self._path, named=False)
