"""A folder as it is met in life: forty odd files, of which the good ones train and the bad ones are named."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sfumato.data import DataConfig, open_data

from .test_decode import png

RNG = np.random.default_rng(3)


def noise(height: int = 40, width: int = 40, channels: int = 3) -> np.ndarray:
    shape = (height, width) if channels == 1 else (height, width, channels)
    return RNG.integers(0, 256, shape, dtype=np.uint8)


def write_good(folder: Path) -> int:
    """Files that must be read: every mode and format, EXIF, films, odd names and shapes. Returns how many."""
    before = len(list(folder.iterdir()))
    for mode in ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "F"):
        image = Image.fromarray(noise())
        if mode == "I;16":
            image = Image.fromarray(noise(channels=1).astype(np.uint16) * 257)
        elif mode == "PA":
            image = image.convert("RGBA").convert("PA")
        elif mode == "F":
            image = Image.fromarray(noise(channels=1).astype(np.float32))
        else:
            image = image.convert(mode)
        image.save(folder / f"mode {mode.replace(';', '-')}.tif")
    for suffix in ("png", "jpg", "webp", "bmp", "gif", "ppm", "jp2"):
        Image.fromarray(noise()).save(folder / f"format.{suffix}")
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(noise(40, 60)).save(folder / f"exif {orientation}.jpg", exif=exif)
    frames = [Image.fromarray(noise()) for _ in range(3)]
    frames[0].save(folder / "film.gif", save_all=True, append_images=frames[1:])
    Image.fromarray(noise()).save(folder / "line\nbreak 🙂.png")
    Image.fromarray(noise(1, 1)).save(folder / "one pixel.png")
    Image.fromarray(noise(1, 10000)).save(folder / "thread.png")
    (folder / "jpeg named.png").write_bytes((folder / "format.jpg").read_bytes())
    (folder / "no suffix").write_bytes((folder / "format.png").read_bytes())
    return len(list(folder.iterdir())) - before


def write_bad(folder: Path) -> set[str]:
    """Files that must be left out, by name."""
    good_jpeg, good_png = (folder / "format.jpg").read_bytes(), (folder / "format.png").read_bytes()
    nan = np.full((8, 8), np.nan, np.float32)
    bad = {
        "empty.png": b"",
        "text.png": b"not a picture\n",
        "half.jpg": good_jpeg[: len(good_jpeg) // 2],
        "half.png": good_png[: len(good_png) // 2],
        "bomb.png": png(12_000, 12_000, bytes(12_000 * 1501), depth=1),
        "drawing.png": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        "paper.png": b"%PDF-1.7\n",
        "figure.jpg": b"%!PS-Adobe-3.0 EPSF-3.0\n",
        "page.jpg": b"<!DOCTYPE html><html></html>",
        "readme.md": b"# What these are\n",
        "archive.zip": b"PK\x03\x04" + zlib.compress(b"x" * 99),
        "noise.webp": RNG.integers(0, 256, 300, dtype=np.uint8).tobytes(),
    }
    for name, content in bad.items():
        (folder / name).write_bytes(content)
    Image.fromarray(nan).save(folder / "nan.tif")
    return {*bad, "nan.tif"}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int, set[str]]:
    folder = tmp_path_factory.mktemp("corpus")
    return folder, write_good(folder), write_bad(folder)


def test_the_good_are_kept_and_the_bad_are_named(corpus: tuple[Path, int, set[str]]) -> None:
    folder, good, bad = corpus
    assert good + len(bad) > 40
    data = open_data(DataConfig(source=str(folder)))
    assert {origin for origin, _ in data.quarantined} == bad
    assert all(reason.isprintable() for _, reason in data.quarantined)
    assert len(data) == good
    assert data.shape == (3, 32, 32)


def test_what_was_met_is_said(corpus: tuple[Path, int, set[str]]) -> None:
    folder, _, bad = corpus
    text = open_data(DataConfig(source=str(folder))).summary()
    for words in (
        "size 32x32, chosen since the pictures' median shorter side is 40",
        "2 pictures are smaller than the size",
        "1 animated or multi-page files",
        "2 images are exact copies",
        f"{len(bad)} files left out",
    ):
        assert words in text
    assert all(line.isprintable() for line in text.splitlines())


@pytest.mark.parametrize("channels", [1, 3])
def test_all_of_it_fits_any_size(corpus: tuple[Path, int, set[str]], channels: int) -> None:
    folder, good, _ = corpus
    data = open_data(DataConfig(source=str(folder), size=(12, 20), channels=channels))
    assert data.images.shape == (good, channels, 12, 20)
