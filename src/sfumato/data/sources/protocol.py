"""What a source of images is, and what is asked of it.

A `Source` is a numbered list of pictures that says cheaply how large each is and which state it is in (`key`), and
reads one picture at a time. It knows nothing of training: cropping, resizing, caching and splitting come after it
(`decode`, `store`, `dataset`), once for all sources. One bad picture is `Unreadable`, an ordinary event that the store
counts and names; a source that can't be used at all is a `UserError`.

Nothing here imports torch, so a listing of the data is quick.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sfumato.conditions.attributes import Attribute

__all__ = [
    "ArraySource", "Arrays", "Blob", "File", "Picture", "Pixels", "Source", "Unreadable", "one_class",
    "printable",
]  # fmt: skip

Pixels = NDArray[Any]
"""uint8, uint16 or float32."""
MAX_PIXELS = 2**26
"""Of one picture: 8192 x 8192; three bytes each, 200 MB."""


@dataclass(frozen=True)
class Picture:
    """One decoded picture at its own size.

    Attributes:
        pixels: (H, W, C) uint8, uint16 or float32 (finite); C = 1 is grey, 3 RGB, any other number is bands.
        condition: a number for each of the source's `attributes`, NaN where it is not given.
        animated: whether the file holds further frames or pages, which are not used.
        alpha: whether the last channel is opacity, which then are 2 or 4.
    """

    pixels: Pixels
    condition: tuple[float, ...] = ()
    animated: bool = False
    alpha: bool = False


@dataclass(frozen=True)
class Blob:
    """A file's bytes that are no file on the disk: a member of an archive, a cell of a table."""

    data: bytes

    def open(self, mode: str = "rb") -> IO[bytes]:
        """Open it for reading, as `Path.open("rb")` does."""
        return io.BytesIO(self.data)


File = Path | Blob
"""What can be opened and read as a picture."""


class Unreadable(Exception):
    """One picture can't be used; `reason` says why in a few words."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Source(Protocol):
    """A numbered list of pictures."""

    @property
    def name(self) -> str:
        """The built-in name, or the absolute path."""

    @property
    def attributes(self) -> tuple[Attribute, ...]:
        """What the source knows of its pictures; () for nothing."""

    def __len__(self) -> int:
        """How many pictures there may be, readable or not."""

    def origin(self, i: int) -> str:
        """Where picture i comes from, in printable characters."""

    def size(self, i: int) -> tuple[int, int]:
        """(height, width) of picture i as `read` will give it, without decoding; raises `Unreadable`."""

    def read(self, i: int) -> Picture:
        """Picture i, decoded; raises `Unreadable`."""

    def key(self) -> str:
        """A cheap fingerprint that changes when the contents do."""


@dataclass(frozen=True)
class Arrays:
    """What an `ArraySource` loads: images (N, H, W, C), and what is known of them, (N, A) float32."""

    images: Pixels
    conditions: NDArray[np.float32]
    attributes: tuple[Attribute, ...]


class ArraySource:
    """Pictures that already are one array, loaded only when they are asked for."""

    def __init__(self, name: str, key: str, load: Callable[[], Arrays]) -> None:
        self.name = name
        self._key = key
        self._load = load

    @cached_property
    def arrays(self) -> Arrays:
        """The arrays; raises what `load` raises."""
        return self._load()

    @property
    def attributes(self) -> tuple[Attribute, ...]:
        """What is known of the pictures."""
        return self.arrays.attributes

    def __len__(self) -> int:
        return len(self.arrays.images)

    def origin(self, i: int) -> str:
        """Return the name and the number."""
        return f"{self.name}[{i}]"

    def size(self, i: int) -> tuple[int, int]:
        """Return (height, width), the same for every picture."""
        _, height, width, _ = self.arrays.images.shape
        return height, width

    def read(self, i: int) -> Picture:
        """Return picture i."""
        return Picture(self.arrays.images[i], tuple(self.arrays.conditions[i].tolist()))

    def key(self) -> str:
        """Return the fingerprint given at construction."""
        return self._key


def one_class(images: Pixels, labels: NDArray[np.integer], classes: tuple[str, ...]) -> Arrays:
    """Return images of which one thing is known, the attribute `class`.

    Args:
        images: (N, H, W, C).
        labels: (N,), places in `classes`.
        classes: the names of the classes.
    """
    return Arrays(images, labels.astype(np.float32)[:, None], (Attribute("class", classes),))


def printable(text: str) -> str:
    r"""Return text that a terminal shows on one line: controls and undecodable bytes become \x escapes.

    Args:
        text: anything, such as a file's name with a newline, an escape sequence or surrogates in it.

    Returns:
        The same text where it was printable already; letters of any script and emoji stay.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode("ascii") for c in text)
