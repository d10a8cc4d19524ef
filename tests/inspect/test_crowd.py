"""Odd pictures, typical ones, and whether left and right matter."""

from __future__ import annotations

import numpy as np
import pytest

from sfumato.data import open_source
from sfumato.inspect.crowd import ODD, Mirror, mirror_test, oddness, typical
from sfumato.inspect.gather import gather
from sfumato.inspect.look import Sights, sight_type

from .made import Made, drawn, drawn_many


def seen(pictures: list[np.ndarray]) -> Sights:
    return gather(Made(pictures), np.arange(len(pictures)), None, 0)[0]


def of_thumbs(thumbs: np.ndarray) -> Sights:
    sights = np.zeros(len(thumbs), sight_type(0))
    sights["thumb"] = thumbs
    return sights


def builtin(name: str) -> Sights:
    source = open_source(name)
    return gather(source, np.arange(0, len(source), 2), None, 0)[0]


NOISE = np.random.default_rng(0).integers(0, 256, (64, 80, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("planted", "why"),
    [
        (NOISE, "detail"),
        (np.asarray(drawn(999, (640, 512))), "area"),
        (np.asarray(drawn(999, (240, 21))), "proportions"),
    ],
)
def test_a_planted_stranger_is_the_oddest(planted: np.ndarray, why: str) -> None:
    pictures = [np.asarray(drawn(n, (80 + n % 3, 64 + n % 2))) for n in range(150)]
    found = oddness(seen([*pictures[:70], planted, *pictures[70:]]))
    assert int(found.score.argmax()) == 70
    assert found.odd()[0] == 70
    assert found.reason(70) == why
    assert len(found.odd()) <= 3


@pytest.mark.parametrize(("scale", "offset", "why"), [(0.8, 85, "contrast"), (0.2, 200, "brightness")])
def test_a_picture_of_another_light_is_the_oddest(scale: float, offset: int, why: str) -> None:
    faint = [(picture[..., :1] * 0.2 + 60).astype(np.uint8) for picture in drawn_many(150)]
    planted = np.asarray(drawn(500))[..., :1].astype(float)
    planted = ((planted - planted.mean()) * scale + offset).clip(0, 255).astype(np.uint8)
    found = oddness(seen([*faint[:70], planted, *faint[70:]]))
    assert int(found.score.argmax()) == 70
    assert found.reason(70) == why


def test_of_one_kind_few_are_odd() -> None:
    assert len(oddness(seen(drawn_many(300))).odd()) <= 6


def test_robust_z_is_the_standard_deviation_of_a_normal() -> None:
    sights = np.zeros(4000, sight_type(0))
    sights["width"] = sights["height"] = 9
    sights["mean"] = np.random.default_rng(1).normal(128, 20, (4000, 1))
    z = oddness(sights).z[:, 0]
    assert np.mean(z > 1) == pytest.approx(0.317, abs=0.03)
    assert np.mean(z > 2) == pytest.approx(0.0455, abs=0.01)
    assert ODD > 4


def test_typical_ones_are_spread_and_not_odd() -> None:
    sights = seen([*drawn_many(60), NOISE])
    found = oddness(sights)
    chosen = typical(found, 10)
    assert len(set(chosen)) == 10
    assert 60 not in chosen
    assert all(found.score[place] <= np.median(found.score) for place in chosen)
    assert np.all(np.diff(found.first[chosen]) >= 0)
    assert len(typical(found, 1000)) < 61


@pytest.mark.parametrize("seed", range(4))
def test_without_a_side_the_mirror_image_is_farther_half_of_the_time(seed: int) -> None:
    """Independent pixels are as likely mirrored: the share is 1/2 up to 4 standard errors."""
    mirror = mirror_test(of_thumbs(np.random.default_rng(seed).integers(0, 256, (800, 16, 16, 3))))
    assert mirror.num == 800
    assert abs(mirror.z) < 4
    assert mirror.farther == pytest.approx(1, abs=0.02)
    assert mirror.verdict == "flip"


def test_standard_errors_of_a_share() -> None:
    assert Mirror(100, 0.6, 1.0, 0.0).z == pytest.approx(2)  # the standard error of a share of 1/2 of 100 is 0.05


def test_a_side_is_seen() -> None:
    """A ramp that always rises to the right, under noise: every mirror image is far from all."""
    rng = np.random.default_rng(0)
    ramp = np.arange(16)[None, None, :, None] * 8
    mirror = mirror_test(of_thumbs(60 + ramp + rng.integers(0, 60, (500, 16, 16, 3))))
    assert mirror.share == 1
    assert mirror.farther > 1.4
    assert mirror.verdict == "keep"
    both = 60 + ramp + rng.integers(0, 60, (500, 16, 16, 3))
    both[::2] = both[::2, :, ::-1]
    assert mirror_test(of_thumbs(both)).verdict == "flip"


def test_symmetric_pictures_say_nothing() -> None:
    half = np.random.default_rng(2).integers(0, 256, (300, 16, 8, 3))
    mirror = mirror_test(of_thumbs(np.concatenate([half, half[:, :, ::-1]], axis=2)))
    assert (mirror.num, mirror.symmetric, mirror.verdict) == (0, 1.0, "symmetric")


@pytest.mark.parametrize(("name", "verdict"), [("digits", "keep"), ("faces", "flip")])
def test_digits_have_a_side_and_faces_have_none(name: str, verdict: str) -> None:
    assert mirror_test(builtin(name)).verdict == verdict


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_pictures_are_no_trouble(count: int) -> None:
    sights = seen(drawn_many(count))
    found = oddness(sights)
    assert found.score.shape == (count,)
    assert found.odd() == []
    assert len(typical(found, 5)) == count
    assert mirror_test(sights).verdict == "unsure"
