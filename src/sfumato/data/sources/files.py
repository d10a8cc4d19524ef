"""Sources whose pictures are files of a usual format, wherever those files lie: in a folder, an archive, a table.

Such a source says which bytes picture i is and what is known of it; decoding is the same for all, and since bytes (or a
path) are all that it takes, other processes can do it that know nothing of the source (`pool`). A file that is not on
the disk by itself is a `Blob`: it is opened like a path, and nothing is ever extracted.
"""

from __future__ import annotations

import math
import os
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sfumato.conditions.attributes import Attribute
from sfumato.data.formats.decode import header_size, read_picture
from sfumato.data.labels import column
from sfumato.data.sources.protocol import Blob, File, Picture, printable
from sfumato.errors import UserError

__all__ = ["MAX_FILE", "FileSource", "Listed", "TreeSource", "in_memory", "shared_column", "state_of"]

MAX_FILE = 2**28
"""Bytes of a file that lies in an archive or a table; more are not unpacked."""
_USUAL = 2**25


class FileSource:
    """A `Source` of encoded pictures.

    Args:
        name: the built-in name, or the absolute path, printable.
        background: the colour under transparent pixels.
    """

    def __init__(self, name: str, background: str = "white") -> None:
        self.name = name
        self.background = background

    @property
    def attributes(self) -> tuple[Attribute, ...]:
        """What the source knows of its pictures: nothing, unless a source says otherwise."""
        return ()

    @abstractmethod
    def __len__(self) -> int:
        """How many pictures there may be."""

    @abstractmethod
    def origin(self, i: int) -> str:
        """Where picture i comes from."""

    @abstractmethod
    def file(self, i: int) -> File:
        """The file of picture i, not yet opened; raises `Unreadable` where it is known to be none."""

    @abstractmethod
    def key(self) -> str:
        """A fingerprint of the contents."""

    def condition(self, i: int) -> tuple[float, ...]:
        """What is known of picture i: a number for each attribute."""
        return ()

    def size(self, i: int) -> tuple[int, int]:
        """Return (height, width) of picture i from its header; raises `Unreadable`."""
        return header_size(self.file(i))

    def read(self, i: int, opacity: bool = False) -> Picture:
        """Return picture i, decoded, with its opacity where that is asked for; raises `Unreadable`."""
        picture = read_picture(in_memory(self.file(i)), self.background, True, opacity)
        return replace(picture, condition=condition) if (condition := self.condition(i)) else picture


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
        background: the colour under transparent pixels.
        unwrap: where all lie in one folder, look at the folders in it, as is usual in archives.
    """

    def __init__(self, name: str, entries: Sequence[Listed], background: str = "white", unwrap: bool = False) -> None:
        super().__init__(name, background)
        self._listed = entries
        good = [entry.parts for entry in entries if entry.fault is None]
        tops = {parts[0] for parts in good if len(parts) > 1}
        self._level = int(unwrap and len(tops) == 1 and all(len(parts) > 1 for parts in good))
        names = {parts[self._level] for parts in good if len(parts) > self._level + 1}
        self._classes = {name: k for k, name in enumerate(sorted(names))} if len(names) > 1 else {}

    @property
    def attributes(self) -> tuple[Attribute, ...]:
        """The class, where there are two or more."""
        return (Attribute("class", tuple(printable(name) for name in self._classes)),) if self._classes else ()

    def __len__(self) -> int:
        return len(self._listed)

    def origin(self, i: int) -> str:
        """Return the path within the source."""
        return printable("/".join(self._listed[i].parts))

    def condition(self, i: int) -> tuple[float, ...]:
        """Return the class of picture i's folder."""
        if not self._classes:
            return ()
        parts = self._listed[i].parts
        return (float(self._classes.get(parts[self._level], math.nan)) if len(parts) > self._level else math.nan,)


def in_memory(file: File) -> File:
    """Return a file of usual length as its bytes, which decoding opens several times; a longer one as it is."""
    try:
        if isinstance(file, Path):
            handle = os.open(file, os.O_RDONLY | getattr(os, "O_BINARY", 0))
            try:
                length = os.fstat(handle).st_size
                data = os.read(handle, length) if length <= _USUAL else b""
            finally:
                os.close(handle)
            if data and len(data) == length:
                return Blob(data)
    except OSError:
        pass  # decoding it will say why
    return file


def shared_column(name: str, cells: Sequence[str | None]) -> tuple[Attribute, list[float]] | None:
    """Return what a column beside the pictures says, by the rules for files of labels.

    Args:
        name: of the attribute.
        cells: a text a picture, None where not given.

    Returns:
        The attribute and a number a picture; None for one that tells pictures apart, such as captions and names, or
        says nothing.
    """
    try:
        attribute, values = column(name, cells)
    except UserError:
        return None
    alone = attribute.values and len(attribute.values) == sum(cell is not None for cell in cells) > 2
    return None if alone else (attribute, values.tolist())


def state_of(paths: Iterable[Path]) -> str:
    """Return a text that changes when files do: of each its path, length and time of change.

    Raises:
        OSError: one is gone.
    """
    states = [(str(path.resolve()), path.stat()) for path in paths]
    return "; ".join(f"{path} {state.st_size} {state.st_mtime_ns}" for path, state in states)
