"""PNG of 16 bits: against rows filtered by the specification's own words, and against Pillow's reading."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from sfumato.data.formats.png import encode, read_sixteen
from sfumato.data.sources.protocol import Blob

from .encode import adam7, chunk, png, rows

RNG = np.random.default_rng(0)


def paeth(a: int, b: int, c: int) -> int:
    """The predictor as section 9.4 has it."""
    p = a + b - c
    pa, pb, pc = abs(p - a), abs(p - b), abs(p - c)
    if pa <= pb and pa <= pc:
        return a
    return b if pb <= pc else c


GUESSES: list[Callable[[int, int, int], int]] = [
    lambda a, b, c: 0, lambda a, b, c: a, lambda a, b, c: b, lambda a, b, c: (a + b) // 2, paeth,
]  # fmt: skip


def filtered(pixels: np.ndarray, filters: list[int]) -> bytes:
    """Rows as bytes, row y by filter y, byte by byte."""
    height, width, channels = pixels.shape
    data = pixels.astype(">u2").tobytes()
    stride, step, out = 2 * width * channels, 2 * channels, bytearray()
    for y in range(height):
        out.append(filters[y])
        for x in range(stride):
            here = y * stride + x
            a = data[here - step] if x >= step else 0
            b = data[here - stride] if y else 0
            c = data[here - stride - step] if y and x >= step else 0
            out.append((data[here] - GUESSES[filters[y]](a, b, c)) % 256)
    return bytes(out)


@pytest.mark.parametrize(
    "filters", [[0] * 7, [1] * 7, [2] * 7, [1, 2, 0, 2, 1, 1, 2], [3] * 7, [4] * 7, [4, 0, 3, 1, 2, 4, 3]]
)
@pytest.mark.parametrize(("colour", "channels"), [(2, 3), (4, 2), (6, 4)])
def test_filters_are_undone(filters: list[int], colour: int, channels: int) -> None:
    few = (RNG.integers(0, 3, (7, 5, channels)) * 128).astype(np.uint16)  # where guesses are often equally near
    assert np.array_equal(read_sixteen(Blob(png(5, 7, filtered(few, filters), 16, colour))), few)
    pixels = RNG.integers(0, 65536, (7, 5, channels)).astype(np.uint16)
    file = Blob(png(5, 7, filtered(pixels, filters), 16, colour))
    got = read_sixteen(file)
    assert np.array_equal(got, pixels)
    high = np.asarray(Image.open(io.BytesIO(file.data)))  # Pillow undoes the filters by itself and keeps the high byte
    assert np.array_equal(high if colour != 4 else high[..., [0, 3]], pixels >> 8)


def test_interlaced_and_with_a_clear_colour() -> None:
    pixels = RNG.integers(0, 65536, (11, 9, 3)).astype(np.uint16)
    assert np.array_equal(read_sixteen(Blob(png(9, 11, adam7(pixels), 16, 2, interlaced=True))), pixels)
    key = chunk(b"tRNS", pixels[4, 5].astype(">u2").tobytes())
    got = read_sixteen(Blob(png(9, 11, rows(pixels), 16, 2, extra=key)))
    assert got is not None
    assert np.argwhere(got[..., 3] == 0).tolist() == [[4, 5]]
    assert got[..., 3].max() == 65535


def test_others_are_pillows_affair() -> None:
    grey = RNG.integers(0, 65536, (3, 3, 1)).astype(np.uint16)
    assert read_sixteen(Blob(png(3, 3, rows(grey), 16, 0))) is None
    assert read_sixteen(Blob(png(3, 3, rows(np.zeros((3, 3, 3), np.uint8)), 8, 2))) is None


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_what_is_written_is_read(channels: int) -> None:
    pixels = RNG.integers(0, 65536, (13, 21, channels)).astype(np.uint16)
    content = encode(pixels, {"seed": "7", "label": "Größe"})
    Image.open(io.BytesIO(content)).verify()  # the sums of its chunks
    image = Image.open(io.BytesIO(content))
    values = np.asarray(image)
    assert image.text == {"seed": "7", "label": "Größe"}
    if channels == 1:
        assert np.array_equal(values, pixels[..., 0])
    else:
        assert np.array_equal(values if channels != 2 else values[..., [0, 3]], pixels >> 8)
        assert np.array_equal(read_sixteen(Blob(content)), pixels)


@pytest.mark.parametrize("raw", [b"\5" + bytes(18), bytes(10)])
def test_damage_is_an_error(raw: bytes) -> None:
    with pytest.raises(ValueError, match=r"filter 5|before its last row"):
        read_sixteen(Blob(png(3, 1, raw, 16, 2)))
