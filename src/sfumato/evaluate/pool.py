r"""Bits of parts of a set of images, put together: what scoring the whole set at once would have said.

A mean with its deviation is enough to merge. With means m_k and variances s_k^2 of n_k images each, N = sum n_k,

    m = sum n_k m_k / N,    (N - 1) s^2 = sum ( (n_k - 1) s_k^2 + n_k (m_k - m)^2 )                 Chan et al. 1979

exactly, and s_k^2 can be read back from the part's interval, z s_k / sqrt(n_k). The variance between draws of noise for
the same image is a mean over images, and merges as one.

Curves over the same times merge as means (rmse: of squares). Those of sampled terms are over stretches of t with about
equally many terms an image, and merge stretch by stretch in the same way.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from statistics import NormalDist

from sfumato.evaluate.bits import Bits, Estimate

__all__ = ["from_json", "pool", "to_json"]

Z = NormalDist().inv_cdf(0.975)
STRETCHES = 20
"""How many stretches of t a curve of sampled terms has."""
Point = tuple[float, float, float]


def to_json(bits: Bits) -> bytes:
    """Return bits as JSON, every number exact."""
    return json.dumps(asdict(bits)).encode()


def from_json(content: bytes) -> Bits:
    """Return what `to_json` was given."""
    table = json.loads(content)
    for name in ("total", "prior", "rate", "distortion"):
        table[name] = table[name] and Estimate(**table[name])
    return Bits(**table | {"curve": tuple(tuple(point) for point in table["curve"])})


def pool(parts: Sequence[Bits]) -> Bits:
    """Return the bits of all the parts' images together.

    Args:
        parts: of different images, at least one, scored in the same way.
    """
    first, counts = parts[0], [part.images for part in parts]

    def pooled(name: str) -> Estimate | None:
        estimates = [getattr(part, name) for part in parts]
        return None if estimates[0] is None else _merge(estimates, counts, first.repeats)

    total = pooled("total")
    assert total is not None
    return Bits(
        first.kind,
        total,
        prior=pooled("prior"),
        rate=pooled("rate"),
        distortion=pooled("distortion"),
        images=sum(counts),
        repeats=first.repeats,
        steps=first.steps,
        curve=_curve(parts),
    )


def _merge(estimates: Sequence[Estimate], counts: Sequence[int], repeats: int) -> Estimate:
    """Merge means over `counts` images each."""
    num = sum(counts)
    mean = math.fsum(n * e.mean for n, e in zip(counts, estimates, strict=True)) / num
    squares = within = 0.0
    for n, e in zip(counts, estimates, strict=True):
        variance = (e.half_width / Z) ** 2 * n if n > 1 else 0.0
        squares += (n - 1) * variance + n * (e.mean - mean) ** 2
        within += n * ((e.noise_half_width or 0.0) / Z) ** 2 * n * repeats / num
    half = Z * math.sqrt(squares / (num - 1) / num) if num > 1 else math.inf
    return Estimate(mean, half, Z * math.sqrt(within / (num * repeats)) if repeats > 1 else None)


def _curve(parts: Sequence[Bits]) -> tuple[Point, ...]:
    """Merge curves point by point, or stretch by stretch."""
    gathered: dict[float, list[tuple[int, Point]]] = {}
    for part in parts:
        for point in part.curve:
            place = -math.ceil(point[0] * STRETCHES - 1e-9) if part.kind == "sampled" else -point[0]
            gathered.setdefault(place, []).append((part.images, point))
    return tuple(_mean(gathered[place]) for place in sorted(gathered))


def _mean(points: Sequence[tuple[int, Point]]) -> Point:
    """The mean of points weighted by their images."""
    num = sum(n for n, _ in points)
    t, bits = (math.fsum(n * point[k] for n, point in points) / num for k in (0, 1))
    return t, bits, math.sqrt(math.fsum(n * point[2] ** 2 for n, point in points) / num)
