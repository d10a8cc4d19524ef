"""A finished store, opened.

    images.npy      (N, C, H, W) uint8, uint16 or float32
    conditions.npy  (N, A) float32, what is known of each image; NaN where it is not given
    digests.npy     (N, 32) uint8, the SHA-256 of each image
    origins.txt     a line an image: where it comes from
    index.json      shape, size, depth, attributes, what was left out and why, notes

The columns are files of their own because a million rows of JSON take seconds to read; these take a few tenths.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sfumato.codec import format as depths
from sfumato.codec.format import EIGHT, PixelFormat
from sfumato.conditions.attributes import Attribute, from_plain
from sfumato.data.sources.protocol import Pixels

__all__ = ["Stored", "load"]


@dataclass(frozen=True, eq=False)
class Stored:
    """An opened store.

    Attributes:
        images: (N, C, H, W), values of the depth, mapped read-only.
        size: (height, width) of an image, smaller than a row's where it is to be cut out of it.
        conditions: (N, A) float32, NaN where not given.
        digests: N times 64 hexadecimal digits.
        origins: where each row comes from.
        attributes: what the source knows of its pictures; values that none of them has are left out.
        quarantined: (origin, reason) of every picture left out.
        notes: what was chosen and met, in sentences.
        depth: what the values are; of floats, from the least to the greatest that there is.
    """

    images: Pixels
    size: tuple[int, int]
    conditions: NDArray[np.float32]
    digests: tuple[str, ...]
    origins: tuple[str, ...]
    attributes: tuple[Attribute, ...]
    quarantined: list[tuple[str, str]]
    notes: tuple[str, ...]
    depth: PixelFormat = EIGHT


def load(entry: Path) -> Stored | None:
    """Open a store, None where there is none or it is damaged.

    Raises:
        OSError: it is there and can't be read.
    """
    try:
        index = json.loads((entry / "index.json").read_text("utf-8"))
        images = np.load(entry / "images.npy", mmap_mode="r", allow_pickle=False)
        conditions = np.load(entry / "conditions.npy", allow_pickle=False)
        digests = np.load(entry / "digests.npy", allow_pickle=False)
        origins = (entry / "origins.txt").read_text("utf-8").split("\n")
        shape, attributes = tuple(index["shape"]), tuple(from_plain(table) for table in index["attributes"])
        depth = depths.from_plain(index["depth"])
        if images.shape != shape or images.dtype != depth.dtype or digests.shape != (shape[0], 32):
            return None
        if conditions.shape != (shape[0], len(attributes)) or conditions.dtype != np.float32:
            return None
        if len(origins) != shape[0] + 1 or origins.pop():
            return None
        digits = digests.tobytes().hex()
        return Stored(
            images=images,
            size=(int(index["size"][0]), int(index["size"][1])),
            conditions=conditions,
            digests=tuple(digits[start : start + 64] for start in range(0, len(digits), 64)),
            origins=tuple(origins),
            attributes=attributes,
            quarantined=[(origin, reason) for origin, reason in index["quarantined"]],
            notes=tuple(index["notes"]),
            depth=depth,
        )
    except (FileNotFoundError, EOFError, ValueError, KeyError, TypeError):
        return None
