"""Pictures written as files, by Pillow or byte by byte where Pillow can't; and read again."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass

import numpy as np
from PIL import Image

from sfumato.data import Source, Unreadable
from sfumato.data.formats.decode import read_picture
from sfumato.data.formats.fitting import converted, flattened
from sfumato.data.sources.protocol import File

SIGNATURE = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Case:
    """A file and what must become of it: `pixels` (H, W, 1 or 3), or None and a `reason`."""

    name: str
    data: bytes
    pixels: np.ndarray | None = None
    reason: str = ""
    tolerance: int = 0
    animated: bool = False


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    """An image as a file of a format."""
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def noise(k: int, side: int = 8) -> bytes:
    """A PNG of noise that no other number has."""
    return saved(Image.fromarray(np.random.default_rng(k).integers(0, 256, (side, side, 3), np.uint8)), "PNG")


def shown(file: File, background: str = "white") -> np.ndarray:
    """A file's picture as bytes over a background."""
    return converted(flattened(read_picture(file), background), "8")


def faults(source: Source) -> dict[str, str]:
    """Why each picture that can't be used can't, by its origin."""
    found = {}
    for i in range(len(source)):
        try:
            source.read(i)
        except Unreadable as fault:
            found[source.origin(i)] = fault.reason
    return found


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(
    width: int, height: int, raw: bytes, depth: int, colour: int, interlaced: bool = False, extra: bytes = b""
) -> bytes:
    """A PNG put together by hand from its unpacked rows, each behind its filter's byte."""
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    return SIGNATURE + chunk(b"IHDR", head) + extra + chunk(b"IDAT", zlib.compress(raw, 9)) + chunk(b"IEND", b"")


def rows(array: np.ndarray) -> bytes:
    """Rows of big-endian samples, unfiltered."""
    return b"".join(b"\0" + row.astype(array.dtype.newbyteorder(">")).tobytes() for row in array)


def adam7(array: np.ndarray) -> bytes:
    """The seven passes of an interlaced PNG."""
    starts = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
    return b"".join(rows(array[y::down, x::right]) for y, x, down, right in starts if array[y::down, x::right].size)


def packed(values: np.ndarray, depth: int) -> bytes:
    """Rows of samples of 1, 2 or 4 bits."""
    bits = np.unpackbits(values[..., None], axis=-1)[..., 8 - depth :].reshape(len(values), -1)
    return b"".join(b"\0" + row.tobytes() for row in np.packbits(bits, axis=1))


def over(colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Colour on white."""
    a = alpha[..., None].astype(float)
    three = np.broadcast_to(colour if colour.ndim == 3 else colour[..., None], (*alpha.shape, 3))
    return np.rint((a * three + (255 - a) * 255) / 255)
