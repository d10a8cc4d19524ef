"""Outliers, typical images, and whether left and right matter."""

from __future__ import annotations

import numpy as np
import pytest

from sfumato.data import open_source
from sfumato.data.mirror import Mirror, mirror_test
from sfumato.inspect.outliers import RARE, outliers
from sfumato.inspect.scan import RECORD, scan

from .images import drawn, drawn_many, scanned

NOISE = np.random.default_rng(0).integers(0, 256, (64, 80, 3), dtype=np.uint8)


def mirrored(thumbs: np.ndarray) -> Mirror:
    """The mirror test of thumbnails."""
    return mirror_test(thumbs.astype(np.uint8))


@pytest.mark.parametrize(
    ("planted", "why"),
    [
        (NOISE, "detail"),
        (np.asarray(drawn(999, (640, 512))), "area"),
        (np.asarray(drawn(999, (240, 21))), "proportions"),
    ],
)
def test_a_planted_stranger_is_the_farthest(planted: np.ndarray, why: str) -> None:
    images = [np.asarray(drawn(n, (80 + n % 3, 64 + n % 2))) for n in range(150)]
    found = outliers(scanned([*images[:70], planted, *images[70:]]))
    assert int(found.score.argmax()) == found.farthest()[0] == found.far()[0] == 70
    assert found.reason(70) == why
    assert len(found.far()) <= 3


@pytest.mark.parametrize(("scale", "offset", "why"), [(0.8, 85, "contrast"), (0.2, 200, "brightness")])
def test_an_image_of_other_contrast_or_brightness_is_the_farthest(scale: float, offset: int, why: str) -> None:
    faint = [(image[..., :1] * 0.2 + 60).astype(np.uint8) for image in drawn_many(150)]
    planted = np.asarray(drawn(500))[..., :1].astype(float)
    planted = ((planted - planted.mean()) * scale + offset).clip(0, 255).astype(np.uint8)
    found = outliers(scanned([*faint[:70], planted, *faint[70:]]))
    assert int(found.score.argmax()) == 70
    assert found.reason(70) == why


def test_images_of_one_kind_have_few_outliers() -> None:
    assert len(outliers(scanned(drawn_many(300))).far()) <= 6


def test_a_tail_ends_where_an_exponential_one_would() -> None:
    """b = 1 for exponential values, so the limit is -ln(1 / (RARE N)); a normal's tail is shorter."""
    rng = np.random.default_rng(1)
    records = np.zeros(6000, RECORD)
    records["width"] = records["height"] = 9
    records["mean"] = 20 * rng.exponential(size=(6000, 1))
    by = outliers(records).far_by[:, 0]
    value = records["mean"][:, 0] / 20
    limit = np.log(RARE * 6000) - np.log(2)
    np.testing.assert_allclose(by[value > 3], ((value - np.log(2)) / limit)[value > 3], rtol=0.1)
    records["mean"] = rng.normal(128, 20, (6000, 1))
    assert outliers(records).far_by[:, 0].max() < 1


def test_values_that_hardly_differ_make_no_outlier() -> None:
    records = np.zeros(200, RECORD)
    records["width"] = records["height"] = 64
    records["mean"], records["contrast"] = 128, 50
    records["width"][3], records["mean"][4], records["contrast"][5] = 66, 140, 56
    assert outliers(records).far() == []
    records["width"][3], records["mean"][4], records["contrast"][5] = 300, 200, 90
    assert set(outliers(records).far()) == {3, 4, 5}


@pytest.mark.parametrize("name", ["faces", "fashion", "emoji32", "digits"])
def test_planted_oddities_are_found_and_ordinary_images_are_not(name: str) -> None:
    source = open_source(name)
    indices = np.arange(0, len(source), len(source) // 400)
    records, _, _ = scan(source, indices, workers=0)
    assert outliers(records).far() == []
    shape = source.read(0).pixels.shape
    flat = [np.full(shape, level, np.uint8) for level in (0, 255)]
    inverted = 255 - source.read(len(source) // 2).pixels
    planted = {"noise": np.random.default_rng(5).integers(0, 256, shape, dtype=np.uint8), "inverted": inverted}
    planted |= {"black": flat[0], "white": flat[1], "photo": photograph(shape)}
    unseen = {"emoji32": {"white"}, "fashion": {"black"}}  # their own ground; listed as a single colour
    for kind in planted.keys() - unseen.get(name, set()):
        found = outliers(np.concatenate([records[:100], scanned([planted[kind]]), records[100:]]))
        assert found.far()[:1] == [100], kind


def photograph(shape: tuple[int, ...]) -> np.ndarray:
    """A landscape with grain: a dark ground under a sky, up to the borders."""
    height, width, channels = shape
    rng = np.random.default_rng(2)
    y = np.linspace(0, 1, height)[:, None, None]
    colours = np.array([[110.0, 140, 180], [60, 80, 40]])[:, :channels]
    image = np.where(y < 0.4, colours[0] + 60 * y, colours[1] + 20 * y) + rng.normal(0, 12, (height, width, 1))
    return image.clip(0, 255).astype(np.uint8)


def test_typical_images_are_spread_and_no_outliers() -> None:
    found = outliers(scanned([*drawn_many(60), NOISE]))
    chosen = found.typical(10)
    assert len(set(chosen)) == 10
    assert 60 not in chosen
    assert all(found.score[row] <= np.median(found.score) for row in chosen)
    assert np.all(np.diff(found.first[chosen]) >= 0)
    assert len(found.typical(1000)) < 61


@pytest.mark.parametrize("seed", range(4))
def test_without_a_side_the_mirror_image_is_farther_half_of_the_time(seed: int) -> None:
    """Independent pixels are as likely mirrored: the fraction is 1/2 up to 4 standard errors."""
    mirror = mirrored(np.random.default_rng(seed).integers(0, 256, (800, 16, 16, 3)))
    assert mirror.num == 800
    assert abs(mirror.z) < 4
    assert mirror.farther == pytest.approx(1, abs=0.02)
    assert mirror.verdict == "flip"


def test_standard_errors_of_a_fraction() -> None:
    assert Mirror(100, 0.6, 1.0, 0.0).z == pytest.approx(2)  # the standard error of 1/2 of 100 is 0.05


def test_a_side_is_detected() -> None:
    """A ramp that always rises to the right, under noise: every mirror image is far from all."""
    rng = np.random.default_rng(0)
    ramp = np.arange(16)[None, None, :, None] * 8
    mirror = mirrored(60 + ramp + rng.integers(0, 60, (500, 16, 16, 3)))
    assert mirror.fraction == 1
    assert mirror.farther > 1.4
    assert mirror.verdict == "keep"
    both = 60 + ramp + rng.integers(0, 60, (500, 16, 16, 3))
    both[::2] = both[::2, :, ::-1]
    assert mirrored(both).verdict == "flip"


def test_symmetric_images_are_not_counted() -> None:
    half = np.random.default_rng(2).integers(0, 256, (300, 16, 8, 3))
    mirror = mirrored(np.concatenate([half, half[:, :, ::-1]], axis=2))
    assert (mirror.num, mirror.symmetric, mirror.verdict) == (0, 1.0, "symmetric")


@pytest.mark.parametrize(("name", "verdict"), [("digits", "keep"), ("faces", "flip")])
def test_digits_have_a_side_and_faces_have_none(name: str, verdict: str) -> None:
    source = open_source(name)
    records, _, _ = scan(source, np.arange(0, len(source), 2), workers=0)
    assert mirror_test(records["thumb"]).verdict == verdict


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_images_are_no_trouble(count: int) -> None:
    records = scanned(drawn_many(count))
    found = outliers(records)
    assert found.score.shape == (count,)
    assert found.far() == []
    assert len(found.typical(5)) == count
    assert mirror_test(records["thumb"]).verdict == "unsure"
