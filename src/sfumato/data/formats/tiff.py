"""TIFF beyond Pillow: bands without a colour, several bands of 16 bits or floats, signed integers.

Satellites, microscopes and scanners write them. Pillow reads one band of unsigned integers or floats, and grey or
colour of 8 bits with or without opacity; of 16-bit colour it keeps the high byte, and it drops a fourth band whose
meaning is not given (`ExtraSamples` 0). Here the first page of such a file is read by the TIFF 6.0 specification
(sections 2, 7, 14, 15 and 19) and Adobe's technical note 3 (predictor 3): strips or tiles, bands interleaved or apart,
with or without differencing, uncompressed, deflated, or in a compression of bytes that Pillow's libtiff knows (LZW,
PackBits, LZMA, Zstandard). Everything else (JPEG, 12 bits, ...) is read by tifffile where it is installed, and refused
with the name of the extra where it is not.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from math import prod
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from sfumato.data.formats.npy import as_pixels, too_large
from sfumato.data.sources.protocol import MAX_PIXELS, File, Picture, Unreadable

_MARKS = {b"II*\0": 8, b"MM\0*": 8, b"II+\0": 16}
"""How a TIFF begins, and how long its first header is; the last is BigTIFF's, whose big-endian form Pillow lacks."""
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _MEANING = 256, 257, 258, 259, 262
_STRIPS, _ORIENTATION, _SAMPLES, _STRIP_ROWS, _STRIP_BYTES, _PLANAR = 273, 274, 277, 278, 279, 284
_PREDICTOR, _TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_BYTES, _EXTRA, _FORMAT = 317, 322, 323, 324, 325, 338, 339
_COLOURS = (3, 5, 6, 8)
"""Meanings of samples other than plain bands: a palette, inks, luma and chroma, CIE L*a*b*."""
_GREY, _RGB = (0, 1), 2
_MOST_BITS = 64
_STORED, _DEFLATED, _BYTES = 1, (8, 32946), (5, 32773, 34925, 50000)
"""Compressions: none; deflate; LZW, PackBits, LZMA, Zstandard, which pack bytes whatever these mean."""
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
        head = stream.read(4)
        head += stream.read(_MARKS[head] - 4)
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
        if not {_HEIGHT, _WIDTH, _MEANING} <= self.tags.keys():
            raise Unreadable("damaged: its header lacks the width, the height or the meaning of its bands")
        if len(self.all(_BITS)) not in (1, samples) or max(self.all(_BITS)) > _MOST_BITS:
            raise Unreadable("damaged: the depths in its header are not those of its bands")
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
        known = self.one(_COMPRESSION) in (_STORED, *_DEFLATED, *_BYTES)
        predictors = (1, 3) if self.one(_FORMAT) == 3 else (1, 2)
        return self.dtype is not None and known and self.one(_PREDICTOR) in predictors

    @property
    def is_usual(self) -> bool:
        """Whether Pillow gives every sample its meaning: grey, colour and opacity of 8 bits, one band of any."""
        samples, bits, kind = self.one(_SAMPLES), self.one(_BITS), _TYPES.get(self.one(_FORMAT), "?")
        if samples == 1:
            return f"{kind}{bits}" not in ("i8", "i16", "f16", "f64")
        meaning = self.one(_MEANING)
        if meaning in _COLOURS or (bits <= 8 and meaning not in (*_GREY, _RGB)):
            return samples <= 4
        colours = 3 if meaning == _RGB else 1
        opacity = self.one(_EXTRA, 0) != 0 or (samples == 4 and not self.all(_EXTRA))  # many leave the tag out
        return bits <= 8 and (samples == colours or (samples == colours + 1 and opacity))


def is_bands(file: File) -> bool:
    """Return whether a file is a TIFF that is read here and not by Pillow; a damaged one is left to Pillow to
    refuse."""
    try:
        with file.open("rb") as stream:
            if stream.read(4) not in _MARKS:
                return False
            page = _Page.of(stream)
        return not page.is_usual
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
        raw = _unpacked(raw, page.one(_COMPRESSION), shape[0], expected)
        if len(raw) < expected:
            raise Unreadable("damaged: its data end before its last row")
        if page.one(_PREDICTOR) == 3:
            block = _undifferenced(np.frombuffer(raw[:expected], np.uint8), shape, dtype)
        else:
            block = np.frombuffer(raw[:expected], dtype).reshape(shape)
            if page.one(_PREDICTOR) == 2:  # each sample is the difference from its left neighbour
                block = np.add.accumulate(block, axis=1, dtype=dtype.newbyteorder("="))
        yield top, left, group, block


def _unpacked(raw: bytes, compression: int, rows: int, expected: int) -> bytes:
    """The bytes of a block of so many rows, `expected` of them; raises anything on hostile bytes."""
    if compression == _STORED:
        return raw
    if compression in _DEFLATED:
        return zlib.decompressobj().decompress(raw, expected)
    # Pillow's libtiff unpacks the block as the only strip of a file of bytes
    tags = {_WIDTH: expected // rows, _HEIGHT: rows, _BITS: 8, _COMPRESSION: compression, _MEANING: 1}
    tags |= {_STRIPS: 8 + 2 + 12 * 9 + 4, _SAMPLES: 1, _STRIP_ROWS: rows, _STRIP_BYTES: len(raw)}
    fields = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags.items()))
    file = b"II*\0" + struct.pack("<IH", 8, len(tags)) + fields + struct.pack("<I", 0) + raw
    with Image.open(io.BytesIO(file), formats=("TIFF",)) as image:
        return image.tobytes()


def _undifferenced(raw: NDArray[np.uint8], shape: tuple[int, int, int], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Undo predictor 3: in each row the floats' first bytes, then their second ones, ..., as differences of bytes."""
    rows, columns, bands = shape
    summed = np.add.accumulate(raw.reshape(rows, -1, bands), axis=1, dtype=np.uint8)
    planes = summed.reshape(rows, dtype.itemsize, columns * bands).transpose(0, 2, 1)
    return np.ascontiguousarray(planes).view(dtype.newbyteorder(">")).reshape(shape)


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
