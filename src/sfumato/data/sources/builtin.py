"""The images that come with Sfumato: they need no network and no other package.

Each is an .npz of plain arrays beside this file, made by a script in `scripts/`: `images` (N, H, W, C) uint8, `labels`
(N,) uint8, `classes` (K,) text, which are the attribute `class`. `faces` has more labels: `attributes` (N, A) uint8 and
their values, the options that each face was drawn with. `fashion-full` is not shipped: it is read where Debian's
package dataset-fashion-mnist put it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np

from sfumato.conditions.attributes import Attribute
from sfumato.data.sources.arrays import Arrays, ArraySource
from sfumato.data.sources.protocol import Labels
from sfumato.data.sources.published import find_idx, idx_source
from sfumato.errors import UserError

FASHION_CLASSES = (
    "T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip
FASHION_FOLDER = Path("/usr/share/datasets/fashion-mnist")
NOT_GIVEN = 255
"""In the file of the faces: the colour of a part that a face lacks."""


@dataclass(frozen=True)
class Builtin:
    """A description of a built-in source, without loading it; shape is (C, H, W), labels a few words on the labels."""

    name: str
    count: int
    shape: tuple[int, int, int]
    labels: str
    about: str
    licence: str
    open: Callable[[], ArraySource]


def describe_sources() -> list[str]:
    """Return one line for each built-in source: name, count, channels x height x width, labels, origin, licence."""
    return [
        f"{each.name:<13}{each.count:>7,} {'x'.join(map(str, each.shape)):<8} {each.labels:<14} {each.about}  "
        f"[{each.licence}]"
        for each in BUILTIN.values()
    ]


def _shipped(name: str) -> Callable[[], ArraySource]:
    path = Path(str(files("sfumato.data").joinpath("assets", f"{name}.npz")))

    def load() -> Arrays:
        with np.load(path, allow_pickle=False) as arrays:
            if "attributes" not in arrays:
                return Arrays(arrays["images"], Labels.of_classes(arrays["classes"].tolist(), arrays["labels"]))
            values, table = json.loads(str(arrays["attribute_values"])), arrays["attributes"]
            attributes = tuple(Attribute(attribute, tuple(items)) for attribute, items in values.items())
            return Arrays(arrays["images"], Labels(attributes, np.where(table == NOT_GIVEN, np.float32(np.nan), table)))

    return lambda: ArraySource(name, hashlib.sha256(path.read_bytes()).hexdigest(), load)


def _fashion_full() -> ArraySource:
    """Open Debian's copy of Fashion-MNIST; raises `UserError` where it is not installed."""
    path = find_idx(FASHION_FOLDER) if FASHION_FOLDER.is_dir() else None
    if path is None:
        raise UserError(
            "fashion-full is not shipped: install Debian's package dataset-fashion-mnist, give the path of a "
            "folder with its idx files, or use 'fashion' (5,000 of its images)"
        )
    return idx_source(path, FASHION_CLASSES, "fashion-full")


BUILTIN: dict[str, Builtin] = {
    source.name: source
    for source in (
        Builtin(
            "faces", 5000, (3, 16, 16), "14 attributes",
            "drawn faces of nobody: DiceBear's Pixel Art, with hats and glasses", "CC0 1.0", _shipped("faces"),
        ),
        Builtin(
            "digits", 1797, (1, 8, 8), "10 classes", "handwritten digits: Alpaydin and Kaynak 1998, UCI", "CC BY 4.0",
            _shipped("digits"),
        ),
        Builtin(
            "fashion", 5000, (1, 28, 28), "10 classes", "clothes: 500 of each class of Fashion-MNIST, Zalando 2017",
            "MIT", _shipped("fashion"),
        ),
        Builtin(
            "emoji32", 3786, (3, 32, 32), "10 classes", "Google's Noto emoji, on white", "Apache 2.0",
            _shipped("emoji32"),
        ),
        Builtin(
            "fashion-full", 60000, (1, 28, 28), "10 classes", "clothes: all of Fashion-MNIST, where Debian's files are",
            "MIT", _fashion_full,
        ),
    )
}  # fmt: skip
"""Every built-in source by name."""
