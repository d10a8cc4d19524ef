"""How far images are from the data, in one word and one sentence: the verdict of `evaluate`, of `diagnose`, and of the
end of a training.

Layout and detail (`extractors.wavelets`) are judged apart by their relative energy distance (`metrics.energy`), and the
worse of the two decides. That distance is 0 on average for two samples of the data, whatever their number, so one scale
serves for 64 images and for 10,000; docs/measuring.md has the figures that its steps are between.

Where the 95 % interval holds the step to "some way from the data" or to "far", the verdict is not settled: both words
are given, with the number of images that would probably leave one. An interval's half-width is sqrt( v (1/m + 1/n) )
for m real and n generated images, v about the same for both, so it shrinks to h' with n' images where

    1/n' = (h'/h)^2 (1/m + 1/n) - 1/m,      h' = d / POWER, d the distance of the value from the step

where the factor leaves room for the new value, which is another one: the interval then holds the step no more in four
cases of five. At least twice as many are advised, so the advice ends soon.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from sfumato.evaluate.extractors.wavelets import features, parts
from sfumato.evaluate.features import Shape
from sfumato.evaluate.metrics.energy import energy_distance

VERSION = 1
"""Of the features and the steps: another one makes results anew."""
STEPS = (0.003, 0.01, 0.02, 0.1)
"""Distances at which the next word begins. The models that come along have 0.000 to 0.008, runs of 9,000 images 0.004
(8x8) to 0.021 (28x28), of 3,000 images at 16x16 to 32x32, blotches, 0.043 to 0.048; real images with noise of 20 levels
(of 255) 0.000 to 0.026, blurred over 3x3 pixels 0.06 and more; noise around the data's mean 0.12 to 0.38."""
WORDS = (
    "indistinguishable from the data",
    "close to the data",
    "some way from the data",
    "far from the data",
    "nothing like the data",
)
"""A verdict's words by its grade, 0 to 4."""
CLOSE = 1
"""The last grade with which nothing is wrong."""
POWER = 1 + 0.84 / 1.96
"""Half-widths by which a value must lie from a step, so that a new one is settled with probability 0.8."""
FAR = 3
"""The grade from which samples are wrong to the eye."""
MOST = 1000
"""The most images of each set that are compared: the distance's error is then about 0.001."""
FEWEST = 2
"""The fewest images of a set that a verdict needs; with 64 its error is about 0.004."""


@dataclass(frozen=True)
class Distance:
    """A relative energy distance, its 95 % interval, and that of two halves of the real images (None for too few)."""

    value: float
    low: float
    high: float
    baseline: float | None


@dataclass(frozen=True)
class Verdict:
    """How far images are from the data.

    Attributes:
        layout: distance of colours and shapes on a coarse grid.
        detail: distance of edges, texture and grain; None for images of a single row or column.
        num: images judged.
        real: images that they were compared with; 0 where unknown.
    """

    layout: Distance
    detail: Distance | None
    num: int
    real: int = 0

    @property
    def distance(self) -> Distance:
        """The greater of the two."""
        return max(filter(None, (self.layout, self.detail)), key=lambda distance: distance.value)

    @property
    def grade(self) -> int:
        """0 (indistinguishable from the data) to 4 (nothing like it)."""
        return grade(self.distance.value)

    @property
    def least(self) -> int:
        """The grade of the lower end of the interval: images are at least that far from the data."""
        return grade(self.distance.low)

    @property
    def worst(self) -> int:
        """The grade of the upper end of the interval: images are at most that far from the data."""
        return grade(self.distance.high)

    @property
    def open_steps(self) -> list[float]:
        """The steps to `some way` and to `far` within the interval; none where the verdict is settled."""
        return [step for step in STEPS[CLOSE:FAR] if self.distance.low < step <= self.distance.high]

    @property
    def settling(self) -> int | None:
        """How many images would probably settle the verdict, at least twice as many; None where that is more than are
        compared at most."""
        own, known = self.distance, 1 / self.real if self.real else 0.0
        half = (own.high - own.low) / 2
        nearest = min((abs(own.value - step) for step in self.open_steps), default=math.inf)
        inverse = (nearest / half / POWER) ** 2 * (known + 1 / self.num) - known if half > 0 else math.inf
        return max(2 * self.num, rounded(1 / inverse)) if inverse * MOST >= 1 >= 2 * self.num / MOST else None

    @property
    def words(self) -> str:
        """Two to five words, and in what the images differ where that matters; those of two grades where it is not
        settled."""
        if steps := self.open_steps:
            first, last = (STEPS.index(step) for step in (steps[0], steps[-1]))
            return f"{WORDS[first]} or {WORDS[last + 1].replace('the data', 'it')}"
        if self.grade < 2 or self.detail is None:
            return WORDS[self.grade]
        layout, detail = grade(self.layout.value), grade(self.detail.value)
        where = "in layout and detail" if layout == detail else "in detail" if detail > layout else "in layout"
        return f"{WORDS[self.grade]} {where}"

    @property
    def sentence(self) -> str:
        """The words, and the figures behind them."""
        own = self.distance
        halves = "" if own.baseline is None else f", where two halves of the data have {_three(own.baseline)}"
        figure = f"distance {_three(own.value)} [{_three(own.low)}, {_three(own.high)}]"
        steps = f"from {STEPS[FAR - 1]:g} on it is far, 1 is the most"
        steps = f"below {STEPS[CLOSE]:g} it is close, {steps}" if self.open_steps else steps
        return f"{self.words}{self._unsettled}: {figure}{halves} ({steps})"

    @property
    def _unsettled(self) -> str:
        """What would settle the verdict; empty where it is settled."""
        if not self.open_steps:
            return ""
        if self.settling is None:
            return " (too near the limit between the two for more images to tell)"
        return f" (about {self.settling:,} images would probably tell, {self.num} do not)"

    @classmethod
    def from_dict(cls, table: Mapping[str, Any]) -> Verdict:
        """Return the verdict of a `to_dict`; raises what a missing or a wrong value raises."""
        layout, detail = (table[name] and Distance(**table[name]) for name in ("layout", "detail"))
        return cls(layout, detail, table["num"], table["real"])

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as JSON has them."""
        settled = {"settled": not self.open_steps, "settling": self.settling if self.open_steps else None}
        return {"words": self.words, "grade": self.grade, "sentence": self.sentence, **settled, **asdict(self)}


def grade(distance: float) -> int:
    """Return the grade of a distance: how many of `STEPS` it has reached."""
    return sum(distance >= step for step in STEPS)


def rounded(images: float) -> int:
    """Return a number in two digits, rounded up."""
    unit = 10 ** max(0, len(str(int(images))) - 2)
    return int(-(-int(images) // unit) * unit)


def judge(real: Tensor, generated: Tensor, shape: Shape) -> Verdict | None:
    """Judge by features of `extractors.wavelets`, real (N, D) in random order and generated (M, D), of images of a
    shape (C, H, W); None where a set has fewer than `FEWEST` images."""
    if min(len(real), len(generated)) < FEWEST:
        return None
    ours, theirs = parts(real[:MOST], shape), parts(generated[:MOST], shape)
    views = {name: _distance(ours[name], theirs[name]) for name in ours if ours[name].shape[1]}
    return Verdict(views["layout"], views.get("detail"), len(theirs["layout"]), len(ours["layout"]))


def judge_pixels(real: Tensor, generated: Tensor) -> Verdict | None:
    """Judge pixels (N, C, H, W) in [-1, 1], as `judge`."""
    shape = (real.shape[1], real.shape[2], real.shape[3])
    ours, theirs = (features(clamped(x[:MOST].float())) for x in (real, generated))
    return judge(ours, theirs, shape)


def clamped(pixels: Tensor) -> Tensor:
    """Return pixels as they are when they are shown: clamped to [-1, 1], NaN as -1."""
    return pixels.nan_to_num(-1.0, 1.0, -1.0).clamp(-1, 1)


def _three(value: float) -> str:
    """Three digits after the point, without a minus before 0."""
    return f"{round(value, 3) + 0.0:.3f}"


def _distance(real: Tensor, generated: Tensor) -> Distance:
    measured, half = energy_distance(real, generated), len(real) // 2
    interval = measured.interval()
    assert interval is not None
    baseline = energy_distance(real[:half], real[half : 2 * half]).value if half >= FEWEST else None
    return Distance(measured.value, interval.low, interval.high, baseline)
