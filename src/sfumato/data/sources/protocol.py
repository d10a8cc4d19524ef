"""The interface of a source of images.

A `Source` is a numbered list of pictures. It returns each size and a fingerprint of its contents (`key`) without
decoding, and reads one picture at a time. Cropping, resizing, caching and splitting come after it, in one
implementation for all sources. A picture that can't be used is `Unreadable`: the store skips and counts it. A source
that can't be used at all is a `UserError`.

A source may offer more than the protocol requires; these functions find out, never its class:

    encoded(source)      has `file` and `labels`: its pictures are encoded files, which other processes can decode
    blocks_of(source)    has `together`, which is more than 1: it reads so many plain pictures of one size at once
    folder_of(source)    has `folder`: each picture is a file below this folder
    captioned(source)    has `captioned`: whether there are captions
    layout_of(source)    has `layout`: which pictures are held out, and files of labels beside them

Nothing here imports torch, so that listing the data is fast.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from sfumato.conditions.attributes import Attribute

Pixels = NDArray[Any]
"""uint8, uint16 or float32."""
MAX_PIXELS = 2**26
"""The most pixels of one picture: 8192 x 8192; three bytes each, 200 MB."""


@dataclass(frozen=True)
class Picture:
    """One decoded picture at its own size.

    Attributes:
        pixels: (H, W, C) uint8, uint16 or float32; C = 1 is grey, 3 RGB, any other number is bands. NaN is unreadable
            unless it marks missing data.
        condition: a number for each of the source's `attributes`, NaN where it is not given.
        animated: whether the file holds further frames or pages, which are not used.
        alpha: whether the last channel is opacity; there are then 2 or 4.
        caption: a text that describes it.
        profile: `converted` where a colour profile other than sRGB was applied, `ignored` where it could not be.
    """

    pixels: Pixels
    condition: tuple[float, ...] = ()
    animated: bool = False
    alpha: bool = False
    caption: str | None = None
    profile: str = ""


@dataclass(frozen=True)
class Blob:
    """The bytes of a file that is not on the disk by itself: a member of an archive, a cell of a table."""

    data: bytes

    def open(self, mode: str = "rb") -> IO[bytes]:
        """Open it for reading, as `Path.open("rb")` does."""
        return io.BytesIO(self.data)


File = Path | Blob
"""A file that can be opened and read as a picture."""


class Unreadable(Exception):
    """One picture can't be used; `reason` says why in a few words."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, eq=False)
class Labels:
    """The labels of N images.

    Attributes:
        attributes: the A attributes.
        conditions: (N, A) float32, NaN where not given.
        notes: findings while reading, in sentences.
        captions: N texts, None where an image has none; None where no image has one.
    """

    attributes: tuple[Attribute, ...]
    conditions: NDArray[np.float32]
    notes: tuple[str, ...] = ()
    captions: tuple[str | None, ...] | None = None

    def __getitem__(self, i: int) -> tuple[tuple[float, ...], str | None]:
        """Return a number for each attribute of image i, and its caption."""
        return tuple(self.conditions[i].tolist()), self.captions[i] if self.captions else None

    @classmethod
    def none(cls, count: int) -> Labels:
        """Return the labels of so many images of which nothing is known."""
        return cls((), np.zeros((count, 0), np.float32))

    @classmethod
    def of_classes(cls, classes: Sequence[str], indices: NDArray[Any]) -> Labels:
        """Return the attribute `class` alone: the names, and (N,) indices of them, NaN where not given."""
        return cls((Attribute("class", tuple(classes)),), indices.astype(np.float32)[:, None])


@dataclass(frozen=True, eq=False)
class Beside:
    """A file of labels beside the pictures: its path within the source, and what opens it, which may raise
    `Unreadable`."""

    parts: tuple[str, ...]
    file: Callable[[], File]

    @property
    def origin(self) -> str:
        """The path, printable."""
        return printable("/".join(self.parts))


@dataclass(frozen=True, eq=False)
class Layout:
    """What the names and lists of a source say of its N pictures.

    Attributes:
        held_out: (N,) bool, the pictures that its own parts hold out; None where it has no parts.
        where: what holds them out, in words: "'val' and 'test'".
        tables: files of labels, whose names of pictures are relative to their folder.
    """

    held_out: NDArray[np.bool_] | None = None
    where: str = ""
    tables: tuple[Beside, ...] = ()


class Source(Protocol):
    """A numbered list of pictures."""

    @property
    def name(self) -> str:
        """The built-in name, or the absolute path."""

    @property
    def attributes(self) -> tuple[Attribute, ...]:
        """The attributes of the pictures; () without any."""

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


class Encoded(Source, Protocol):
    """A source of encoded files; see `files.FileSource`."""

    def file(self, i: int) -> File: ...  # noqa: D102
    @property
    def labels(self) -> Labels: ...  # noqa: D102


def encoded(source: Source) -> Encoded | None:
    """Return the source as one of encoded files, None where it is not."""
    return cast(Encoded, source) if hasattr(source, "file") else None


@dataclass(frozen=True, eq=False)
class Block:
    """N plain pictures of one size: pixels (N, H, W, C), as those of a `Picture` without opacity, and their conditions
    (N, A)."""

    pixels: Pixels
    conditions: NDArray[np.float32]


class Blocks(Source, Protocol):
    """A source of arrays; see `arrays.ArraySource`."""

    @property
    def together(self) -> int: ...  # noqa: D102
    def block(self, first: int, count: int) -> Block: ...  # noqa: D102


def blocks_of(source: Source) -> Blocks | None:
    """Return the source as one of blocks, None where it is not."""
    return cast(Blocks, source) if getattr(source, "together", 1) > 1 else None


def files_of(source: Encoded, indices: Iterable[int]) -> Iterator[File | str]:
    """Yield the file of each picture, or why it has none."""
    for i in indices:
        try:
            yield source.file(i)
        except Unreadable as fault:
            yield fault.reason


def folder_of(source: Source) -> Path | None:
    """Return the folder below which each picture is a file of its own, None where there is none."""
    return getattr(source, "folder", None)


def layout_of(source: Source) -> Layout:
    """Return the layout of the source; an empty one where it has none."""
    return getattr(source, "layout", None) or Layout()


def captioned(source: Source) -> bool:
    """Return whether the source has captions."""
    return bool(getattr(source, "captioned", False))


def printable(text: str) -> str:
    r"""Return text that a terminal shows on one line: controls and undecodable bytes become \x escapes."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode("ascii") for c in text)
