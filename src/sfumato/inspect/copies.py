"""Exact and near copies among many pictures, without comparing each with each.

Exact copies have the same SHA-256 of their decoded pixels, whatever their files are called or how they are packed.

Near copies are looked for in two steps. First the pairs whose difference hash or frequency hash (see `look`) differ in
at most `RADIUS` of 64 bits: cut a hash into 4 bands of 16 bits, and two hashes within 6 bits agree in some band up to
one bit (6 < 4 x 2, the pigeonhole principle; Norouzi, Punjani, Fleet 2012, arXiv 1307.2982), so every picture is
compared only with those whose band is its own with at most one bit turned: 17 look-ups a band. Then
each pair's thumbnails are compared: with brightness and contrast taken out, their correlation

    rho = <a - mean a, b - mean b> / (|a - mean a| |b - mean b|)

must reach `ALIKE`. Where the two pictures' sizes differ, one may be a cut-out of the other: then each is also tried
with up to a tenth of its border cut off, and `ALIKE_CUT` is enough. What this finds and misses was measured on planted
copies: docs/data-check.md.

A group is a picture and the later ones that are near it; likeness is not passed on from one to the next.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from sfumato.inspect.look import THUMB, Sights

__all__ = ["ALIKE", "ALIKE_CUT", "RADIUS", "Copies", "close_pairs", "find_copies", "hamming", "likeness"]

RADIUS = 6
"""Bits of 64 in which the hashes of near copies may differ."""
ALIKE = 0.99
"""Correlation of thumbnails from which two pictures of one size are near copies."""
ALIKE_CUT = 0.98
"""The same for pictures of different sizes, one of which may be cut out of the other."""
WORST_CUT = 0.6
"""Correlation of uncut thumbnails below which cutting is not tried; a border of 4 % left 0.65 and more."""
BORDERS = (0.0, 0.02, 0.04, 0.06, 0.08, 0.1)
"""Shares of each side's border that are tried as cut off."""
MOST = 5_000_000
"""Comparisons for one look-up of all pictures; beyond, crowded bands are searched in part (`exhaustive` is False)."""
CANDIDATES = 20
"""Pairs a picture (and a quarter of a million besides) whose thumbnails are compared; beyond, those with closer hashes
are, and `exhaustive` is False."""
BLOCK = 4_000_000

Index = NDArray[np.int64]
Hashes = NDArray[np.uint64]


@dataclass(frozen=True)
class Copies:
    """Groups of copies, as places in the records; the first of each group is its earliest picture.

    Attributes:
        exact: groups whose pixels are the same.
        near: groups whose first picture the others are near copies of; of exact copies only the first takes part.
        mirrored: pairs of which one is a near copy of the other's mirror image.
        exhaustive: whether every pair within the radius was compared.
    """

    exact: list[list[int]]
    near: list[list[int]]
    mirrored: list[tuple[int, int]]
    exhaustive: bool

    @property
    def spare(self) -> set[int]:
        """Every picture that is an exact or near copy of an earlier one."""
        return {place for group in (*self.exact, *self.near) for place in group[1:]}


def find_copies(sights: Sights) -> Copies:
    """Find the copies among pictures; constant ones, which all look alike, are only compared exactly."""
    exact, firsts = _exact(sights)
    places = firsts[~sights["constant"][firsts]]
    some = sights[places]
    i, j, whole = _near_pairs(some, some["hashes"])
    near = _groups(places[i], places[j])
    spare = np.isin(places, [place for group in near for place in group[1:]])
    a, b, whole_mirrored = _near_pairs(some, some["mirrored"], mirrored=True)
    plain = set(zip(i.tolist(), j.tolist(), strict=True))
    pairs = (pair for pair in zip(a.tolist(), b.tolist(), strict=True) if pair not in plain)
    mirrored = [(int(places[x]), int(places[y])) for x, y in pairs if not (spare[x] or spare[y])]
    return Copies(exact, near, mirrored, whole and whole_mirrored)


def hamming(a: Hashes, b: Hashes) -> NDArray[np.uint8]:
    """Return in how many bits hashes differ."""
    difference = a ^ b
    if hasattr(np, "bitwise_count"):
        return np.asarray(np.bitwise_count(difference), np.uint8)
    ones: NDArray[np.uint8] = _ones()[difference[..., None].view(np.uint8)].sum(-1, dtype=np.uint8)  # numpy 1
    return ones


def close_pairs(a: Hashes, b: Hashes, radius: int = RADIUS) -> tuple[Index, Index, bool]:
    """Return every i < j with hashes a[i] and b[j] within a radius, and whether all were compared.

    Args:
        a: (N,) hashes.
        b: (N,) hashes; `a` itself, or those of the mirror images.
        radius: bits, at most 7.
    """
    assert radius <= 7, "four bands and one bit turned find all pairs within 7 bits"
    found, whole = [np.zeros(0, np.int64)], True
    for band in range(4):
        shift = np.uint64(16 * band)
        keys, wanted = ((hashes >> shift).astype(np.uint16) for hashes in (b, a))
        order = np.argsort(keys, kind="stable")
        starts = np.concatenate([[0], np.cumsum(np.bincount(keys, minlength=2**16))])  # of each key among the sorted
        for turned in (0, *(1 << bit for bit in range(16))):
            query = (wanted ^ np.uint16(turned)).astype(np.int64)
            low, counts = starts[query], starts[query + 1] - starts[query]
            if counts.sum() > MOST:
                counts, whole = np.minimum(counts, MOST // len(a)), False
            for i, j in _expanded(low, counts, order):
                near = (i < j) & (hamming(a[i], b[j]) <= radius)
                found.append(i[near] * len(a) + j[near])
        found = [_distinct(found)]
    pairs = found[0]
    return pairs // max(1, len(a)), pairs % max(1, len(a)), whole


def likeness(a: NDArray[np.uint8], b: NDArray[np.uint8], cut: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return how far pairs of thumbnails correlate, in [-1, 1].

    Args:
        a: (P, S, S, 3) thumbnails.
        b: the same.
        cut: (P,) pairs of which one may be cut out of the other; their best agreement counts.
    """
    best: NDArray[np.float64] = (_centred(a) * _centred(b)).sum(1)
    where = np.flatnonzero(cut)
    for border in BORDERS[1:] if len(where) else ():
        for whole, part in ((a[where], b[where]), (b[where], a[where])):
            inside = _zoom(border) @ whole.astype(np.float64).transpose(0, 3, 1, 2) @ _zoom(border).T
            agreement = (_centred(inside.transpose(0, 2, 3, 1)) * _centred(part)).sum(1)
            best[where] = np.maximum(best[where], agreement)
    return best


def _near_pairs(some: Sights, others: Hashes, mirrored: bool = False) -> tuple[Index, Index, bool]:
    """The pairs i < j of which j (or its mirror image) is a near copy of i."""
    found, whole = list[Index](), True
    for k in range(2):
        i, j, all_ = close_pairs(some["hashes"][:, k], others[:, k])
        closest = _closest(hamming(some["hashes"][i, k], others[j, k]), 250_000 + CANDIDATES * len(some))
        found.append((i * len(some) + j)[closest])
        whole &= all_ and len(found[-1]) == len(i)
    pairs = _distinct(found)
    i, j = pairs // max(1, len(some)), pairs % max(1, len(some))
    thumbs = some["thumb"][:, :, ::-1] if mirrored else some["thumb"]
    coarse, other = _coarse(some["thumb"]), _coarse(thumbs)
    kept = [np.zeros(0, np.int64)]
    for start in range(0, len(pairs), 65536):
        x, y = i[start : start + 65536], j[start : start + 65536]
        cut = (some["height"][x] != some["height"][y]) | (some["width"][x] != some["width"][y])
        apart = ((coarse[x] - other[y]) ** 2).sum(1)
        hopeful = np.flatnonzero(apart <= 2 - 2 * np.where(cut, WORST_CUT, ALIKE) + 1e-4)
        x, y, cut = x[hopeful], y[hopeful], cut[hopeful]
        rho = np.concatenate([np.zeros(0), *(
            likeness(some["thumb"][x[n : n + 2048]], thumbs[y[n : n + 2048]], cut[n : n + 2048])
            for n in range(0, len(x), 2048)
        )])  # fmt: skip
        kept.append(start + hopeful[rho >= np.where(cut, ALIKE_CUT, ALIKE)])
    keep = np.concatenate(kept)
    return i[keep], j[keep], whole


def _closest(distance: NDArray[np.uint8], most: int) -> NDArray[np.bool_]:
    """The pairs within the greatest distance that no more than `most` pairs are within."""
    within = np.cumsum(np.bincount(distance, minlength=RADIUS + 1))
    chosen: NDArray[np.bool_] = distance < np.searchsorted(within, most, "right")
    return chosen


def _coarse(thumbs: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(N, 48) blocks of 4 x 4 pixels of the centred thumbnails, summed over 4: an orthogonal projection.

    It shortens distances and never lengthens them, and unit vectors with correlation rho are sqrt(2 - 2 rho) apart, so
    a pair whose projections are further apart than that can be dropped without looking at the thumbnails.
    """
    parts = [_centred(thumbs[n : n + 4096]) for n in range(0, len(thumbs), 4096)]
    blocks = [part.reshape(-1, 4, THUMB // 4, 4, THUMB // 4, 3).sum((2, 4)).reshape(-1, 48) / 4 for part in parts]
    return np.concatenate([np.zeros((0, 48)), *blocks]).astype(np.float32)


def _exact(sights: Sights) -> tuple[list[list[int]], Index]:
    """Groups of equal digests, and the first picture of every digest."""
    groups: dict[bytes, list[int]] = {}
    for place, digest in enumerate(sights["digest"]):
        groups.setdefault(digest.tobytes(), []).append(place)
    firsts = np.array([group[0] for group in groups.values()], np.int64)
    return [group for group in groups.values() if len(group) > 1], firsts


def _groups(i: Index, j: Index) -> list[list[int]]:
    """Stars: a picture that is in no group yet, and those of its later neighbours that are in none."""
    taken: set[int] = set()
    stars: dict[int, list[int]] = {}
    for first, other in zip(i.tolist(), j.tolist(), strict=True):
        if first not in taken and other not in taken:
            stars.setdefault(first, [first]).append(other)
            taken.add(other)
    return list(stars.values())


def _expanded(low: Index, counts: Index, order: Index) -> Iterator[tuple[Index, Index]]:
    """Turn (first place, how many) of each query into pairs (query, picture), some millions at a time."""
    ends = np.cumsum(counts)
    start = 0
    while start < len(counts):
        before = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + BLOCK, "right")))
        some = counts[start:stop]
        i = np.repeat(np.arange(start, stop), some)
        within = np.arange(len(i)) - np.repeat(np.cumsum(some) - some, some)
        yield i, order[np.repeat(low[start:stop], some) + within]
        start = stop


def _distinct(parts: list[Index]) -> Index:
    """The different numbers among several lists, ascending."""
    numbers = np.sort(np.concatenate(parts))
    return numbers[np.diff(numbers, prepend=-1) > 0]


def _centred(thumbs: NDArray[np.generic]) -> NDArray[np.float64]:
    """(P, ...) -> (P, D) with mean 0 and length 1; the length of a constant one is 0."""
    flat = thumbs.reshape(len(thumbs), -1).astype(np.float64)
    flat -= flat.mean(1, keepdims=True)
    length = np.sqrt((flat**2).sum(1, keepdims=True))
    out: NDArray[np.float64] = flat / np.maximum(length, 1e-9)
    return out


@cache
def _zoom(border: float) -> NDArray[np.float64]:
    """(S, S): resample a row of S pixels linearly to its middle, with a share cut off at either end."""
    x = ((np.arange(THUMB) + 0.5) * (1 - 2 * border) + border * THUMB - 0.5).clip(0, THUMB - 1)
    weights: NDArray[np.float64] = np.maximum(0.0, 1 - np.abs(x[:, None] - np.arange(THUMB)))
    return weights


@cache
def _ones() -> NDArray[np.uint8]:
    """How many bits are set in each byte."""
    bits: NDArray[np.uint8] = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(1, dtype=np.uint8)
    return bits
