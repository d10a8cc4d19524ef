"""PNG of 16 bits, and plain files of 8: against rows filtered by the specification's words, and against Pillow."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from sfumato.data.formats.decode import header_size, read_picture
from sfumato.data.formats.png import encode, read_plain, read_sixteen
from sfumato.data.sources.protocol import Blob, Unreadable

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


# ---- plain files ----

SOFTWARE = chunk(b"tEXt", b"Software\0a camera") + chunk(b"gAMA", bytes(4))


def eight(colour: int, channels: int, extra: bytes = b"", **options: bool) -> tuple[np.ndarray, bytes]:
    """Noise of 7x5, and a PNG of it."""
    pixels = RNG.integers(0, 256, (5, 7, channels), np.uint8)
    return pixels, png(7, 5, rows(pixels), 8, colour, extra=extra, **options)


@pytest.mark.parametrize(("colour", "channels"), [(0, 1), (2, 3), (6, 4)])
def test_a_plain_file_is_read_without_opening_it_as_an_image(
    colour: int, channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels, data = eight(colour, channels, SOFTWARE)
    many = data.replace(data[data.index(b"IDAT") - 4 : -12], b"")  # the same stream in three chunks
    stream = data[data.index(b"IDAT") + 4 : -16]
    parts = [chunk(b"IDAT", part) for part in (stream[:9], b"", stream[9:])]
    many = many[:-12] + b"".join(parts) + many[-12:]
    monkeypatch.delattr(Image, "open")
    for file in (Blob(data), Blob(many)):
        assert header_size(file) == (5, 7)
        picture = read_picture(file)
        assert np.array_equal(picture.pixels, pixels)
        assert picture.alpha == (channels == 4)


@pytest.mark.parametrize("number", [1, 5, 256])
def test_a_palette_is_applied_as_pillow_does(number: int) -> None:
    indices, palette = RNG.integers(0, 256, (6, 7, 1), np.uint8), RNG.integers(0, 256, 3 * number, np.uint8).tobytes()
    data = png(7, 6, rows(indices), 8, 3, extra=chunk(b"PLTE", palette))
    wanted = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))  # with indices beyond the palette too
    assert np.array_equal(read_plain(data, 99), wanted)
    assert read_plain(png(7, 6, rows(indices), 8, 3), 99) is None


def test_what_is_not_plain_or_damaged_is_left_to_the_general_way() -> None:
    _, data = eight(2, 3, SOFTWARE)
    assert read_plain(data, 35) is not None
    assert read_plain(data, 34) is None, "too many pixels"
    blank = np.full((2, 7, 3), (253, 1, 254), np.uint8)  # the colour that missing rows would have
    at = data.index(b"gAMA")
    others = {
        "another kind": (b"\xff\xd8" + data),
        "16 bits": png(7, 5, rows(np.ones((5, 7, 3), np.uint16)), 16, 2),
        "grey with opacity": eight(4, 2)[1],
        "no pixels": png(0, 5, b"", 8, 2),
        "interlaced": png(7, 5, adam7(np.ones((5, 7, 3), np.uint8)), 8, 2, interlaced=True),
        "a transparent colour": eight(2, 3, chunk(b"tRNS", bytes(6)))[1],
        "an orientation": eight(2, 3, chunk(b"eXIf", b"MM"))[1],
        "a profile": eight(2, 3, chunk(b"iCCP", b"x"))[1],
        "an orientation in a text": eight(2, 3, chunk(b"tEXt", b"Raw profile type exif\0"))[1],
        "animated": eight(2, 3, chunk(b"acTL", bytes(8)))[1],
        "a wrong sum of the header": data[:29] + b"\0\0\0\0" + data[33:],
        "a wrong sum of another chunk": data[: at + 8] + b"\0\0\0\0" + data[at + 12 :],
        "cut": data[:-20],
        "without an end": data[:-12],
        "two streams": data[:-12] + chunk(b"tIME", bytes(7)) + chunk(b"IDAT", b"x") + data[-12:],
        "rows missing": png(7, 6, rows(np.ones((5, 7, 3), np.uint8)), 8, 2),
        "an unlikely last row": png(7, 2, rows(blank), 8, 2),
        "a filter that doesn't exist": png(7, 1, b"\5" + bytes(21), 8, 2),
    }
    assert {name: read_plain(other, 99) for name, other in others.items()} == dict.fromkeys(others)
    assert np.array_equal(read_picture(Blob(others["an unlikely last row"])).pixels, blank)
    with pytest.raises(Unreadable, match="its data end before its last row"):
        read_picture(Blob(others["rows missing"]))
