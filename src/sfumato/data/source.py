"""What a source of images is, and what is asked of it.

A `Source` is a numbered list of pictures that says cheaply how large each is and which state it is in (`key`), and
reads one picture at a time. It knows nothing of training: cropping, resizing, caching and splitting come after it
(`decode`, `store`, `dataset`), once for all sources. One bad picture is `Unreadable`, an ordinary event that the store
counts and names; a source that can't be used at all is a `UserError`.

Nothing here imports torch, so a listing of the data is quick.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import ImageColor

from sfumato.errors import UserError

__all__ = ["ArraySource", "Arrays", "DataConfig", "Picture", "Pixels", "Source", "Unreadable", "printable"]

Pixels = NDArray[np.uint8]
LARGEST_SIDE = 4096


@dataclass(frozen=True)
class DataConfig:
    """Which images, and how they become training data.

    Attributes:
        source: a built-in name, or a path to a folder of images or of idx files.
        size: (height, width) in pixels that every image is cropped and resized to; None chooses from the data.
        channels: 1 (grey) or 3 (RGB); None is 1 where every image is grey, else 3.
        flip: mirror half of the training images, drawn anew for every position of the stream.
        held_out: the share of images kept out of training, in [0, 1), chosen by content.
        labels: train with the classes that the source has.
        background: the colour that transparent pixels lie on: a CSS name or #rrggbb.

    Raises:
        UserError: a value that can't be used.
    """

    source: str = "faces"
    size: tuple[int, int] | None = None
    channels: int | None = None
    flip: bool = False
    held_out: float = 0.05
    labels: bool = False
    background: str = "white"

    def __post_init__(self) -> None:
        sides = () if self.size is None else tuple(self.size)
        if self.size is not None and (len(sides) != 2 or not all(1 <= side <= LARGEST_SIDE for side in sides)):
            raise UserError(f"data.size is {self.size}: give height and width, each from 1 to {LARGEST_SIDE}")
        if self.channels not in (None, 1, 3):
            raise UserError(f"data.channels is {self.channels}: give 1 (grey) or 3 (RGB)")
        if not 0 <= self.held_out < 1:
            raise UserError(f"data.held_out is {self.held_out}: give a share of the images from 0 to less than 1")
        try:
            ImageColor.getrgb(self.background)
        except ValueError:
            raise UserError(f"data.background is '{self.background}': give a colour such as white or #336699") from None


@dataclass(frozen=True)
class Picture:
    """One decoded picture at its own size.

    Attributes:
        pixels: (H, W, C) uint8, C = 1 (grey) or 3 (RGB).
        label: the place of its class in the source's `classes`, -1 for none.
        animated: whether the file holds further frames or pages, which are not used.
    """

    pixels: Pixels
    label: int = -1
    animated: bool = False


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
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, in the order that labels count; () where there are none."""

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
    """What an `ArraySource` loads: images (N, H, W, C) uint8, labels (N,) or None, and the classes' names."""

    images: Pixels
    labels: NDArray[np.integer] | None
    classes: tuple[str, ...]


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
    def classes(self) -> tuple[str, ...]:
        """The names of the classes."""
        return self.arrays.classes

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
        labels = self.arrays.labels
        return Picture(self.arrays.images[i], -1 if labels is None else int(labels[i]))

    def key(self) -> str:
        """Return the fingerprint given at construction."""
        return self._key


def printable(text: str) -> str:
    r"""Return text that a terminal shows on one line: controls and undecodable bytes become \x escapes.

    Args:
        text: anything, such as a file's name with a newline, an escape sequence or surrogates in it.

    Returns:
        The same text where it was printable already; letters of any script and emoji stay.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode("ascii") for c in text)
