"""TIFF where Pillow falls short: more bands than a picture has, and colour of 16 bits or floats.

Satellites and microscopes write them. Pillow reads one band of any depth, and bytes of up to four; of more bands it
reads none, and of 16-bit colour the high byte. Here the first page of such a file is read by the TIFF 6.0 specification
(sections 2, 7, 14, 15 and 19): unpacked or deflated (compressions 1, 8 and 32946), strips or tiles, bands beside one
another or one after another, with or without horizontal differencing (predictor 2). What else there is, LZW above all,
is refused in a word that says how to save it instead. Numbers become pixels as `arrays` has it.
"""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Iterator
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from sfumato.config.data import MOST_CHANNELS
from sfumato.data.sources.arrays import as_pixels
from sfumato.data.sources.protocol import MAX_PIXELS, File, Picture, Unreadable

__all__ = ["bands_size", "is_bands", "read_bands"]

_MARKS = (b"II*\0", b"MM\0*")
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _MEANING = 256, 257, 258, 259, 262
_STRIPS, _ORIENTATION, _SAMPLES, _STRIP_ROWS, _STRIP_BYTES, _PLANAR = 273, 274, 277, 278, 279, 284
_PREDICTOR, _TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_BYTES, _EXTRA, _FORMAT = 317, 322, 323, 324, 325, 338, 339
_COLOURS = (5, 6, 8)
"""Meanings of samples that are no plain bands: inks, luma and chroma, CIE L*a*b*."""
_NEXT = -1
_KINDS = {1: "u", 2: "i", 3: "f"}

Tags = dict[int, Any]
"""What a directory says, by the number of the tag."""


def is_bands(file: File) -> bool:
    """Return whether a file is a TIFF that is read here and not by Pillow; what is damaged is Pillow's to refuse."""
    try:
        with file.open("rb") as stream:
            if stream.read(4) not in _MARKS:
                return False
            tags, _ = _directory(stream)
        samples, bits = _one(tags, _SAMPLES, 1), _bits(tags)
        return samples > 4 or (samples > 1 and bits > 8 and _one(tags, _MEANING, 1) not in _COLOURS)
    except Exception:  # Pillow's parser raises anything on hostile bytes
        return False


def bands_size(file: File) -> tuple[int, int]:
    """Return (height, width) from the header, turned as the orientation says; raises `Unreadable`."""
    with file.open("rb") as stream:
        tags, _ = _directory(stream)
    height, width, _ = _checked(tags)
    return (width, height) if 5 <= _one(tags, _ORIENTATION, 1) <= 8 else (height, width)


def read_bands(file: File) -> tuple[Picture, int]:
    """Return the first page and its orientation (tag 274), which is still to be undone.

    Raises:
        Unreadable: a form that is not read here, too many pixels, or damaged.
    """
    with file.open("rb") as stream:
        tags, order = _directory(stream)
        height, width, samples = _checked(tags)
        dtype = np.dtype(f"{order}{_kind(tags)}{_bits(tags) // 8}")
        out = np.zeros((height, width, samples), dtype)
        for top, left, plane, block in _blocks(stream, tags, dtype):
            part = out[top : top + block.shape[0], left : left + block.shape[1], plane]
            part[...] = block[: part.shape[0], : part.shape[1]]
    alpha = samples in (2, 4) and _one(tags, _EXTRA, 0) in (1, 2)
    picture = Picture(as_pixels(out), animated=bool(tags[_NEXT]), alpha=alpha)
    return picture, int(_one(tags, _ORIENTATION, 1))


def _directory(stream: IO[bytes]) -> tuple[Tags, str]:
    """The first page's tags, where the next page is under `_NEXT`, and the order of bytes."""
    stream.seek(0)
    head = stream.read(8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of damage, which is found out where it matters
        page = ImageFileDirectory_v2(head)
        stream.seek(page.next)
        page.load(stream)
        tags = dict(page)
    tags[_NEXT] = page.next
    return tags, "<" if head[:1] == b"I" else ">"


def _one(tags: Tags, tag: int, default: int) -> int:
    """The first number of a tag."""
    value = tags.get(tag, default)
    return int(value[0] if isinstance(value, tuple) else value)


def _all(tags: Tags, tag: int) -> tuple[int, ...]:
    """All numbers of a tag."""
    value = tags.get(tag, ())
    return value if isinstance(value, tuple) else (value,)


def _bits(tags: Tags) -> int:
    """Bits of a sample."""
    return _one(tags, _BITS, 1)


def _kind(tags: Tags) -> str:
    """What numbers samples are, as numpy calls it."""
    return _KINDS.get(_one(tags, _FORMAT, 1), "?")


def _checked(tags: Tags) -> tuple[int, int, int]:
    """(height, width, samples) of a page of a form that is read here; raises `Unreadable`."""
    height, width, samples = (_one(tags, tag, 1) for tag in (_HEIGHT, _WIDTH, _SAMPLES))
    if not (
        0 < height * width <= MAX_PIXELS and samples <= MOST_CHANNELS and height * width * samples <= 4 * MAX_PIXELS
    ):
        raise Unreadable(f"too large: {width}x{height} of {samples} bands")
    bits, kind, packing = _bits(tags), _kind(tags), _one(tags, _COMPRESSION, 1)
    if len({*_all(tags, _BITS)}) > 1 or (kind, bits) not in {(k, b) for k in "ui" for b in (8, 16, 32)} | {
        ("f", 16), ("f", 32), ("f", 64),
    }:  # fmt: skip
        raise Unreadable(f"bands of {bits} bits have no rule: save them with 8, 16 or 32, or as .npy")
    if packing not in (1, 8, 32946) or _one(tags, _PREDICTOR, 1) > (2 if kind != "f" else 1):
        raise Unreadable(f"bands of compression {packing} are not read: save them uncompressed or deflated, or as .npy")
    return height, width, samples


def _blocks(stream: IO[bytes], tags: Tags, dtype: np.dtype[Any]) -> Iterator[tuple[int, int, slice, NDArray[Any]]]:
    """Yield each strip or tile: top, left, which bands, and its samples (rows, columns, bands); raises `Unreadable`."""
    height, width, samples = _checked(tags)
    apart, tiled = _one(tags, _PLANAR, 1) == 2, _TILES in tags
    rows = _one(tags, _TILE_HEIGHT, 0) if tiled else min(height, _one(tags, _STRIP_ROWS, height))
    columns = _one(tags, _TILE_WIDTH, 0) if tiled else width
    if not (0 < rows <= 2 * MAX_PIXELS and columns > 0 and rows * columns <= 2 * MAX_PIXELS):
        raise Unreadable("damaged: blocks of no size")
    places = [(top, left) for top in range(0, height, rows) for left in range(0, width, columns)]
    groups = [slice(k, k + 1) for k in range(samples)] if apart else [slice(0, samples)]
    starts, lengths = (_all(tags, tag) for tag in ((_TILES, _TILE_BYTES) if tiled else (_STRIPS, _STRIP_BYTES)))
    if min(len(starts), len(lengths)) < len(places) * len(groups):
        raise Unreadable("damaged: its strips don't reach its last row")
    for k, (group, (top, left)) in enumerate((group, place) for group in groups for place in places):
        shape = (rows if tiled else min(rows, height - top), columns, group.stop - group.start)
        stream.seek(starts[k])
        packed, wanted = stream.read(lengths[k]), int(np.prod(shape)) * dtype.itemsize
        raw = packed if _one(tags, _COMPRESSION, 1) == 1 else zlib.decompressobj().decompress(packed, wanted)
        if len(raw) < wanted:
            raise Unreadable("damaged: its data end before its last row")
        block = np.frombuffer(raw[:wanted], dtype).reshape(shape)
        if _one(tags, _PREDICTOR, 1) == 2:  # each sample is the difference from its neighbour to the left
            block = np.add.accumulate(block, axis=1, dtype=dtype.newbyteorder("="))
        yield top, left, group, block
