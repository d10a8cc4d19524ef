"""TIFF beyond Pillow: more than four bands, and several bands of 16 bits or floats.

Satellites and microscopes write them. Pillow reads one band of any depth, and up to four of 8 bits; of 16-bit colour it
keeps the high byte. Here the first page of such a file is read by the TIFF 6.0 specification (sections 2, 7, 14, 15 and
19): uncompressed or deflated (compressions 1, 8 and 32946), strips or tiles, bands interleaved or apart, with or
without horizontal differencing (predictor 2). Everything else (LZW, floating-point differencing, 12 bits, ...) is read
by tifffile where it is installed, and refused with the name of the extra where it is not.
"""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from math import prod
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from sfumato.data.formats.npy import as_pixels, too_large
from sfumato.data.sources.protocol import MAX_PIXELS, File, Picture, Unreadable

_MARKS = (b"II*\0", b"MM\0*")
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _MEANING = 256, 257, 258, 259, 262
_STRIPS, _ORIENTATION, _SAMPLES, _STRIP_ROWS, _STRIP_BYTES, _PLANAR = 273, 274, 277, 278, 279, 284
_PREDICTOR, _TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_BYTES, _EXTRA, _FORMAT = 317, 322, 323, 324, 325, 338, 339
_COLOURS = (5, 6, 8)
"""Meanings of samples other than plain bands: inks, luma and chroma, CIE L*a*b*."""
_TYPES = {1: "u", 2: "i", 3: "f"}
_READ = {*(f"{kind}{size}" for kind in "ui" for size in (1, 2, 4)), "f2", "f4", "f8"}


@dataclass(frozen=True)
class _Page:
    """The first directory of a file, the byte order, and the offset of the next directory."""

    tags: dict[int, Any]
    order: str
    following: int

    @classmethod
    def of(cls, stream: IO[bytes]) -> _Page:
        """Read it; raises anything on hostile bytes."""
        stream.seek(0)
        head = stream.read(8)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about damage, which is checked below
            page = ImageFileDirectory_v2(head)
            stream.seek(page.next)
            page.load(stream)
            return cls(dict(page), "<" if head[:1] == b"I" else ">", page.next)

    def all(self, tag: int) -> tuple[Any, ...]:
        """All numbers of a tag."""
        value = self.tags.get(tag, ())
        return value if isinstance(value, tuple) else (value,)

    def one(self, tag: int, default: int = 1) -> int:
        """The first number of a tag."""
        return int((self.all(tag) or (default,))[0])

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, samples); raises `Unreadable`."""
        height, width, samples = shape = self.one(_HEIGHT), self.one(_WIDTH), self.one(_SAMPLES)
        if min(shape) < 1 or too_large(shape):
            raise Unreadable(f"too large: {width}x{height} of {samples} bands")
        return shape

    @property
    def dtype(self) -> np.dtype[Any] | None:
        """The type of all samples; None for one that needs the extra."""
        kind = f"{_TYPES.get(self.one(_FORMAT), '?')}{self.one(_BITS) // 8}"
        plain = len({*self.all(_BITS)}) == 1 and self.one(_BITS) % 8 == 0 and kind in _READ
        return np.dtype(self.order + kind) if plain else None

    @property
    def plain(self) -> bool:
        """Whether it is read here."""
        most = 1 if self.one(_FORMAT) == 3 else 2
        return self.dtype is not None and self.one(_COMPRESSION) in (1, 8, 32946) and self.one(_PREDICTOR) <= most


def is_bands(file: File) -> bool:
    """Return whether a file is a TIFF that is read here and not by Pillow; a damaged one is left to Pillow to
    refuse."""
    try:
        with file.open("rb") as stream:
            if stream.read(4) not in _MARKS:
                return False
            page = _Page.of(stream)
        samples, deep = page.one(_SAMPLES), page.one(_BITS) > 8
        return samples > 4 or (samples > 1 and deep and page.one(_MEANING) not in _COLOURS)
    except Exception:  # Pillow's parser raises anything on hostile bytes
        return False


def bands_size(file: File) -> tuple[int, int]:
    """Return (height, width) from the header, turned as the orientation says; raises `Unreadable`."""
    with file.open("rb") as stream:
        page = _Page.of(stream)
    height, width, _ = page.shape
    return (width, height) if 5 <= page.one(_ORIENTATION) <= 8 else (height, width)


def read_bands(file: File) -> tuple[Picture, int]:
    """Return the first page and its orientation (tag 274), which is still to be undone; raises `Unreadable`."""
    with file.open("rb") as stream:
        page = _Page.of(stream)
        height, width, samples = page.shape
        out: NDArray[Any]
        if page.plain:
            out = np.zeros((height, width, samples), page.dtype)
            for top, left, bands, block in _blocks(stream, page):
                part = out[top : top + block.shape[0], left : left + block.shape[1], bands]
                part[...] = block[: part.shape[0], : part.shape[1]]
        else:
            out = _by_tifffile(stream, page)
    pixels = as_pixels(out)
    alpha = samples in (2, 4) and pixels.dtype == np.uint16 and page.one(_EXTRA, 0) in (1, 2)
    return Picture(pixels, animated=bool(page.following), alpha=alpha), page.one(_ORIENTATION)


def _blocks(stream: IO[bytes], page: _Page) -> Iterator[tuple[int, int, slice, NDArray[Any]]]:
    """Yield each strip or tile: top, left, which bands, and its samples (rows, columns, bands); raises `Unreadable`."""
    (height, width, samples), dtype = page.shape, page.dtype
    assert dtype is not None
    tiled = _TILES in page.tags
    rows = page.one(_TILE_HEIGHT, 0) if tiled else min(height, page.one(_STRIP_ROWS, height))
    columns = page.one(_TILE_WIDTH, 0) if tiled else width
    if not (0 < rows <= 2 * MAX_PIXELS and columns > 0 and rows * columns <= 2 * MAX_PIXELS):
        raise Unreadable("damaged: blocks of no size")
    groups = [slice(k, k + 1) for k in range(samples)] if page.one(_PLANAR) == 2 else [slice(0, samples)]
    corners = [(g, top, left) for g in groups for top in range(0, height, rows) for left in range(0, width, columns)]
    starts, lengths = (page.all(tag) for tag in ((_TILES, _TILE_BYTES) if tiled else (_STRIPS, _STRIP_BYTES)))
    if min(len(starts), len(lengths)) < len(corners):
        raise Unreadable("damaged: its strips don't reach its last row")
    for start, length, (group, top, left) in zip(starts, lengths, corners, strict=False):
        shape = (rows if tiled else min(rows, height - top), columns, group.stop - group.start)
        stream.seek(start)
        raw, expected = stream.read(length), prod(shape) * dtype.itemsize
        if page.one(_COMPRESSION) != 1:
            raw = zlib.decompressobj().decompress(raw, expected)
        if len(raw) < expected:
            raise Unreadable("damaged: its data end before its last row")
        block = np.frombuffer(raw[:expected], dtype).reshape(shape)
        if page.one(_PREDICTOR) == 2:  # each sample is the difference from its left neighbour
            block = np.add.accumulate(block, axis=1, dtype=dtype.newbyteorder("="))
        yield top, left, group, block


def _by_tifffile(stream: IO[bytes], page: _Page) -> NDArray[Any]:
    """The samples (H, W, C) of a page that is not read here; raises `Unreadable`, and what tifffile raises."""
    try:
        tifffile = import_module("tifffile")
    except ImportError:
        raise Unreadable(
            f"bands of {page.one(_BITS)} bits with compression {page.one(_COMPRESSION)} and predictor "
            f"{page.one(_PREDICTOR)} need tifffile: pip install 'sfumato[tiff]', or save them uncompressed or as .npy"
        ) from None
    stream.seek(0)
    with tifffile.TiffFile(stream) as file:
        samples: NDArray[Any] = file.pages[0].asarray(maxworkers=1)
    samples = samples.transpose(1, 2, 0) if page.one(_PLANAR) == 2 else samples
    if samples.shape != page.shape:
        raise Unreadable("damaged: its bands have another shape than its header says")
    return samples
