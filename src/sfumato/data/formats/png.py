"""PNG beyond Pillow: check that all rows are there; read and write 16-bit colour; read the commonest kind at once.

**Rows.** A PNG's pixels are one compressed stream. Where the file is cut, decoders notice. Where the stream itself ends
early but properly (an interrupted writer, or malice), Pillow stops, reports nothing, and the missing rows
stay zero: a picture that is black from some height on. The stream's length is known from the header,

    sum over passes of rows x (1 + ceil(columns x bits a pixel / 8)),    the 1 for the filter's byte of each row,

one pass of all pixels, or the seven of Adam7 (PNG specification, second edition, sections 7.2 and 8.2), so it is
unpacked and counted, a megabyte at a time, and only where the last rows are zero.

**16 bits.** Pillow keeps 16 bits of grey; of colour and opacity it keeps the high byte. Here the rows are unpacked and
their filters undone: each byte is stored as its difference from a prediction from the bytes a of the pixel to the left,
b above, c above left (section 9.2: 0, a, b, (a + b) div 2, or Paeth's choice of a, b, c). A pixel depends on those
three only, so all pixels on a diagonal from lower left to upper right are undone at once.

**Plain files.** Most PNGs have 8 bits, one pass, and nothing beside their pixels that changes them. Their stream is
given to Pillow's decoder directly; opening them by `Image.open` would take as long again. The image is filled with an
unlikely colour before, so that missing rows show without unpacking the stream a second time. Whatever is not exactly
as expected is left to the general way.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sfumato.data.sources.protocol import File

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_START = _SIGNATURE + b"\0\0\0\rIHDR"
_HEADER, _CHUNK, _SUM = struct.Struct(">IIBBBBB"), struct.Struct(">I4s"), struct.Struct(">I")
HEADER_END = 33
"""Bytes up to the end of a PNG's first chunk, which has its size."""
_PLAIN = {0: ("L", b"\xfd"), 2: ("RGB", b"\xfd\x01\xfe"), 3: ("P", b"\xfd"), 6: ("RGBA", b"\xfd\x01\xfe\x01")}
"""By the kind of colour: Pillow's mode, and the unlikely colour."""
_WITHOUT_EFFECT = {b"PLTE", b"gAMA", b"cHRM", b"sRGB", b"pHYs", b"tIME", b"bKGD", b"sBIT", b"hIST"}
"""Chunks that don't change the pixels as they are read here, beside texts of these keywords (section 11.3.4.2)."""
_KEYWORDS = {
    b"Title", b"Author", b"Description", b"Copyright", b"Creation Time", b"Software", b"Disclaimer", b"Warning",
    b"Source", b"Comment", b"date:create", b"date:modify", b"date:timestamp",
}  # fmt: skip
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
"""Of each pass the first row and column, and the steps down and right."""
_STEP = 2**20


class _Png(NamedTuple):
    width: int
    height: int
    depth: int
    colour: int
    passes: tuple[tuple[int, int, int, int], ...]
    packed: bytes
    key: bytes

    @classmethod
    def of(cls, file: File) -> _Png:
        """Read the chunks; raises OSError, struct.error or KeyError on a damaged file."""
        chunks: dict[bytes, list[bytes]] = {b"IHDR": [], b"IDAT": [], b"tRNS": []}
        with file.open("rb") as stream:
            stream.seek(8)
            while len(head := stream.read(8)) == 8 and head[4:] != b"IEND":
                length, kind = struct.unpack(">I4s", head)
                if kind in chunks:
                    chunks[kind].append(stream.read(length))
                stream.seek(4 if kind in chunks else length + 4, 1)
        width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", chunks[b"IHDR"][0][:13])
        passes = _ADAM7 if interlaced else ((0, 0, 1, 1),)
        return cls(width, height, depth, colour, passes, b"".join(chunks[b"IDAT"]), b"".join(chunks[b"tRNS"][:1]))

    @property
    def length(self) -> int:
        """How many bytes the unpacked stream has."""
        bits = self.depth * _CHANNELS[self.colour]
        sizes = [(len(range(y, self.height, dy)), len(range(x, self.width, dx))) for y, x, dy, dx in self.passes]
        return sum(rows * (1 + -(-columns * bits // 8)) for rows, columns in sizes if columns)


def plain_size(head: bytes, most: int) -> tuple[int, int] | None:
    """Return (height, width) by the first `HEADER_END` bytes of a PNG that may be plain and has at most `most` pixels;
    None for other files."""
    if head[:16] != _START or len(head) < HEADER_END or zlib.crc32(head[12:29]) != _SUM.unpack_from(head, 29)[0]:
        return None
    width, height, depth, colour, *others = _HEADER.unpack_from(head, 16)
    if depth != 8 or colour not in _PLAIN or any(others) or not 0 < width * height <= most:
        return None
    return height, width


def read_plain(data: bytes, most: int) -> NDArray[np.uint8] | None:
    """Return the pixels (H, W, C) of a plain PNG of at most `most` pixels, C = 1 grey, 3 colour, 4 colour and opacity;
    None for other files, and for damaged ones."""
    size = plain_size(data[:HEADER_END], most)
    if size is None or (parts := _plain_parts(data)) is None:
        return None
    (height, width), (stream, palette), (mode, blank) = size, parts, _PLAIN[data[25]]
    image = Image.new(mode, (width, height), tuple(blank))
    try:
        image.frombytes(stream, "zip", mode, 0)
    except Exception:  # the general way says what is wrong
        return None
    raw = image.tobytes()
    if raw.endswith(blank * width):
        return None
    if mode == "P":
        if len(palette) % 3 or not 0 < len(palette) <= 768:
            return None
        image.putpalette(palette)
        raw = image.convert("RGB").tobytes()
    return np.frombuffer(raw, np.uint8).reshape(height, width, -1)


def _plain_parts(data: bytes) -> tuple[bytes, bytes] | None:
    """The packed stream and the palette of a file without other chunks that matter; None for any other."""
    stream, palette, last, at = list[bytes](), b"", b"", HEADER_END
    while len(data) - at >= 12:
        length, kind = _CHUNK.unpack_from(data, at)
        start, at = at + 8, at + length + 12
        if kind == b"IEND":
            return (stream[0] if len(stream) == 1 else b"".join(stream), palette) if stream else None
        if kind == b"IDAT":
            if stream and last != kind:
                return None
            stream.append(data[start : at - 4])
        elif kind in _WITHOUT_EFFECT or (kind == b"tEXt" and data[start : at - 4].partition(b"\0")[0] in _KEYWORDS):
            if at > len(data) or zlib.crc32(data[start - 4 : at - 4]) != _SUM.unpack_from(data, at - 4)[0]:
                return None
            if kind == b"PLTE":
                if stream:
                    return None
                palette = data[start : at - 4]
        else:
            return None
        last = kind
    return None


def rows_missing(file: File) -> bool:
    """Return whether a PNG's data unpack to fewer bytes than its header promises; raises OSError, struct.error,
    KeyError, IndexError or zlib.error where it is damaged in another way."""
    png = _Png.of(file)
    expected, packed, stream = png.length, png.packed, zlib.decompressobj()
    while packed and expected > 0:
        expected -= len(stream.decompress(packed, _STEP))
        packed = stream.unconsumed_tail
    return expected > 0 and expected - len(stream.flush()) > 0


def read_sixteen(file: File) -> NDArray[np.uint16] | None:
    """Return the pixels (H, W, C) of a PNG of 16 bits with colour or opacity; None for other files.

    C = 3 for colour; 2 and 4 for grey and colour with opacity, also where one value stands for transparent pixels
    (section 11.3.2).

    Raises:
        ValueError: too few data, or a filter that doesn't exist.
        OSError, struct.error, KeyError, IndexError, zlib.error: it is damaged in another way.
    """
    png = _Png.of(file)
    if png.depth != 16 or (png.colour == 0 and not png.key):
        return None
    channels = _CHANNELS[png.colour]
    raw = zlib.decompressobj().decompress(png.packed, png.length)
    if len(raw) < png.length:
        raise ValueError("its data end before its last row")
    pixels = np.zeros((png.height, png.width, channels), np.uint16)
    for y, x, down, right in png.passes:
        part = pixels[y::down, x::right]
        if part.size:
            count = part.shape[0] * (1 + 2 * channels * part.shape[1])
            part[...] = _unfiltered(raw[:count], *part.shape)
            raw = raw[count:]
    if not png.key or png.colour not in (0, 2):
        return pixels
    clear = (pixels == np.frombuffer(png.key[: 2 * channels], ">u2")).all(2, keepdims=True)
    return np.concatenate([pixels, np.where(clear, 0, 65535).astype(np.uint16)], axis=2)


def _unfiltered(raw: bytes, height: int, width: int, channels: int) -> NDArray[np.uint16]:
    """Undo the filters of the rows of one pass, (height, width, channels)."""
    rows = np.frombuffer(raw, np.uint8).reshape(height, 1 + 2 * channels * width)
    filters, stored = rows[:, 0], rows[:, 1:].reshape(height, width, 2 * channels).astype(np.int16)
    if (filters > 4).any():
        raise ValueError(f"filter {filters.max()} doesn't exist")
    out = np.zeros((height + 1, width + 1, 2 * channels), np.int16)  # a row above and a column to the left, of zeros
    if filters.max() <= 2:  # no prediction mixes rows and columns
        for k, row in enumerate(stored):
            out[k + 1, 1:] = (row.cumsum(0) if filters[k] == 1 else row + (filters[k] == 2) * out[k, 1:]) & 255
    else:
        for diagonal in range(height + width - 1):
            y = np.arange(max(0, diagonal - width + 1), min(height, diagonal + 1))
            x = diagonal - y
            guess = _guess(filters[y, None], out[y + 1, x], out[y, x + 1], out[y, x])
            out[y + 1, x + 1] = (stored[y, x] + guess) & 255
    return out[1:, 1:].astype(np.uint8).reshape(height, width, channels, 2).view(">u2")[..., 0].astype(np.uint16)


def _guess(
    filters: NDArray[np.uint8], a: NDArray[np.int16], b: NDArray[np.int16], c: NDArray[np.int16]
) -> NDArray[np.int16]:
    """The predictions of pixels' bytes: filters (n, 1), bytes (n, k) to the left, above, above left."""
    p = a + b - c
    to_a, to_b, to_c = abs(p - a), abs(p - b), abs(p - c)
    paeth = np.where((to_a <= to_b) & (to_a <= to_c), a, np.where(to_b <= to_c, b, c))
    return np.select([filters == 1, filters == 2, filters == 3, filters == 4], [a, b, (a + b) // 2, paeth], 0)


def encode(pixels: NDArray[np.uint16], text: Mapping[str, str] | None = None) -> bytes:
    """Return a PNG of 16 bits.

    Args:
        pixels: (H, W, C), C = 1 grey, 2 grey with opacity, 3 colour, 4 colour with opacity.
        text: facts for its text chunks.
    """
    height, width, channels = pixels.shape
    head = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    rows = np.ascontiguousarray(pixels, ">u2").view(np.uint8).reshape(height, -1)
    above = np.concatenate([np.zeros_like(rows[:1]), rows[:-1]])
    filtered = np.concatenate([np.full((height, 1), 2, np.uint8), rows - above], axis=1)  # each row against the last
    # keyword, end, uncompressed (2 bytes), no language, no translated keyword (section 11.3.4.5)
    notes = [
        (b"iTXt", key.encode("latin-1", "replace") + bytes(5) + said.encode()) for key, said in (text or {}).items()
    ]
    chunks = [(b"IHDR", head), *notes, (b"IDAT", zlib.compress(filtered.tobytes(), 6)), (b"IEND", b"")]
    return _SIGNATURE + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
