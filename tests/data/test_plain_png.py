"""The short way through a plain PNG gives what the long way gives, or nothing."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from sfumato.data.formats import decode
from sfumato.data.formats.decode import read_picture
from sfumato.data.formats.plain_png import read_plain
from sfumato.data.sources.protocol import Blob, Picture, Unreadable

from .encode import chunk, png, rows

RNG = np.random.default_rng(11)
Slow = Callable[[bytes], Picture]


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Slow:
    """Decoding without the short way."""
    monkeypatch.setattr(decode, "read_plain", lambda data: None)
    return lambda data: read_picture(Blob(data), "white", native=True)


def smooth(height: int, width: int, channels: int) -> np.ndarray:
    """A picture for which encoders choose many filters."""
    y, x = np.mgrid[:height, :width]
    noise = RNG.integers(0, 9, (height, width, channels))
    return (np.stack([5 * x + 3 * y * (k + 1) for k in range(channels)], -1) + noise + 1).astype(np.uint8)


def saved(pixels: np.ndarray, **options: object) -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(content, "PNG", **options)
    return content.getvalue()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(1, 1), (1, 70), (70, 1), (2, 3), (64, 64), (33, 47)])
@pytest.mark.parametrize("level", [0, 1, 9])
def test_plain_pictures_come_back_exactly(channels: int, size: tuple[int, int], level: int) -> None:
    pixels = smooth(*size, channels)
    found = read_plain(saved(pixels, compress_level=level))
    assert found is not None
    np.testing.assert_array_equal(found, pixels)


def test_many_chunks_of_data_are_one() -> None:
    data = saved(smooth(64, 64, 3))
    start, length = 33, int.from_bytes(data[33:37], "big")
    packed = data[41 : 41 + length]
    cut = data[:start] + b"".join(chunk(b"IDAT", packed[k : k + 100]) for k in range(0, length, 100)) + data[-12:]
    np.testing.assert_array_equal(read_plain(cut), smooth_of(data))  # type: ignore[arg-type]


def smooth_of(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


def test_black_below_is_read_and_rows_that_never_came_are_not() -> None:
    pixels = smooth(20, 30, 3)
    pixels[-5:] = 0
    np.testing.assert_array_equal(read_plain(saved(pixels)), pixels)  # type: ignore[arg-type]
    short = png(30, 20, rows(pixels)[: 91 * 15], 8, 2)
    assert read_plain(short) is None
    with pytest.raises(Unreadable, match="before its last row"):
        read_picture(Blob(short), "white")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x89PNG\r\n\x1a\n",
        saved(smooth(9, 9, 3))[:-13],
        saved(smooth(9, 9, 3))[:60],
        saved(smooth(9, 9, 3)).replace(b"IDAT", b"IDAX"),
        saved(smooth(9, 9, 3), dpi=(72, 72)),
        png(4, 4, rows(np.ones((4, 4), np.uint16)), 16, 0),
        png(4, 4, b"\0\xff" * 4, 1, 0),
        png(9000, 9000, b"\0", 8, 0),
        png(0, 4, b"\0", 8, 0),
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", bytes(13)) + chunk(b"IEND", b""),
    ],
)
def test_everything_else_is_left_to_the_long_way(data: bytes) -> None:
    assert read_plain(data) is None


def test_what_it_reads_of_changed_bytes_is_what_the_long_way_reads(slow: Slow) -> None:
    read = 0
    for channels in (1, 3):
        data = saved(smooth(12, 10, channels))
        for _ in range(1500):
            changed = bytearray(data)
            changed[RNG.integers(0, len(data))] = RNG.integers(0, 256)
            found = read_plain(bytes(changed))
            if found is not None:
                np.testing.assert_array_equal(found, slow(bytes(changed)).pixels)
                read += 1
    assert read > 100  # checksums that nobody compares: as Pillow has it
