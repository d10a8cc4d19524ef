"""Sources whose pictures are encoded files, wherever those lie: in a folder, an archive, a table.

Such a source knows which bytes picture i is and what is known of it. Decoding is the same for all, and since it takes
nothing but bytes or a path, other processes can do it that know nothing of the source (`encoded`).

A folder is one, with all its sub-folders. Every regular file is a candidate, whatever its name. Names that begin with a
dot are ignored, files and folders alike. Symbolic links are never followed, so nothing outside the folder is read and a
loop can't trap the listing: each is among the skipped files, as are pipes, sockets and sub-folders that can't be
listed. Pictures are in the order of their paths.
"""

from __future__ import annotations

import hashlib
import math
import os
import stat
from abc import abstractmethod
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from sfumato.conditions.attributes import Attribute
from sfumato.data.formats.decode import header_size, read_picture
from sfumato.data.labels import Labels
from sfumato.data.sources.protocol import File, Picture, Unreadable, printable
from sfumato.errors import UserError

__all__ = ["MAX_FILE", "FileSource", "FolderSource", "Listed", "TreeSource", "hashed", "state_of"]

MAX_FILE = 2**28
"""Bytes of a file in an archive or a table; larger ones are not unpacked."""


class FileSource:
    """A source of encoded pictures; satisfies `Encoded`.

    Args:
        name: the absolute path, printable.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    @abstractmethod
    def __len__(self) -> int:
        """How many pictures there may be."""

    @abstractmethod
    def origin(self, i: int) -> str:
        """Where picture i comes from."""

    @abstractmethod
    def file(self, i: int) -> File:
        """The file of picture i, not yet opened; raises `Unreadable`."""

    @abstractmethod
    def key(self) -> str:
        """A fingerprint of the contents."""

    @cached_property
    def labels(self) -> Labels:
        """What is known of the pictures: nothing, unless a source says otherwise."""
        return Labels.none(len(self))

    @property
    def attributes(self) -> tuple[Attribute, ...]:
        """The attributes of the labels."""
        return self.labels.attributes

    @property
    def captioned(self) -> bool:
        """Whether there are captions."""
        return self.labels.captions is not None

    def condition(self, i: int) -> tuple[float, ...]:
        """Return a number for each of the attributes of picture i."""
        return tuple(self.labels.conditions[i].tolist())

    def caption(self, i: int) -> str | None:
        """Return the caption of picture i."""
        return self.labels.captions[i] if self.labels.captions else None

    def size(self, i: int) -> tuple[int, int]:
        """Return (height, width) of picture i from its header; raises `Unreadable`."""
        return header_size(self.file(i))

    def read(self, i: int) -> Picture:
        """Return picture i, decoded; raises `Unreadable`."""
        return replace(read_picture(self.file(i)), condition=self.condition(i), caption=self.caption(i))


@dataclass(frozen=True, slots=True)
class Listed:
    """A file as it was listed.

    Attributes:
        parts: its path within the source.
        fault: why it can't be a picture, None where it may be one.
    """

    parts: tuple[str, ...]
    fault: str | None = None


class TreeSource(FileSource):
    """Encoded pictures that have paths: the first-level folders are the values of the attribute `class`.

    Fewer than two such folders are no attribute, and the class of a picture that lies beside them is not given.

    Args:
        name: the absolute path of where they lie, printable.
        entries: the files, in order.
        unwrap: where all lie in one folder, look at the folders in it, as is usual in archives.
    """

    def __init__(self, name: str, entries: Sequence[Listed], unwrap: bool = False) -> None:
        super().__init__(name)
        self._entries, self._unwrap = entries, unwrap

    @cached_property
    def labels(self) -> Labels:
        """The class, where there are two or more."""
        good = [entry.parts for entry in self._entries if entry.fault is None]
        tops = {parts[0] for parts in good if len(parts) > 1}
        level = int(self._unwrap and len(tops) == 1 and all(len(parts) > 1 for parts in good))
        names = sorted({parts[level] for parts in good if len(parts) > level + 1})
        if len(names) < 2:
            return Labels.none(len(self))
        codes = {name: float(k) for k, name in enumerate(names)}
        folders = (entry.parts[level] if len(entry.parts) > level else "" for entry in self._entries)
        return Labels.of_classes(list(map(printable, names)), np.array([codes.get(f, math.nan) for f in folders]))

    def __len__(self) -> int:
        return len(self._entries)

    def origin(self, i: int) -> str:
        """Return the path within the source."""
        return printable("/".join(self._entries[i].parts))


@dataclass(frozen=True, slots=True)
class _Entry(Listed):
    """One file of a folder."""

    size: int = 0
    changed: int = 0


class FolderSource(TreeSource):
    """The images in a folder, as a source.

    Args:
        folder: an existing folder.
        wanted: the names of the files to take; None takes all.

    Raises:
        UserError: the folder can't be listed, or holds no such file.
    """

    def __init__(self, folder: Path, wanted: Container[str] | None = None) -> None:
        self.folder = folder.resolve()
        entries = sorted(_walk(self.folder), key=lambda entry: entry.parts)
        if not entries:
            raise UserError(f"'{printable(str(folder))}' holds no files: give a folder of images")
        if wanted is not None:
            entries = [entry for entry in entries if entry.parts[-1] in wanted]
        super().__init__(printable(str(self.folder)), entries)
        self._files = entries

    def file(self, i: int) -> Path:
        """Return the path of picture i; raises `Unreadable` where it was listed as something else."""
        entry = self._entries[i]
        if entry.fault is not None:
            raise Unreadable(entry.fault)
        return self.folder.joinpath(*entry.parts)

    def key(self) -> str:
        """Return the SHA-256 of every file's path, size in bytes and time of change."""
        lines = (repr((entry.parts, entry.fault, entry.size, entry.changed)) for entry in self._files)
        return hashed("\n".join(lines))


def _walk(folder: Path) -> list[_Entry]:
    """List a folder and what is below it."""
    entries: list[_Entry] = []

    def failed(error: OSError) -> None:
        path = Path(error.filename)
        if path == folder:
            raise UserError(f"'{printable(str(folder))}' cannot be listed: {error.strerror}")
        entries.append(_Entry(path.relative_to(folder).parts, f"cannot be listed: {error.strerror}"))

    for path, folders, files in os.walk(folder, onerror=failed):
        folders[:] = [name for name in folders if not name.startswith(".")]
        links = [name for name in folders if os.path.islink(os.path.join(path, name))]
        parts = Path(path).relative_to(folder).parts
        entries += [_entry(path, parts, name) for name in files + links if not name.startswith(".")]
    return entries


def _entry(folder: str, parts: tuple[str, ...], name: str) -> _Entry:
    """Look at one file without opening it or following it."""
    parts = (*parts, name)
    try:
        status = os.lstat(os.path.join(folder, name))
    except OSError as error:
        return _Entry(parts, f"cannot be read: {error.strerror}")
    if stat.S_ISLNK(status.st_mode):
        return _Entry(parts, "a symbolic link, which is not followed")
    if not stat.S_ISREG(status.st_mode):
        return _Entry(parts, "not a regular file")
    return _Entry(parts, None, status.st_size, status.st_mtime_ns)


def hashed(text: str) -> str:
    """Return the SHA-256 of a text, which may hold undecodable bytes."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def state_of(paths: Iterable[Path]) -> str:
    """Return a text that changes when files do: of each its path, length and time of change; raises OSError."""
    states = [(str(path.resolve()), path.stat()) for path in paths]
    return "; ".join(f"{path} {state.st_size} {state.st_mtime_ns}" for path, state in states)
