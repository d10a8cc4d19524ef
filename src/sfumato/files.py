"""Files that are there whole or not at all.

A file is written beside its place, flushed to the disk and renamed; then the folder is flushed, because a rename lives
in the folder.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

__all__ = ["sync_folder", "write_atomic"]


def sync_folder(path: Path) -> None:
    """Flush a folder, so that a rename inside it survives a loss of power."""
    with suppress(PermissionError):  # a folder may be written to and yet not be open to reading
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write a file, whole or not at all; on failure what stood there before is untouched.

    Raises:
        OSError: as the file system has it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)
