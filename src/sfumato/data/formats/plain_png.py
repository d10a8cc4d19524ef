"""The commonest picture of all in half the time: a PNG of 8 bits, grey or RGB, with nothing in it but its pixels.

Half of what Pillow takes for a small PNG is spent around the decoder: guessing the format, looking for chunks that
aren't there, reading the file by pieces. Where a file is nothing but IHDR, IDAT and IEND, none of that is needed, and
the same decoder is given the data at once. Whatever is the least bit different, or wrong, is left to `decode`, which
reads it or says why not; so this knows no reasons, and what it reads is what `decode` reads.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np
from PIL import Image

from sfumato.data.sources.protocol import MAX_PIXELS, Pixels

__all__ = ["read_plain"]

_HEAD = struct.Struct(">8sI4sIIBBBBBI")
_CHUNK = struct.Struct(">I4s")
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_MODES = {0: "L", 2: "RGB"}


def read_plain(data: bytes) -> Pixels | None:
    """Return the pixels (H, W, 1 or 3) of such a PNG; None for every other file."""
    if data[:8] != _SIGNATURE or len(data) < _HEAD.size:
        return None
    _, length, kind, width, height, depth, colour, packing, filters, interlaced, crc = _HEAD.unpack_from(data)
    if (length, kind, depth, packing, filters, interlaced) != (13, b"IHDR", 8, 0, 0, 0) or colour not in _MODES:
        return None
    if not 0 < width * height <= MAX_PIXELS or zlib.crc32(data[12:29]) != crc:
        return None
    if (packed := _packed(data)) is None:
        return None
    try:
        image = Image.frombytes(_MODES[colour], (width, height), packed, "zip", _MODES[colour], 0)
    except Exception:  # damaged in one of many ways; `decode` says which
        return None
    pixels = np.frombuffer(image.tobytes(), np.uint8).reshape(height, width, -1)
    ends_blank = not all(row.any() for row in pixels[-2:])  # black, or rows that never came (`png`)
    whole = not ends_blank or _unpacks_to(packed, height * (1 + pixels[0].size))
    return pixels if whole else None


def _unpacks_to(packed: bytes, length: int) -> bool:
    """Whether there are as many bytes as there should be, or more."""
    return len(zlib.decompressobj().decompress(packed, length)) == length


def _packed(data: bytes) -> bytes | None:
    """The data of all IDAT chunks; None where there are chunks of other kinds, or no end."""
    parts: list[bytes] = []
    place = _HEAD.size
    while place + _CHUNK.size <= len(data):
        length, kind = _CHUNK.unpack_from(data, place)
        if kind == b"IEND":
            return b"".join(parts) or None
        if kind != b"IDAT":
            return None
        parts.append(data[place + 8 : place + 8 + length])
        place += 12 + length
    return None
