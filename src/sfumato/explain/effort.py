"""How much is computed for a page: fixed by the model alone, so that a page does not depend on the machine.

The counts below suit an image of up to 32x32 in colour and a small network. A larger image has fewer of them, so that
the page stays below 12 MB, and a costlier network fewer evaluations, so that it stays below three minutes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

_RAW = 1_000_000
"""Bytes of a large array of the page, before base64."""
SIDE = 64
"""The largest side of a picture that is only looked at; larger ones are averaged over squares."""
_EVALUATIONS = 20_000
"""About how many network evaluations the largest counts take."""
_FLOPS = 6e12
"""FLOPs of all network evaluations: 100 to 150 seconds on two cores."""


def _between(low: int, value: float, high: int) -> int:
    return max(low, min(high, math.floor(value)))


@dataclass(frozen=True)
class Effort:
    """Counts for one model.

    Attributes:
        images: images that can be chosen on the page.
        examined: of them those whose predictions are computed beforehand.
        times: times at which they are.
        scored: images of each side of the split whose bound is measured.
        terms: times at which the bound is measured.
        ranked: training images that are ranked by their loss.
        frames: of the film.
        filmed: samples in the film.
        compared: samples for comparing samplers.
        shown: of them those that are shown.
        wall: samples with their seeds.
        moments: grids of the time machine.
        diagnosed: samples of each kind for the diagnosis.
        checked: images of the collection that are scanned, which does not depend on the model.
        evaluations: of the network with which samplers are compared, increasing.
        size: bytes of a picture that is only looked at.
    """

    images: int
    examined: int
    times: int
    scored: int
    terms: int
    ranked: int
    frames: int
    filmed: int
    compared: int
    shown: int
    wall: int
    moments: int
    size: int
    diagnosed: int
    checked: int = 600
    evaluations: tuple[int, ...] = (5, 10, 20, 50)

    @classmethod
    def of(cls, shape: tuple[int, ...], flops: int) -> Effort:
        """Return the counts for images of a shape (C, H, W) and a network of so many FLOPs an image."""
        size, factor = math.prod(shape), -(-max(shape[1:]) // SIDE)
        seen = shape[0] * -(-shape[1] // factor) * -(-shape[2] // factor)
        work = min(1.0, _FLOPS / (flops * _EVALUATIONS))
        examined = _between(1, _RAW / (2 * size * 24), 4)
        filmed = _between(1, _RAW / (3 * seen * 20), 3)
        return cls(
            images=_between(1, _RAW / (4 * size), 8),
            examined=examined,
            times=_between(3, _RAW / (2 * size * examined), 24),
            scored=_between(4, 48 * work, 48),
            terms=_between(10, 32 * work, 32),
            ranked=_between(16, 384 * work, 384),
            frames=_between(8, _RAW / (3 * seen * filmed), 32),
            filmed=filmed,
            compared=_between(4, 16 * work, 16),
            shown=_between(1, _RAW / (16 * seen), 6),
            wall=_between(8, min(64 * work, _RAW / seen / 3), 60),
            moments=_between(3, _RAW / (10 * seen), 12),
            size=seen,
            diagnosed=_between(8, 24 * work, 24),
        )

    def fitting(self, most: int, each: int = 1, least: int = 2) -> int:
        """Return how many groups of `each` pictures fit into a third of a large array, at least `least`."""
        return _between(least, _RAW / 3 / (each * self.size), most)

    def total(self, steps: int, chain: int) -> int:
        """About how many network evaluations the page takes: `steps` of the default recipe, `chain` steps in all."""
        bound = 2 * self.scored * self.terms
        compared = 2 * max(self.evaluations) + 4 * sum(self.evaluations)
        return (
            self.examined * self.times
            + bound
            + 4 * self.ranked
            + self.filmed * min(100, chain)
            + self.compared * compared
            + self.wall * steps
            + self.diagnosed * 300
            + 100
        )
