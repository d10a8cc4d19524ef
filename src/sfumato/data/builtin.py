"""The images that come with Sfumato: they need no network and no other package.

Each is an .npz of plain arrays beside this file, made by a script in `scripts/`: `images` (N, H, W, C) uint8, `labels`
(N,) uint8, `classes` (K,) text. `faces` also holds `attributes` (N, A) uint8 and what its numbers mean. `fashion-full`
is not shipped: it is read where Debian's package dataset-fashion-mnist put it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np

from sfumato.data.idx import find_idx, idx_source
from sfumato.data.source import Arrays, ArraySource, Pixels
from sfumato.errors import UserError

__all__ = ["BUILTIN", "FASHION_CLASSES", "Attributes", "Builtin", "describe_sources", "face_attributes"]

FASHION_CLASSES = (
    "T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip
FASHION_FOLDER = Path("/usr/share/datasets/fashion-mnist")


@dataclass(frozen=True)
class Builtin:
    """What a built-in source is, without loading it.

    Attributes:
        name: what the user writes.
        count: how many images.
        shape: (C, H, W).
        classes: how many classes.
        about: what the images show and where they are from.
        licence: under which they may be used and passed on.
        open: makes the source.
    """

    name: str
    count: int
    shape: tuple[int, int, int]
    classes: int
    about: str
    licence: str
    open: Callable[[], ArraySource]

    def line(self) -> str:
        """Return one line for a listing."""
        size = "x".join(map(str, self.shape))
        return f"{self.name:<13}{self.count:>7,} {size:<8} {self.classes:>2} classes  {self.about}  [{self.licence}]"


@dataclass(frozen=True)
class Attributes:
    """The options that each of the drawn faces was drawn with.

    Attributes:
        values: for each attribute's name, the values that its numbers stand for.
        table: (N, A) uint8, the place of image n's value in attribute a's list; 255 for the colour of a part not worn.
    """

    values: dict[str, tuple[str, ...]]
    table: Pixels


def describe_sources() -> list[str]:
    """Return one line for each built-in source: name, count, channels x height x width, classes, origin, licence."""
    return [source.line() for source in BUILTIN.values()]


def face_attributes() -> Attributes:
    """Return the attributes of `faces`; row n belongs to image n of the source."""
    with np.load(_asset("faces"), allow_pickle=False) as arrays:
        values = {name: tuple(items) for name, items in json.loads(str(arrays["attribute_values"])).items()}
        return Attributes(values, arrays["attributes"])


def _asset(name: str) -> Path:
    """The file of a shipped source."""
    return Path(str(files("sfumato.data").joinpath("assets", f"{name}.npz")))


def _shipped(name: str) -> Callable[[], ArraySource]:
    """Make the opener of a shipped source."""

    def load() -> Arrays:
        with np.load(_asset(name), allow_pickle=False) as arrays:
            return Arrays(arrays["images"], arrays["labels"], tuple(str(item) for item in arrays["classes"]))

    return lambda: ArraySource(name, hashlib.sha256(_asset(name).read_bytes()).hexdigest(), load)


def _fashion_full() -> ArraySource:
    """Open Debian's copy of Fashion-MNIST; raises `UserError` where it is not installed."""
    found = find_idx(FASHION_FOLDER) if FASHION_FOLDER.is_dir() else None
    if found is None:
        raise UserError(
            "fashion-full is not shipped: install Debian's package dataset-fashion-mnist, give the path of a "
            "folder with its idx files, or use 'fashion' (5,000 of its images)"
        )
    return idx_source(found[0], FASHION_CLASSES, "fashion-full")


BUILTIN: dict[str, Builtin] = {
    source.name: source
    for source in (
        Builtin(
            "faces", 5000, (3, 16, 16), 4, "drawn faces of nobody: DiceBear's Pixel Art, with hats and glasses",
            "CC0 1.0", _shipped("faces"),
        ),
        Builtin(
            "digits", 1797, (1, 8, 8), 10, "handwritten digits: Alpaydin and Kaynak 1998, UCI", "CC BY 4.0",
            _shipped("digits"),
        ),
        Builtin(
            "fashion", 5000, (1, 28, 28), 10, "clothes: 500 of each class of Fashion-MNIST, Zalando 2017", "MIT",
            _shipped("fashion"),
        ),
        Builtin(
            "fashion-full", 60000, (1, 28, 28), 10, "clothes: all of Fashion-MNIST, where Debian's files are", "MIT",
            _fashion_full,
        ),
    )
}  # fmt: skip
"""Every built-in source by name."""
