"""What a source of images is, and what is asked of it.

A `Source` is a numbered list of pictures that says cheaply how large each is and which state it is in (`key`), and
reads one picture at a time. It knows nothing of training: cropping, resizing, caching and splitting come after it
(`decode`, `store`, `dataset`), once for all sources. One bad picture is `Unreadable`, an ordinary event that the store
counts and names; a source that can't be used at all is a `UserError`.

Nothing here imports torch, so a listing of the data is quick.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import ImageColor

from sfumato.attributes import Attribute
from sfumato.depth import DEPTHS
from sfumato.errors import UserError, nearest

__all__ = [
    "ArraySource", "Arrays", "Blob", "DataConfig", "File", "Picture", "Pixels", "Source", "Unreadable", "one_class",
    "printable",
]  # fmt: skip

Pixels = NDArray[Any]
"""uint8, uint16 or float32."""
LARGEST_SIDE = 4096
MAX_PIXELS = 2**26
"""Of one picture: 8192 x 8192; three bytes each, 200 MB."""
MOST_CHANNELS = 1024
CROPS = ("center", "letterbox", "random")


@dataclass(frozen=True)
class DataConfig:
    """Which images, and how they become training data.

    Attributes:
        source: a built-in name, or a path to a folder of images or of idx files, or to an array (.npy, .npz).
        size: (height, width) in pixels that every image is cropped and resized to; None chooses from the data.
        channels: 1 (grey), 3 (RGB), 2 or 4 (the same with opacity), or the number of bands that arrays have; None is 1
            where every image is grey, 3 where one has colour, and as many as there are where they are others.
        depth: `8` or `16` bits a channel, or `float`; `auto` keeps 16 bits where every image has them and floats where
            every one is of floats, and is 8 bits else (see `fitting` for how one becomes another).
        range: the values that floats have at black and white, which are -1 and 1 to the model; None takes the least and
            the greatest of all images.
        crop: how another shape becomes this one: `center` cuts a centred rectangle out, `letterbox` keeps the whole
            and fills the rest with the background, `random` cuts another rectangle each time that an image is met.
        flip: mirror half of the training images, drawn anew for every position of the stream.
        held_out: the share of images kept out of training, in [0, 1), chosen by content.
        labels: what is known of the images: `none`; `source`, what the source carries (sub-folders, labels of idx
            files, the attributes of built-in images); or the path of a CSV or JSON Lines file (see `labels`).
        attributes: which of it to take, by name; () takes all.
        background: the colour that transparent pixels lie on: a CSS name or #rrggbb.

    Raises:
        UserError: a value that can't be used.
    """

    source: str = "faces"
    size: tuple[int, int] | None = None
    channels: int | None = None
    depth: str = "auto"
    range: tuple[float, float] | None = None
    crop: str = "center"
    flip: bool = False
    held_out: float = 0.05
    labels: str = "none"
    attributes: tuple[str, ...] = ()
    background: str = "white"

    def __post_init__(self) -> None:
        sides = () if self.size is None else tuple(self.size)
        if self.size is not None and (len(sides) != 2 or not all(1 <= side <= LARGEST_SIDE for side in sides)):
            raise UserError(f"data.size is {self.size}: give height and width, each from 1 to {LARGEST_SIDE}")
        if self.channels is not None and not 1 <= self.channels <= MOST_CHANNELS:
            raise UserError(f"data.channels is {self.channels}: give 1 (grey), 3 (RGB), or up to {MOST_CHANNELS} bands")
        for name, choices in (("depth", ("auto", *DEPTHS)), ("crop", CROPS)):
            if getattr(self, name) not in choices:
                raise UserError(f"data.{name} is '{getattr(self, name)}'{nearest(getattr(self, name), choices)}")
        self._check_range()
        if not 0 <= self.held_out < 1:
            raise UserError(f"data.held_out is {self.held_out}: give a share of the images from 0 to less than 1")
        if not self.labels.strip():
            raise UserError("data.labels is empty: give none, source, or the path of a CSV or JSON Lines file")
        if self.attributes and self.labels == "none":
            raise UserError("data.attributes chooses from labels, and data.labels is none: set it to source or a file")
        if len(set(self.attributes)) < len(self.attributes):
            raise UserError(f"data.attributes names one twice: {', '.join(self.attributes)}")
        try:
            ImageColor.getrgb(self.background)
        except ValueError:
            raise UserError(f"data.background is '{self.background}': give a colour such as white or #336699") from None

    def _check_range(self) -> None:
        """Refuse a range that is none, or of what is not floats."""
        if self.range is None:
            return
        if self.depth in ("8", "16"):
            raise UserError(
                f"data.range is of floats, and data.depth is {self.depth}: leave it out, or set depth=float"
            )
        low, high = self.range
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise UserError(f"data.range is {low:g},{high:g}: give a lower and a greater finite number")


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
