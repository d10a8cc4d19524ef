"""Sources whose pictures are files of a usual format, wherever those files lie: in a folder, an archive, a table.

Such a source says which bytes picture i is and what is known of it; decoding is the same for all, and since bytes (or a
path) are all that it takes, other processes can do it that know nothing of the source (`pool`). A file that is not on
the disk by itself is a `Blob`: it is opened like a path, and nothing is ever extracted.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace

from sfumato.attributes import Attribute
from sfumato.data.decode import header_size, read_picture
from sfumato.data.source import File, Picture

__all__ = ["FileSource"]


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

    def read(self, i: int) -> Picture:
        """Return picture i, decoded; raises `Unreadable`."""
        return replace(read_picture(self.file(i), self.background), condition=self.condition(i))
