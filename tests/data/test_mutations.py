"""Files damaged at random: whatever the bytes, an image by the rules or a reason, soon and within memory."""

from __future__ import annotations

import io
import resource
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from sfumato.data.formats.colour import TINT
from sfumato.data.formats.decode import header_size
from sfumato.data.sources.protocol import Unreadable

from .corpus import ALPHA, BITS, GREY, RGB, SIXTEEN, SMOOTH
from .encode import adam7, png, saved, shown

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")
ALLOWED = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "QOI", "TIFF", "WEBP")


def originals() -> dict[str, bytes]:
    """A small file of every format and kind."""
    rgb, ramp = Image.fromarray(RGB), Image.fromarray(SMOOTH)
    rgba = Image.fromarray(np.dstack([RGB, ALPHA]))
    return {
        "rgb.png": saved(rgb, "PNG"),
        "palette.png": saved(rgb.quantize(16), "PNG", transparency=1),
        "rgba.png": saved(rgba, "PNG"),
        "bits.png": saved(Image.fromarray(BITS), "PNG"),
        "sixteen.png": saved(Image.fromarray(SIXTEEN), "PNG"),
        "interlaced.png": png(12, 9, adam7(GREY), 8, 0, interlaced=True),
        "plain.jpg": saved(ramp, "JPEG"),
        "progressive.jpg": saved(ramp, "JPEG", progressive=True),
        "inks.jpg": saved(ramp.convert("CMYK"), "JPEG"),
        "plain.gif": saved(rgb.quantize(16), "GIF"),
        "film.gif": saved(rgb, "GIF", save_all=True, append_images=[Image.fromarray(GREY)]),
        "plain.bmp": saved(rgb, "BMP"),
        "raw.tif": saved(rgba, "TIFF"),
        "lzw.tif": saved(rgb, "TIFF", compression="tiff_lzw"),
        "float.tif": saved(Image.fromarray(GREY.astype(np.float32)), "TIFF"),
        "sixteen.tif": saved(Image.fromarray(SIXTEEN), "TIFF"),
        "plain.webp": saved(rgba, "WEBP", lossless=True),
        "lossy.webp": saved(ramp, "WEBP"),
        "plain.ppm": saved(rgb, "PPM"),
        "plain.jp2": saved(rgb, "JPEG2000"),
        "plain.avif": saved(ramp, "AVIF"),
        "plain.qoi": saved(rgba, "QOI"),
    }


def mutated(data: bytes, rng: np.random.Generator, other: bytes) -> bytes:
    """A file with bytes changed, cut out, doubled, cut off, or the tail of another; mostly near the head."""
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, 4))):
        place = int(rng.integers(0, len(changed) if rng.random() < 0.5 else min(len(changed), 120)))
        run = int(rng.integers(1, 16))
        match int(rng.integers(0, 7)):
            case 0 | 1 | 2:
                changed[place] = int(rng.integers(256))
            case 3:
                changed[place : place + 4] = bytes(rng.choice([0, 255, 127, 128], 4).astype(np.uint8))
            case 4:
                del changed[place : place + run]
            case 5:
                changed[place:place] = changed[place : place + run]
            case _:
                changed = changed[:place] + bytearray(other[place:] if rng.random() < 0.5 else b"")
        if not changed:
            break
    return bytes(changed)


def independently(data: bytes) -> np.ndarray | None:
    """What Pillow's own pixels are by the stated rules for modes, worked out another way; None for no picture.

    `exif_transpose` for the orientation, exact arithmetic in float64 for every mode, no code of ours.
    """
    with Image.open(io.BytesIO(data), formats=ALLOWED) as image:
        image.load()
        image = ImageOps.exif_transpose(image) if image.format != "TIFF" else image
        if image.mode.startswith(("I", "F")):
            wide = np.asarray(image).astype(np.float64)
            if image.mode == "F":
                scaled = wide * (255 if wide.max() <= 1 else 1)
                return np.rint(scaled.astype(np.float32))[..., None]
            return np.floor(wide / 257 + 0.5)[..., None]
        if image.has_transparency_data:
            four = np.asarray(image.convert("RGBA")).astype(np.float64)
            a = four[..., 3:]
            return (a * four[..., :3] + (255 - a) * 255) / 255
        if image.mode in ("1", "L"):
            return np.asarray(image.convert("L")).astype(np.float64)[..., None]
        return np.asarray(image.convert("RGB")).astype(np.float64)


def attack(count: int, path: Path, first: int = 0) -> tuple[int, float]:
    """Read mutated files; returns how many could be read and the longest time, in seconds of the processor."""
    files = list(originals().values())
    read, slowest, reason = 0, 0.0, ""
    for trial in range(first, first + count):
        rng = np.random.default_rng(trial)
        data = mutated(files[trial % len(files)], rng, files[int(rng.integers(len(files)))])
        path.write_bytes(data)
        start = time.process_time()
        try:
            got: np.ndarray | None = shown(path)
            header_size(path)
        except Unreadable as fault:
            got, reason = None, fault.reason
        slowest = max(slowest, time.process_time() - start)
        if got is None:
            assert reason, trial
            assert reason.isprintable(), trial
        else:
            read += 1
            assert got.dtype == np.uint8, trial
            wanted = independently(data)
            assert wanted is not None
            if got.shape[2] < wanted.shape[2]:  # lossy colour that is grey but for a tint is read as grey
                assert np.ptp(wanted, axis=2).max() <= TINT, trial
                wanted = np.rint(wanted @ [0.299, 0.587, 0.114])[..., None]
            assert got.shape == wanted.shape, trial
            assert np.abs(got - wanted).max(initial=0) <= 1, trial
    return read, slowest


def grown(work: Callable[[], object]) -> int:
    """Bytes by which the most memory ever used grew."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    work()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024


BOUND = 2**30
"""What reading may take: 2^26 pixels, the cap, as RGBA and on their background, and what decoders keep besides."""


def test_a_few_hundred_mutations_do_no_harm(tmp_path: Path) -> None:
    outcome = {}
    assert grown(lambda: outcome.update(zip(("read", "slowest"), attack(330, tmp_path / "x"), strict=True))) < BOUND
    assert outcome["slowest"] < 2
    assert 20 < outcome["read"] < 310, "some survive and some don't, or nothing was tested"


@pytest.mark.slow
def test_ten_thousand_mutations_do_no_harm(tmp_path: Path) -> None:
    outcome = {}
    assert (
        grown(lambda: outcome.update(zip(("read", "slowest"), attack(10_000, tmp_path / "x", 1000), strict=True)))
        < BOUND
    )
    assert outcome["slowest"] < 2
