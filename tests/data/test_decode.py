"""What the corpus doesn't ask: other backgrounds, bombs seen in time, the cap itself."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sfumato.data.formats.decode import MAX_PIXELS, header_size, read_picture
from sfumato.data.sources.protocol import Blob, Unreadable

from .encode import chunk, png, saved, shown

RNG = np.random.default_rng(7)
RGB = RNG.integers(0, 256, (6, 9, 3), dtype=np.uint8)
GREY = RNG.integers(0, 256, (6, 9), dtype=np.uint8)


def over(colour: np.ndarray, alpha: np.ndarray, background: tuple[int, int, int]) -> np.ndarray:
    a = alpha[..., None].astype(float)
    return (a * colour + (255 - a) * np.array(background)) / 255


@pytest.mark.parametrize(("name", "background"), [("white", (255, 255, 255)), ("#204060", (32, 64, 96))])
def test_transparent_colour_lies_on_the_background(name: str, background: tuple[int, int, int]) -> None:
    alpha = np.resize(np.array([0, 1, 64, 128, 200, 254, 255], np.uint8), (6, 9))
    file = Blob(saved(Image.fromarray(np.dstack([RGB, alpha])), "PNG"))
    got = shown(file, name)
    assert np.abs(got - over(RGB, alpha, background)).max() <= 1
    assert np.array_equal(got[alpha == 0], np.broadcast_to(background, got[alpha == 0].shape))
    assert np.array_equal(got[alpha == 255], RGB[alpha == 255])
    whole = read_picture(file)
    assert whole.alpha
    assert np.array_equal(whole.pixels, np.dstack([RGB, alpha]))


def test_transparent_grey_lies_on_the_background() -> None:
    alpha = np.resize(np.array([0, 128, 255], np.uint8), (6, 9))
    got = shown(Blob(saved(Image.fromarray(np.dstack([GREY, alpha]), "LA"), "PNG")), "#ff0000")
    assert np.abs(got - over(GREY[..., None].repeat(3, 2), alpha, (255, 0, 0))).max() <= 1


def test_one_transparent_colour_of_an_opaque_mode() -> None:
    """PNG's tRNS chunk: for RGB one colour, for a palette one entry, for grey one level is transparent."""
    key = tuple(int(v) for v in RGB[2, 3])
    got = shown(Blob(saved(Image.fromarray(RGB), "PNG", transparency=key)), "#0000ff")
    assert got[2, 3].tolist() == [0, 0, 255]
    assert np.array_equal(got[0], RGB[0])
    entries = np.resize(np.arange(4, dtype=np.uint8), (6, 9))
    image = Image.fromarray(entries, "P")
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110, 120])
    for kind in ("PNG", "GIF"):
        got = shown(Blob(saved(image, kind, transparency=1)), "#0000ff")
        assert (got[entries == 1] == [0, 0, 255]).all()
        assert (got[entries == 2] == [70, 80, 90]).all()
    got = shown(Blob(saved(Image.fromarray(GREY), "PNG", transparency=int(GREY[0, 0]))), "#0000ff")
    assert got[0, 0].tolist() == [0, 0, 255]


def test_many_chunks_of_data_are_one() -> None:
    data = saved(Image.fromarray(RGB), "PNG")
    start, length = 33, int.from_bytes(data[33:37], "big")
    packed = data[41 : 41 + length]
    cut = data[:start] + b"".join(chunk(b"IDAT", packed[k : k + 20]) for k in range(0, length, 20)) + data[-12:]
    assert np.array_equal(read_picture(Blob(cut)).pixels, RGB)


@pytest.mark.parametrize("side", [12_000, 20_000])
def test_a_bomb_is_seen_by_its_header(tmp_path: Path, side: int) -> None:
    """Pillow only warns of 144 million pixels, and raises its own error of 400 million; neither is decoded."""
    path = tmp_path / "bomb.png"
    path.write_bytes(png(side, side, bytes(side * (side // 8 + 1)), 1, 0))
    assert path.stat().st_size < 60_000
    start = time.perf_counter()
    for read in (read_picture, header_size):
        with pytest.raises(Unreadable, match="too large"):
            read(path)
    assert time.perf_counter() - start < 0.5


def test_the_cap_itself_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_PIXELS == 8192 * 8192
    file = Blob(saved(Image.fromarray(RGB), "PNG"))
    monkeypatch.setattr("sfumato.data.formats.decode.MAX_PIXELS", RGB.shape[0] * RGB.shape[1])
    assert read_picture(file).pixels.shape == RGB.shape
    monkeypatch.setattr("sfumato.data.formats.decode.MAX_PIXELS", RGB.shape[0] * RGB.shape[1] - 1)
    with pytest.raises(Unreadable, match="too large: 9x6"):
        read_picture(file)
