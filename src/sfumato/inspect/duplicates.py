"""Exact and near duplicates among many images, without comparing all pairs.

Exact duplicates have the same SHA-256 of their decoded pixels, whatever their files' names and formats.

Near duplicates are found in two steps. First the pairs whose difference hashes or frequency hashes (see `scan`) differ
in at most `RADIUS` of 64 bits: cut a hash into 4 bands of 16 bits, and two hashes within 6 bits agree in some band up
to one bit (6 < 4 x 2, the pigeonhole principle; Norouzi, Punjani, Fleet 2012, arXiv 1307.2982), so every image is
compared only with those whose band is its own with at most one bit flipped: 17 look-ups a band. Then each pair's
thumbnails are compared: with brightness and contrast taken out, their correlation

    rho = <a - mean a, b - mean b> / (|a - mean a| |b - mean b|)

must reach `ALIKE`. Where the two images' sizes differ, one may be cut out of the other: then each is also tried with up
to a tenth of its border cut off, and `ALIKE_CUT` is enough. docs/data-check.md measures what this finds and misses.

A group is an image and the later ones near it; nearness is not transitive.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from sfumato.data.mirror import THUMB
from sfumato.inspect.scan import Records

RADIUS = 6
"""Bits of 64 in which the hashes of near duplicates may differ."""
ALIKE = 0.99
"""Correlation of thumbnails from which two images of one size are near duplicates."""
ALIKE_CUT = 0.98
"""The same for images of different sizes, one of which may be cut out of the other."""
WORST_CUT = 0.6
"""Correlation of uncut thumbnails below which cutting is not tried; a border of 4 % left 0.65 and more."""
BORDERS = (0.02, 0.04, 0.06, 0.08, 0.1)
"""Fractions of each side that are tried as cut off."""
MOST = 5_000_000
"""Comparisons for one look-up of all images; beyond, crowded bands are searched in part (`exhaustive` is False)."""
CANDIDATES = 20
"""Pairs an image (and a quarter of a million besides) whose thumbnails are compared; beyond, those with closer hashes
are, and `exhaustive` is False."""
BLOCK = 4_000_000

Index = NDArray[np.int64]
Hashes = NDArray[np.uint64]


@dataclass(frozen=True)
class Duplicates:
    """Groups of duplicates, as rows of the records; the first of each group is its earliest image.

    Attributes:
        exact: groups with the same pixels; of each only the first takes part in `near` and `mirrored`.
        near: groups whose first image the others are near duplicates of.
        mirrored: pairs of which one is a near duplicate of the other's mirror image.
        exhaustive: whether every pair within the radius was compared.
    """

    exact: list[list[int]]
    near: list[list[int]]
    mirrored: list[tuple[int, int]]
    exhaustive: bool

    @property
    def spare(self) -> set[int]:
        """Every image that is an exact or near duplicate of an earlier one."""
        return {row for group in (*self.exact, *self.near) for row in group[1:]}


def find_duplicates(records: Records) -> Duplicates:
    """Find the duplicates; images of a single colour, which all look alike, are only compared exactly."""
    groups: dict[bytes, list[int]] = {}
    for row, digest in enumerate(records["digest"]):
        groups.setdefault(digest.tobytes(), []).append(row)
    firsts = np.array([group[0] for group in groups.values()], np.int64)
    rows = firsts[~records["constant"][firsts]]
    some = records[rows]
    i, j, all_plain = _near_pairs(some)
    near = stars(rows[i], rows[j])
    spare = np.isin(rows, [row for group in near for row in group[1:]])
    a, b, all_mirrored = _near_pairs(some, mirrored=True)
    plain = set(zip(i.tolist(), j.tolist(), strict=True))
    pairs = (pair for pair in zip(a.tolist(), b.tolist(), strict=True) if pair not in plain)
    mirrored = [(int(rows[x]), int(rows[y])) for x, y in pairs if not (spare[x] or spare[y])]
    exact = [group for group in groups.values() if len(group) > 1]
    return Duplicates(exact, near, mirrored, all_plain and all_mirrored)


def hamming(a: Hashes, b: Hashes) -> NDArray[np.uint8]:
    """Return in how many bits hashes differ."""
    if hasattr(np, "bitwise_count"):
        return np.asarray(np.bitwise_count(a ^ b), np.uint8)
    return np.asarray(np.unpackbits((a ^ b)[..., None].view(np.uint8), axis=-1).sum(-1, dtype=np.uint8))  # numpy 1


def close_pairs(a: Hashes, b: Hashes, radius: int = RADIUS) -> tuple[Index, Index, bool]:
    """Return every i < j with hashes a[i] and b[j], each (N,), within `radius` bits, and whether all were compared."""
    assert radius <= 7, "four bands and one flipped bit find all pairs within 7 bits"
    codes, exhaustive = np.zeros(0, np.int64), True
    for band in range(4):
        shift = np.uint64(16 * band)
        keys, queries = ((hashes >> shift).astype(np.uint16) for hashes in (b, a))
        order = np.argsort(keys, kind="stable")
        starts = np.concatenate([[0], np.cumsum(np.bincount(keys, minlength=2**16))])  # of each key among the sorted
        parts = [codes]
        for flipped in (0, *(1 << bit for bit in range(16))):
            query = (queries ^ np.uint16(flipped)).astype(np.int64)
            low, counts = starts[query], starts[query + 1] - starts[query]
            if counts.sum() > MOST:
                counts, exhaustive = np.minimum(counts, MOST // len(a)), False
            for i, j in _expanded(low, counts, order):
                near = (i < j) & (hamming(a[i], b[j]) <= radius)
                parts.append(i[near] * len(a) + j[near])
        codes = np.unique(np.concatenate(parts))
    return *np.divmod(codes, max(1, len(a))), exhaustive


def correlation(a: NDArray[np.uint8], b: NDArray[np.uint8], cut: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the correlation of pairs of thumbnails (P, S, S, 3), (P,); where `cut` (P,) says that one may be cut out
    of the other, their best correlation over all `BORDERS`."""
    best: NDArray[np.float64] = (_centred(a) * _centred(b)).sum(1)
    where = np.flatnonzero(cut)
    for border in BORDERS if len(where) else ():
        for whole, part in ((a[where], b[where]), (b[where], a[where])):
            inside = _zoom(border) @ whole.astype(np.float64).transpose(0, 3, 1, 2) @ _zoom(border).T
            rho = (_centred(inside.transpose(0, 2, 3, 1)) * _centred(part)).sum(1)
            best[where] = np.maximum(best[where], rho)
    return best


def _near_pairs(records: Records, mirrored: bool = False) -> tuple[Index, Index, bool]:
    """The pairs i < j of which j (or its mirror image) is a near duplicate of i, and whether all were compared."""
    hashes, others = records["hashes"], records["mirrored" if mirrored else "hashes"]
    pairs, exhaustive = list[Index](), True
    for k in range(2):
        i, j, every = close_pairs(hashes[:, k], others[:, k])
        compared = closest(hamming(hashes[i, k], others[j, k]), 250_000 + CANDIDATES * len(records))
        pairs.append((i * len(records) + j)[compared])
        exhaustive &= every and len(pairs[-1]) == len(i)
    i, j = np.divmod(np.unique(np.concatenate(pairs)), max(1, len(records)))
    thumbs = records["thumb"]
    kept = _alike(records, thumbs, thumbs[:, :, ::-1] if mirrored else thumbs, i, j)
    return i[kept], j[kept], exhaustive


def _alike(records: Records, a: NDArray[np.uint8], b: NDArray[np.uint8], i: Index, j: Index) -> NDArray[np.bool_]:
    """(P,): whether the thumbnails a[i] and b[j] correlate as those of near duplicates do."""
    ours, others, alike = coarse(a), coarse(b), np.zeros(len(i), bool)
    for start in range(0, len(i), 2048):
        x, y = i[start : start + 2048], j[start : start + 2048]
        cut = (records["height"][x] != records["height"][y]) | (records["width"][x] != records["width"][y])
        apart = ((ours[x] - others[y]) ** 2).sum(1)
        hopeful = np.flatnonzero(apart <= 2 - 2 * np.where(cut, WORST_CUT, ALIKE) + 1e-4)
        x, y, cut = x[hopeful], y[hopeful], cut[hopeful]
        alike[start + hopeful] = correlation(a[x], b[y], cut) >= np.where(cut, ALIKE_CUT, ALIKE)
    return alike


def closest(distance: NDArray[np.uint8], most: int) -> NDArray[np.bool_]:
    """Return the pairs within the greatest distance that no more than `most` pairs are within."""
    within = np.cumsum(np.bincount(distance, minlength=RADIUS + 1))
    return np.asarray(distance < np.searchsorted(within, most, "right"))


def coarse(thumbs: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return (N, 48), blocks of 4 x 4 pixels of the centred thumbnails, summed over 4: an orthogonal projection.

    It never lengthens distances, and unit vectors with correlation rho are sqrt(2 - 2 rho) apart, so a pair whose
    projections are further apart than that is dropped without comparing the thumbnails.
    """
    parts = [_centred(thumbs[n : n + 4096]) for n in range(0, len(thumbs), 4096)]
    blocks = [part.reshape(-1, 4, THUMB // 4, 4, THUMB // 4, 3).sum((2, 4)).reshape(-1, 48) / 4 for part in parts]
    return np.concatenate([np.zeros((0, 48)), *blocks]).astype(np.float32)


def stars(i: Index, j: Index) -> list[list[int]]:
    """Return groups of an image that is in no group yet and those of its later neighbours that are in none."""
    taken: set[int] = set()
    groups: dict[int, list[int]] = {}
    for first, other in zip(i.tolist(), j.tolist(), strict=True):
        if first not in taken and other not in taken:
            groups.setdefault(first, [first]).append(other)
            taken.add(other)
    return list(groups.values())


def _expanded(low: Index, counts: Index, order: Index) -> Iterator[tuple[Index, Index]]:
    """Turn (first position, how many) of each query into pairs (query, image), some millions at a time."""
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


def _centred(thumbs: NDArray[np.generic]) -> NDArray[np.float64]:
    """(P, ...) -> (P, D) with mean 0 and length 1; the length of a constant one is 0."""
    flat = thumbs.reshape(len(thumbs), np.prod(thumbs.shape[1:], dtype=int)).astype(np.float64)
    flat -= flat.mean(1, keepdims=True)
    length = np.sqrt((flat**2).sum(1, keepdims=True))
    return np.asarray(flat / np.maximum(length, 1e-9))


@cache
def _zoom(border: float) -> NDArray[np.float64]:
    """(S, S): resample a row of S pixels linearly to its middle, with a fraction cut off at either end."""
    x = ((np.arange(THUMB) + 0.5) * (1 - 2 * border) + border * THUMB - 0.5).clip(0, THUMB - 1)
    return np.asarray(np.maximum(0.0, 1 - np.abs(x[:, None] - np.arange(THUMB))))
