"""A record says of a picture what numpy and scipy say of it."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps
from scipy.fft import dctn

from sfumato.data import open_source
from sfumato.inspect.look import difference_hash, frequency_hash, look

from .made import Made, drawn

PICTURE = np.asarray(drawn(0))


def seen(pixels: np.ndarray) -> np.void:
    return look(Made([pixels]), 0)


def test_statistics_are_numpys() -> None:
    sight = seen(PICTURE)
    assert (sight["height"], sight["width"]) == (64, 80)
    assert sight["mean"] == pytest.approx(PICTURE.mean((0, 1)), rel=1e-6)
    luma = np.asarray(Image.fromarray(PICTURE).convert("L")).astype(float)
    assert sight["contrast"] == pytest.approx(luma.std(), rel=1e-6)
    assert (sight["low"], sight["high"]) == (PICTURE.min(), PICTURE.max())
    assert not sight["grey"]
    assert not sight["constant"]
    grey = seen(PICTURE[..., :1])
    assert grey["grey"]
    assert grey["mean"] == pytest.approx(PICTURE[..., 0].mean(), rel=1e-6)


def test_a_constant_colour_is_constant_and_a_single_pixel_is_enough_not_to_be() -> None:
    flat = np.full((20, 30, 3), (9, 200, 40), np.uint8)
    assert seen(flat)["constant"]
    flat[3, 4, 1] += 1
    assert not seen(flat)["constant"]


def test_the_digest_is_of_pixels_and_shape() -> None:
    assert (seen(PICTURE)["digest"] == seen(PICTURE.copy())["digest"]).all()
    changed = PICTURE.copy()
    changed[5, 5, 0] ^= 1
    assert (seen(PICTURE)["digest"] != seen(changed)["digest"]).any()
    assert (seen(PICTURE)["digest"] != seen(PICTURE.reshape(80, 64, 3))["digest"]).any()
    grey = PICTURE[..., :1]
    assert (seen(grey)["digest"] == seen(grey.repeat(3, axis=2))["digest"]).all(), "grey however it is stored"


def test_the_frequency_hash_is_that_of_scipys_transform() -> None:
    luma = Image.fromarray(PICTURE).convert("L")
    small = np.asarray(luma.resize((32, 32), Image.Resampling.BILINEAR)).astype(float)
    low = dctn(small, type=2)[:8, :8]  # four times the plain sum of cosines
    bits = low > np.median(low.ravel()[1:])
    bits[0, 0] = False
    assert int(seen(PICTURE)["hashes"][1]) == int("".join("01"[int(bit)] for bit in bits.ravel()), 2)


def test_the_difference_hash_by_hand() -> None:
    rows = np.tile(np.array([0, 3, 3, 5, 8, 8, 8, 1, 9]), (8, 1))
    assert difference_hash(rows) == int("10010001" * 8, 2)  # 0<3, not 3=3, not 3<5 by 2, 5<8, ..., not 8>1, 1<9


@pytest.mark.parametrize("seed", range(5))
def test_mirrored_hashes_are_those_of_the_mirror_image(seed: int) -> None:
    image = drawn(seed)
    there, back = seen(np.asarray(image)), seen(np.asarray(ImageOps.mirror(image)))
    assert there["mirrored"].tolist() == back["hashes"].tolist()
    assert there["hashes"].tolist() == back["mirrored"].tolist()
    assert there["hashes"].tolist() != there["mirrored"].tolist()


def test_hashes_of_brighter_pictures_stay() -> None:
    dark = (PICTURE * 0.5).astype(np.uint8)
    assert frequency_hash(np.arange(64.0).reshape(8, 8)) == frequency_hash(np.arange(64.0).reshape(8, 8) * 3 + 1)
    one, other = seen(dark), seen(dark + 60)
    assert [int(a ^ b).bit_count() for a, b in zip(one["hashes"], other["hashes"], strict=True)] <= [2, 2]


def test_files_say_what_they_are(tmp_path: Path) -> None:
    image = Image.fromarray(PICTURE)
    image.save(tmp_path / "a.png")
    image.save(tmp_path / "b.png", "JPEG")
    Image.fromarray(np.full((8, 8), 999, np.uint16)).save(tmp_path / "c.png")
    image.convert("RGBA").save(tmp_path / "d.png")
    image.save(tmp_path / "e.gif", save_all=True, append_images=[ImageOps.mirror(image)])
    image.save(tmp_path / "f.tiff")
    source = open_source(str(tmp_path))
    sights = [look(source, i) for i in range(len(source))]
    assert [s["format"].item() for s in sights] == [b"PNG", b"JPEG", b"PNG", b"PNG", b"GIF", b"TIFF"]
    assert [s["bits"].item() for s in sights] == [8, 8, 16, 8, 8, 8]
    assert [s["misnamed"].item() for s in sights] == [False, True, False, False, False, False]
    assert [s["alpha"].item() for s in sights] == [False, False, False, True, False, False]
    assert [s["animated"].item() for s in sights] == [False] * 4 + [True, False]


def test_a_jpeg_that_ended_early_is_seen(tmp_path: Path) -> None:
    content = io.BytesIO()
    drawn(3, (160, 160)).save(content, "JPEG", quality=90)
    whole = content.getvalue()
    (tmp_path / "whole.jpg").write_bytes(whole)
    (tmp_path / "half.jpg").write_bytes(whole[: len(whole) // 2] + b"\xff\xd9")
    source = open_source(str(tmp_path))
    assert [bool(look(source, i)["cut_short"]) for i in range(2)] == [True, False]
