"""What is probably wrong with the values of a collection, in sentences: the same before and in training.

Training maps a range, low .. high, to [-1, 1] (`codec.format`). That goes wrong without an error where

    far         a value lies far from all others: a mark for missing data, or an outlier. Its distance from the next
                one is greater than the range of the rest, or a tenth of it for the usual marks (-9999, ...)
    unused      integers use less than a quarter of their range, such as 12 bits in 16, counts, labels 0, 1, 2
    narrow      floats' deviation is below a hundredth of their range: a few values stretch it
    labels      the pictures hold only a few different values, which resampling would mix
    too large   their squares don't fit into float32
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from sfumato.codec.format import PixelFormat
from sfumato.data.formats.values import Values

MARKS = (-9999.0, -99999.0, -999.0, -32768.0, -3.4028234663852886e38, 1e20, 9.969209968386869e36)
"""Values that usually mark missing data, in the order of how common they are; NaN is another one."""
LARGEST = 1e18
"""The largest floats that are trained on: a square fits into float32, with room for a sum of 100."""
USED, NARROW = 1 / 4, 1 / 100
CUTS = (0.1, 1.0, 5.0)
"""Percentiles that are advised to cut outliers off, the first that holds twice as many values as there are."""


@dataclass(frozen=True)
class Finding:
    """One finding; `trouble` where training would be useless or wrong."""

    topic: str
    text: str
    trouble: bool = False


def findings(values: Values, format: PixelFormat, resampled: bool) -> list[Finding]:
    """Return the findings on values that are trained on in a format; `resampled` where pictures are resized by mixing
    their pixels."""
    if not values.size:
        return []
    far = list(_far(values, format))
    return [*far, *(_range(values, format) if not far else ()), *_labels(values, resampled)]


def too_large(format: PixelFormat) -> str | None:
    """Return why floats can't be trained on, None where they can."""
    if format.levels is None and max(-format.low, format.high) > LARGEST:
        return (
            f"values from {format.low:.5g} to {format.high:.5g} are too large to train on (at most {LARGEST:g}): name "
            "the one that marks missing data (data.nodata), cut outliers off (data.percentiles=1,99), or divide "
            "the values"
        )
    return None


def inner_range(values: Values, format: PixelFormat) -> tuple[float, float]:
    """Return the least and the greatest value, those far from all others left out."""
    inner = [rest for _, _, rest in _marks(values, format)]
    return max([low for low, _ in inner], default=values.low), min([high for _, high in inner], default=values.high)


def _marks(values: Values, format: PixelFormat) -> Iterator[tuple[float, int, tuple[float, float]]]:
    """Values far from all others, how often they occur, and the range of the others."""
    sides = (
        (values.low, values.at_low, values.above_low, values.high),
        (values.high, values.at_high, values.below_high, values.low),
    )
    for value, number, following, end in sides:
        gap, rest = abs(value - following), abs(end - following)
        if format.kind == "8" and values.few is None:  # a stroke on paper, a black frame: bytes hold no marks
            continue
        if math.isfinite(gap) and rest > 0 and (gap > rest or (value in MARKS and gap > rest / 10)):
            yield value, number, (min(following, end), max(following, end))


def _far(values: Values, format: PixelFormat) -> Iterator[Finding]:
    """Single values far from all others."""
    for value, number, (low, high) in _marks(values, format):
        if not format.low <= value <= format.high:  # it does not stretch the range
            continue
        x, y = (2 * (v - format.low) / (format.high - format.low) - 1 for v in (low, high))
        times = f"{number:,} times" if number > 1 else "once"
        percent = next((p for p in CUTS if number / values.size < p / 200), None)
        cut = f", or as an outlier cut off by data.percentiles={percent:g},{100 - percent:g}" if percent else ""
        yield Finding(
            "values",
            f"the value {_shortest(value)} ({times}) is far from all others, which lie from {low:.5g} to {high:.5g}: "
            f"training sees them in [{x:.3g}, {y:.3g}] of [-1, 1]. As a mark for missing data it is left out by "
            f"data.nodata={_shortest(value)} (holes take the mean of their picture){cut}",
            trouble=True,
        )


def _shortest(value: float) -> str:
    """The shortest text that reads back as the same float32."""
    texts = (f"{value:.{digits}g}" for digits in range(5, 10))
    return next((text for text in texts if np.float32(text) == np.float32(value)), repr(value))


def _range(values: Values, format: PixelFormat) -> Iterator[Finding]:
    """A range that the values use little of."""
    if format.levels is not None:
        if values.high - values.low < USED * (format.levels - 1) and values.low < values.high:
            top = 2 * values.high / (format.levels - 1) - 1
            bottom = 2 * values.low / (format.levels - 1) - 1
            yield Finding(
                "range",
                f"values reach from {values.low:g} to {values.high:g} of 0 to {format.levels - 1}: training sees them "
                f"in [{bottom:.3g}, {top:.3g}] of [-1, 1]; data.depth=float takes the range from the values, "
                f"data.range={values.low:g},{values.high:g} gives it",
                trouble=True,
            )
    elif 0 < values.deviation < NARROW * (format.high - format.low):
        yield Finding(
            "range",
            f"most values lie in a small part of the range {format.low:.5g} to {format.high:.5g}: their deviation is "
            f"{values.deviation:.3g}; data.percentiles=0.1,99.9 takes the range without the extremes",
        )


def _labels(values: Values, resampled: bool) -> Iterator[Finding]:
    """Label maps that would be blurred."""
    if resampled and values.few is not None and len(values.few) > 1:
        yield Finding(
            "label maps",
            f"the pictures hold only {len(values.few)} different values, as label maps and masks do, and resizing "
            "mixes them: data.resample=nearest keeps them",
        )
