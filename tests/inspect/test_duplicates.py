"""Planted duplicates are found and nothing else is; the search by bands misses nothing."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from sfumato.inspect.duplicates import close_pairs, closest, coarse, correlation, find_duplicates, hamming, stars

from .images import drawn, drawn_many, scanned


def test_distance_counts_bits() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 2**64, (2, 200), dtype=np.uint64)
    assert hamming(a, b).tolist() == [(int(x) ^ int(y)).bit_count() for x, y in zip(a, b, strict=True)]


@pytest.mark.parametrize("radius", [0, 3, 6, 7])
@pytest.mark.parametrize("mirrored", [False, True])
def test_the_bands_find_what_comparing_all_with_all_finds(radius: int, mirrored: bool) -> None:
    rng = np.random.default_rng(radius)
    a = rng.integers(0, 2**64, 60, dtype=np.uint64)
    for _ in range(4):  # neighbours at every distance up to 16
        flipped = np.array([np.bitwise_xor.reduce(np.uint64(1) << rng.choice(64, n % 17, False).astype(np.uint64))
                            if n % 17 else np.uint64(0) for n in range(len(a))], np.uint64)  # fmt: skip
        a = np.concatenate([a, a ^ flipped]) if len(a) < 500 else a
    b = rng.permutation(a) if mirrored else a
    i, j, exhaustive = close_pairs(a, b, radius)
    every = [
        (x, y) for x in range(len(a)) for y in range(x + 1, len(a)) if (int(a[x]) ^ int(b[y])).bit_count() <= radius
    ]
    assert list(zip(i.tolist(), j.tolist(), strict=True)) == every
    assert len(every) > 5
    assert exhaustive


def test_a_search_of_crowded_bands_is_not_exhaustive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sfumato.inspect.duplicates.MOST", 500)
    i, _, exhaustive = close_pairs(np.zeros(100, np.uint64), np.zeros(100, np.uint64))
    assert not exhaustive
    assert 0 < len(i) < 100 * 99 // 2


@pytest.mark.parametrize(
    ("most", "kept"), [(7, [5, 0, 3, 3, 6, 1, 3]), (5, [0, 3, 3, 1, 3]), (4, [0, 1]), (1, [0]), (0, [])]
)
def test_the_closest_of_too_many_candidates_are_compared(most: int, kept: list[int]) -> None:
    distance = np.array([5, 0, 3, 3, 6, 1, 3], np.uint8)
    assert distance[closest(distance, most)].tolist() == kept


def test_correlation_is_numpys_and_ignores_brightness_and_contrast() -> None:
    a, b = np.random.default_rng(1).integers(50, 150, (2, 7, 16, 16, 3)).astype(np.uint8)
    plain = np.zeros(7, bool)
    expected = [np.corrcoef(x.ravel(), y.ravel())[0, 1] for x, y in zip(a, b, strict=True)]
    assert correlation(a, b, plain) == pytest.approx(expected)
    assert (correlation(a, (a // 2 + 90).astype(np.uint8), plain) > 0.999).all()
    assert (correlation(a, 255 - a, plain) < -0.999).all()


def test_projections_shorten_distances_and_keep_those_of_blocks() -> None:
    """A necessary condition must never drop a pair: |P a - P b| <= |a - b|, equal where 4 x 4 blocks are constant."""
    rng = np.random.default_rng(2)
    blocks = rng.integers(0, 256, (30, 4, 4, 3)).repeat(4, 1).repeat(4, 2).astype(np.uint8)
    for thumbs, equal in ((rng.integers(0, 256, (30, 16, 16, 3)).astype(np.uint8), False), (blocks, True)):
        short = coarse(thumbs)
        rho = correlation(thumbs[:-1], thumbs[1:], np.zeros(29, bool))
        squared, bound = ((short[1:] - short[:-1]) ** 2).sum(1), 2 - 2 * rho
        assert (squared <= bound + 1e-5).all()
        assert not equal or squared == pytest.approx(bound, abs=1e-4)


@pytest.mark.parametrize("border", [0.02, 0.06, 0.1])
def test_a_cut_is_found_by_cutting(border: float) -> None:
    """A smooth thumbnail and its middle, sampled exactly: cutting brings them together, either way round."""

    def sampled(low: float, high: float) -> np.ndarray:
        x = low + (np.arange(16) + 0.5) / 16 * (high - low)
        wave = np.sin(5 * x)[:, None] + np.cos(7 * x)[None, :] + np.sin(9 * x[:, None] * x[None, :])
        return np.rint(127 + 40 * wave)[None, ..., None].repeat(3, -1).astype(np.uint8)

    whole, part = sampled(0, 1), sampled(border, 1 - border)
    yes, no = np.ones(1, bool), np.zeros(1, bool)
    assert correlation(whole, part, yes)[0] > max(0.995, correlation(whole, part, no)[0])
    assert correlation(part, whole, yes)[0] == pytest.approx(correlation(whole, part, yes)[0])


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    content = io.BytesIO()
    image.save(content, "JPEG", quality=quality)
    return Image.open(io.BytesIO(content.getvalue()))


PLANTED = {
    "saved again at 85": (lambda image: jpeg(image, 85), 0.95),
    "saved again at 50": (lambda image: jpeg(image, 50), 0.95),
    "half the size": (lambda image: image.resize((image.width // 2, image.height // 2)), 0.9),
    "half as large again": (lambda image: image.resize((image.width * 3 // 2, image.height * 3 // 2)), 0.95),
    "brighter": (lambda image: Image.fromarray((np.asarray(image) * 0.8 + 30).astype(np.uint8)), 0.95),
    "darker": (lambda image: Image.fromarray((np.asarray(image) * 0.7).astype(np.uint8)), 0.95),
    "cut a little": (lambda image: image.crop((2, 1, image.width - 2, image.height - 1)), 0.8),
}


@pytest.mark.parametrize("kind", PLANTED)
def test_planted_duplicates_are_found_and_nothing_else_is(kind: str) -> None:
    make, recall = PLANTED[kind]
    originals = [drawn(seed) for seed in range(150)]
    planted = [np.asarray(make(image)) for image in originals[:50]]
    found = find_duplicates(scanned([np.asarray(image) for image in originals] + planted))
    pairs = {(group[0], other) for group in (*found.exact, *found.near) for other in group[1:]}
    right = {(n, 150 + n) for n in range(50)}
    assert pairs <= right, "precision 1"
    assert len(pairs) >= recall * len(right)
    assert found.spare == {other for _, other in pairs}
    assert not found.mirrored
    assert found.exhaustive


def test_mirror_images_are_pairs_and_not_near_duplicates() -> None:
    originals = drawn_many(60)
    found = find_duplicates(scanned(originals + [image[:, ::-1] for image in originals[:20]]))
    assert found.mirrored == [(n, 60 + n) for n in range(20)]
    assert (found.near, found.spare) == ([], set())


def test_exact_duplicates_and_single_colours() -> None:
    one, two, three = drawn_many(3)
    flat, other = np.full((8, 8, 3), 7, np.uint8), np.full((8, 8, 3), 9, np.uint8)
    found = find_duplicates(scanned([one, two, one, flat, three, one, two, other, flat]))
    assert found.exact == [[0, 2, 5], [1, 6], [3, 8]]
    assert found.near == [], "two single colours look alike and are no near duplicates"
    assert found.spare == {2, 5, 6, 8}


def test_nearness_is_not_passed_on() -> None:
    """A - B - C where A and C are not near: B goes with A, and C stands alone."""
    assert stars(np.array([0, 1]), np.array([1, 2])) == [[0, 1]]
    assert stars(np.array([0, 0, 1, 2]), np.array([1, 2, 2, 3])) == [[0, 1, 2]]


@pytest.mark.parametrize("count", [0, 1])
def test_few_images_have_no_duplicates(count: int) -> None:
    found = find_duplicates(scanned(drawn_many(count)))
    assert (found.exact, found.near, found.mirrored) == ([], [], [])
