"""The values that pictures hold, counted picture by picture: what a range has to cover, and what is probably no data.

`Values.of` describes one picture in a few numbers, and `merged` two descriptions as one of both, so processes can
describe pictures that no process has together. The training and `data check` draw their findings from the same numbers.

Exact are the least and the greatest value, the ones next to them, and how often the two occur; of 8-bit colour only the
first two. The moments, and whether there are only a few different pixels, are of about `SAMPLE` pixels of each picture.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FEW = 32
"""At most this many different pixels are listed."""
SAMPLE = 4096
_NUMBERS = struct.Struct("<4d4q2dh")


@dataclass(frozen=True)
class Values:
    """The values of some pictures; by default of none.

    Attributes:
        low, high: the least and the greatest.
        above_low, below_high: the ones next to them, of 8-bit colour among the pictures' own ends; infinite where there
            are none.
        at_low, at_high: how many values are `low` and `high`; of `size` values.
        count, total, squares: of the sampled values their number, sum, and sum of squares; of floats only.
        few: the different pixels, in order, those of several channels as one number; None where they are more than
            `FEW`.
    """

    low: float = math.inf
    high: float = -math.inf
    above_low: float = math.inf
    below_high: float = -math.inf
    at_low: int = 0
    at_high: int = 0
    size: int = 0
    count: int = 0
    total: float = 0.0
    squares: float = 0.0
    few: tuple[float, ...] | None = ()

    @classmethod
    def of(cls, pixels: NDArray[Any]) -> Values:
        """Describe the values of pixels (..., C) of any kind, at least one: those of one picture."""
        return cls.of_each(pixels[None])[0]

    @classmethod
    def of_each(cls, pixels: NDArray[Any]) -> tuple[Values, ...]:
        """Describe N pictures of one size, (N, ..., C), by descriptions that are to be joined.

        One description is enough for integers. Floats have N, all but the first with sums alone, since sums are joined
        picture by picture.
        """
        count, channels = len(pixels), pixels.shape[-1]
        step = max(1, pixels[0, ..., 0].size // SAMPLE)
        described: dict[str, Any] = {"size": pixels.size, "few": _few(pixels, step)}
        if pixels.dtype == np.uint8 and channels > 1:
            axes = tuple(range(1, pixels.ndim))
            return (cls(*_ends(sorted({*pixels.min(axes).tolist(), *pixels.max(axes).tolist()})), **described),)
        if pixels.dtype == np.uint8:
            occurrences = np.bincount(pixels.ravel(), minlength=256)
            different, counts = np.flatnonzero(occurrences), occurrences[occurrences > 0]
            few = tuple(map(float, different.tolist())) if len(different) <= FEW else None
            return (cls(*_ends(different), int(counts[0]), int(counts[-1]), **described | {"few": few}),)
        flat, low, high = pixels.ravel(), pixels.min(), pixels.max()
        inner = (flat[flat > low].min(), flat[flat < high].max()) if low < high else (low, high)
        at_ends = int(np.count_nonzero(flat == low)), int(np.count_nonzero(flat == high))
        ends = _ends(np.unique(np.array([low, *inner, high])))
        if pixels.dtype != np.float32:
            return (cls(*ends, *at_ends, **described),)
        values = _sample(pixels, step).reshape(count, -1).astype(np.float64)
        sums, squares = values.sum(1).tolist(), np.square(values).sum(1).tolist()  # BLAS would start threads
        first = cls(*ends, *at_ends, count=values.size, total=sums[0], squares=squares[0], **described)
        return first, *(cls(total=total, squares=square) for total, square in zip(sums[1:], squares[1:], strict=True))

    def merged(self, other: Values) -> Values:
        """Describe the pictures of both."""
        return Values.joined([self, other])

    @classmethod
    def joined(cls, many: list[Values]) -> Values:
        """Describe the pictures of all of them."""
        low, high = min(one.low for one in many), max(one.high for one in many)
        ends = {x for one in many for x in (one.low, one.high, one.above_low, one.below_high)}
        few, total, squares = set[float](), 0.0, 0.0
        for one in many:  # one after another, since the sum of floats depends on how they are grouped
            total, squares = total + one.total, squares + one.squares
            few.update(one.few or ())
        listed = len(few) <= FEW and all(one.few is not None for one in many)
        return cls(
            low,
            high,
            min((x for x in ends if x > low), default=math.inf),
            max((x for x in ends if x < high), default=-math.inf),
            sum(one.at_low for one in many if one.low == low),
            sum(one.at_high for one in many if one.high == high),
            sum(one.size for one in many),
            sum(one.count for one in many),
            total,
            squares,
            tuple(sorted(few)) if listed else None,
        )

    @property
    def deviation(self) -> float:
        """The standard deviation of the sampled values."""
        mean = self.total / max(1, self.count)
        return math.sqrt(max(0.0, self.squares / max(1, self.count) - mean * mean))

    def plain(self) -> list[Any]:
        """Return the attributes as JSON has them, in order."""
        return [*list(vars(self).values())[:-1], None if self.few is None else list(self.few)]

    @classmethod
    def from_plain(cls, values: list[Any]) -> Values:
        """Return what `plain` made."""
        few = None if values[-1] is None else tuple(values[-1])
        table = dict(zip(vars(cls()), values, strict=True)) | {"few": few}
        return cls(**table | {name: int(table[name]) for name in ("at_low", "at_high", "size", "count")})

    def pack(self) -> bytes:
        """Return the attributes as bytes, in a fifth of the time of JSON."""
        *numbers, few = vars(self).values()
        return _NUMBERS.pack(*numbers, -1 if few is None else len(few)) + struct.pack(f"<{len(few or ())}d", *few or ())

    @classmethod
    def unpack(cls, data: bytes | memoryview) -> tuple[Values, int]:
        """Return what `pack` put at the beginning of these bytes, and how many bytes that are."""
        numbers = _NUMBERS.unpack_from(data)
        length = numbers[-1]
        few = None if length < 0 else struct.unpack_from(f"<{length}d", data, _NUMBERS.size)
        return cls(*(*numbers[:-1], few)), _NUMBERS.size + 8 * max(0, length)


def _ends(different: Sequence[float] | NDArray[Any]) -> tuple[float, float, float, float]:
    """low, high, above_low and below_high of ascending different values."""
    low, high = float(different[0]), float(different[-1])
    return low, high, float(different[1]) if low < high else math.inf, float(different[-2]) if low < high else -math.inf


def _sample(pixels: NDArray[Any], step: int) -> NDArray[Any]:
    """Each picture's pixels 0, step, 2 step, ..., (N, n, C)."""
    return np.asarray(pixels.reshape(len(pixels), -1, pixels.shape[-1])[:, ::step])


def _few(pixels: NDArray[Any], step: int) -> tuple[float, ...] | None:
    """The different pixels in the samples of pictures (N, ..., C), None where they are many."""
    first, channels = _sample(pixels[..., :1], step), pixels.shape[-1]
    # most pictures show that they are many in a few pixels from all over, which is quicker to see than in all of them
    some = first[:: 1 + len(first) // 16, :: 1 + first.shape[1] // (4 * FEW)]
    if channels > 4 or len(set(some.ravel().tolist())) > FEW:
        return None
    different = _different(first.ravel())
    if channels > 1 and len(different) <= FEW:
        if pixels.dtype != np.uint8:
            return None
        different = np.unique((_sample(pixels, step).astype(np.int64) << (8 * np.arange(channels))).sum(2))
    return tuple(different.astype(np.float64).tolist()) if len(different) <= FEW else None


def _different(values: NDArray[Any]) -> NDArray[Any]:
    """The different values (n,), ascending."""
    return np.flatnonzero(np.bincount(values, minlength=256)) if values.dtype == np.uint8 else np.unique(values)
