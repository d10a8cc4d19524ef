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
