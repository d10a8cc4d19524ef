"""A folder of images, with all its sub-folders.

Every regular file is a candidate, whatever its name; `decode` decides by content. Names that begin with a dot are
ignored, files and folders alike. Symbolic links are never followed, so nothing outside the folder is read and a loop
can't trap the walk: each is named among the images left out, as are pipes, sockets and sub-folders that can't be
listed. Pictures are in the order of their paths.

The names of the first-level sub-folders, sorted, are the values of the attribute `class`, which is not given for a
picture that lies beside them. Fewer than two such sub-folders are no attribute.
"""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from sfumato.data.sources.files import Listed, TreeSource
from sfumato.data.sources.protocol import Unreadable, printable
from sfumato.errors import UserError

__all__ = ["FolderSource"]


@dataclass(frozen=True, slots=True)
class _Entry(Listed):
    """One file as it was listed."""

    size: int = 0
    changed: int = 0


class FolderSource(TreeSource):
    """The images in a folder, as a `Source`.

    Args:
        folder: an existing folder.
        background: the colour under transparent pixels.

    Raises:
        UserError: the folder can't be listed, or holds no file.
    """

    def __init__(self, folder: Path, background: str = "white") -> None:
        self.folder = folder.resolve()
        self._entries = sorted(_walk(self.folder), key=lambda entry: entry.parts)
        if not self._entries:
            raise UserError(f"'{printable(str(folder))}' holds no files: give a folder of images")
        super().__init__(printable(str(self.folder)), self._entries, background)

    def file(self, i: int) -> Path:
        """Return the path of picture i; raises `Unreadable` where listing it already told why it is none."""
        entry = self._entries[i]
        if entry.fault is not None:
            raise Unreadable(entry.fault)
        return self.folder.joinpath(*entry.parts)

    def key(self) -> str:
        """Return the SHA-256 of every file's path, size in bytes and time of change."""
        lines = (repr((entry.parts, entry.fault, entry.size, entry.changed)) for entry in self._entries)
        return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogatepass")).hexdigest()


def _walk(folder: Path) -> list[_Entry]:
    """List a folder and what is below it."""
    entries: list[_Entry] = []

    def failed(error: OSError) -> None:
        place = Path(error.filename)
        if place == folder:
            raise UserError(f"'{printable(str(folder))}' cannot be listed: {error.strerror}")
        entries.append(_Entry(place.relative_to(folder).parts, f"cannot be listed: {error.strerror}"))

    for place, folders, files in os.walk(folder, onerror=failed):
        folders[:] = [name for name in folders if not name.startswith(".")]
        links = [name for name in folders if os.path.islink(os.path.join(place, name))]
        parts = Path(place).relative_to(folder).parts
        entries += [_entry(place, parts, name) for name in files + links if not name.startswith(".")]
    return entries


def _entry(place: str, parts: tuple[str, ...], name: str) -> _Entry:
    """Look at one file without opening it or following it."""
    parts = (*parts, name)
    try:
        status = os.lstat(os.path.join(place, name))
    except OSError as error:
        return _Entry(parts, f"cannot be read: {error.strerror}")
    if stat.S_ISLNK(status.st_mode):
        return _Entry(parts, "a symbolic link, which is not followed")
    if not stat.S_ISREG(status.st_mode):
        return _Entry(parts, "not a regular file")
    return _Entry(parts, None, status.st_size, status.st_mtime_ns)
