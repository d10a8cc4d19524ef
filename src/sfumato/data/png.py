"""Does a PNG hold all of its rows? Pillow doesn't ask.

A PNG's pixels are one compressed stream. Where the file is cut, decoders notice. Where the stream itself ends early but
properly (a writer that died and tidied up, or somebody's malice), Pillow stops decoding, reports nothing, and the rows
that never came stay zero: a picture that is black from some height on. The stream's length is known from the header,

    sum over passes of rows x (1 + ceil(columns x bits a pixel / 8)),    the 1 for the filter's byte of each row,

one pass of all pixels, or the seven of Adam7 (PNG specification, second edition, sections 7.2 and 8.2), so it is
unpacked and counted, a megabyte at a time, and only where the last rows are zero and the question arises.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

__all__ = ["rows_missing"]

_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
"""Of each pass the first row and column, and the steps down and right."""
_STEP = 2**20


def rows_missing(path: Path) -> bool:
    """Return whether a PNG's data unpack to fewer bytes than its header promises.

    Args:
        path: a file that begins as a PNG does.

    Raises:
        OSError, struct.error, KeyError, zlib.error: it is damaged in another way.
    """
    with path.open("rb") as file:
        file.seek(8)
        _, head = next(_chunks(file))
        width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", head[:13])
        wanted = _length(width, height, depth * _CHANNELS[colour], bool(interlaced))
        stream = zlib.decompressobj()
        for kind, data in _chunks(file):
            if kind != b"IDAT":
                continue
            while data and wanted > 0:
                wanted -= len(stream.decompress(data, _STEP))
                data = stream.unconsumed_tail
            if wanted <= 0:
                return False
        return wanted - len(stream.flush()) > 0


def _length(width: int, height: int, bits: int, interlaced: bool) -> int:
    """How many bytes the unpacked stream has."""
    passes = _ADAM7 if interlaced else ((0, 0, 1, 1),)
    sizes = ((len(range(y, height, down)), len(range(x, width, right))) for y, x, down, right in passes)
    return sum(rows * (1 + -(-columns * bits // 8)) for rows, columns in sizes if columns)


def _chunks(file: IO[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """(kind, data) of each chunk from here to the end; of kinds other than the header and pixels, no data."""
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        data = file.read(length) if kind in (b"IHDR", b"IDAT") else b""
        file.seek(length - len(data) + 4, 1)
        yield kind, data
        if kind == b"IEND":
            return
