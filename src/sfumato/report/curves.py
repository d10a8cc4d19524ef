"""The loss curves of a run as a picture: training loss as it was reported and smoothed, held-out loss, learning rate.

Drawn with Pillow at twice the size and reduced, so that lines are smooth. Nothing here imports torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from sfumato.errors import UserError
from sfumato.report.text import count
from sfumato.run.events import HeldOut, Stepped
from sfumato.run.summary import RunSummary

SIZE = (960, 640)
"""Width and height of the picture in pixels."""
WINDOW = 1 / 40
"""Half-life of the smoothing, as a fraction of the run."""
_TWICE = 2
_INK, _GRID, _RAW, _SMOOTH, _HELD_OUT, _RATE = "#3c3c42", "#e4e4e8", "#b9cbe4", "#1f5fa8", "#c4561c", "#4a7c3f"

Points = Sequence[tuple[float, float]]


def loss_curves(summary: RunSummary) -> Image.Image:
    """Return a picture of a run's losses over the images seen, and below it the learning rate.

    The loss's axis is logarithmic where it spans more than a factor of three. Raises `UserError` before a step.
    """
    steps, held_out = summary.of(Stepped), summary.of(HeldOut)
    raw = [(float(step.images), step.loss) for step in steps if math.isfinite(step.loss)]
    if not raw:
        raise UserError(f"{summary.run.path} has no training step in its log yet: nothing to plot")
    smooth = smoothed(raw, WINDOW * steps[-1].images)
    seen = [(float(look.images), look.loss) for look in held_out if math.isfinite(look.loss)]
    rates = [(float(step.images), step.lr) for step in steps]
    end = float(max(summary.planned or 0, steps[-1].images))
    page = Image.new("RGB", (SIZE[0] * _TWICE, SIZE[1] * _TWICE), "white")
    pen = ImageDraw.Draw(page)
    values = [y for _, y in [*smooth, *seen]] + sorted(y for _, y in raw)[len(raw) // 50 : -(len(raw) // 50) or None]
    loss = Panel(pen, (54, 404), (0.0, end), _limits(values))
    loss.frame("loss", last=False)
    loss.line(raw, _RAW, 1)
    loss.line(smooth, _SMOOTH, 3)
    loss.line(seen, _HELD_OUT, 2, dots=True)
    names = [
        ("training loss, as reported", _RAW),
        ("smoothed", _SMOOTH),
        ("held-out loss, all noise levels evenly", _HELD_OUT),
    ]
    loss.legend(names if seen else names[:2])
    rate = Panel(pen, (450, 584), (0.0, end), (0.0, max(y for _, y in rates) * 1.05 or 1.0))
    rate.frame("learning rate", last=True)
    rate.line(rates, _RATE, 3)
    title = f"{summary.run.path.name}: {steps[-1].images:,} images seen"
    pen.text((90 * _TWICE, 16 * _TWICE), title, _INK, _font(15), anchor="lm")
    return page.resize(SIZE, Image.Resampling.LANCZOS)


def smoothed(points: Points, half_life: float) -> list[tuple[float, float]]:
    """Return the exponential average of points (x, y), x rising, with a half-life in x; the first weigh in full."""
    result, total, weight = list[tuple[float, float]](), 0.0, 0.0
    before = points[0][0] if points else 0.0
    for x, y in points:
        keep = 0.5 ** ((x - before) / half_life) if half_life > 0 else 0.0
        total, weight, before = keep * total + y, keep * weight + 1.0, x
        result.append((x, total / weight))
    return result


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Return round numbers from `low` to `high`, 1, 2 or 5 times a power of ten apart, at most `most`."""
    step = 10.0 ** math.floor(math.log10(max(high - low, 1e-300) / most))
    step *= next(factor for factor in (1, 2, 5, 10) if (high - low) / (factor * step) <= most - 1 or factor == 10)
    return [n * step for n in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Return 1, 2 and 5 times powers of ten from `low` to `high`, or round numbers where these are fewer than three."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found = [factor * 10.0**n for n in powers for factor in (1, 2, 5) if low <= factor * 10.0**n <= high]
    return found if len(found) > 2 else [tick for tick in ticks(low, high) if tick >= low]


@dataclass(frozen=True)
class Panel:
    """A plot between two heights of the picture, x and y limits; y is logarithmic where the lower limit is above 0."""

    pen: ImageDraw.ImageDraw
    rows: tuple[int, int]
    x: tuple[float, float]
    y: tuple[float, float]

    @property
    def logarithmic(self) -> bool:
        """Whether equal factors are equal heights."""
        return self.y[0] > 0 and self.y[1] > 3 * self.y[0]

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Return the position of a point, within the frame, in pixels of the large picture."""
        low, high = self.y
        y = min(max(y, low), high)
        up = math.log(y / low) / math.log(high / low) if self.logarithmic else (y - low) / (high - low or 1.0)
        across = (x - self.x[0]) / (self.x[1] - self.x[0] or 1.0)
        return (90 + across * (SIZE[0] - 120)) * _TWICE, (self.rows[1] - up * (self.rows[1] - self.rows[0])) * _TWICE

    def frame(self, name: str, last: bool) -> None:
        """Draw the axes with their numbers; the last panel names the horizontal one."""
        font = _font(12)
        for y in log_ticks(*self.y) if self.logarithmic else ticks(*self.y, most=4 if last else 6):
            left, height = self.at(self.x[0], y)
            self.pen.line([(left, height), self.at(self.x[1], y)], _GRID, _TWICE)
            self.pen.text((left - 8 * _TWICE, height), f"{y:.4g}", _INK, font, anchor="rm")
        for x in ticks(*self.x):
            across, bottom = self.at(x, self.y[0])
            self.pen.line([(across, bottom), self.at(x, self.y[1])], _GRID, _TWICE)
            self.pen.text((across, bottom + 6 * _TWICE), count(x).replace(" ", ""), _INK, font, anchor="ma")
        (left, bottom), (right, top) = self.at(self.x[0], self.y[0]), self.at(self.x[1], self.y[1])
        self.pen.line([(left, top), (left, bottom), (right, bottom)], _INK, _TWICE)
        self.pen.text((left + 8 * _TWICE, top - 4 * _TWICE), name, _INK, _font(13), anchor="lb")
        if last:
            self.pen.text(((left + right) / 2, bottom + 26 * _TWICE), "images seen", _INK, _font(13), anchor="ma")

    def line(self, points: Points, colour: str, width: int, dots: bool = False) -> None:
        """Draw points joined by lines, with a dot at each where asked."""
        places = [self.at(x, y) for x, y in points]
        if len(places) > 1:
            self.pen.line(places, colour, width * _TWICE // 2 or 1, joint="curve")
        for x, y in places if dots or len(places) == 1 else ():
            radius = 3 * _TWICE
            self.pen.ellipse((x - radius, y - radius, x + radius, y + radius), colour)

    def legend(self, names: Sequence[tuple[str, str]]) -> None:
        """Draw names with their colours in the upper right corner."""
        right, top = self.at(self.x[1], self.y[1])
        for n, (name, colour) in enumerate(names):
            height = top + (14 + 20 * n) * _TWICE
            self.pen.text((right - 40 * _TWICE, height), name, _INK, _font(13), anchor="rm")
            self.pen.line([(right - 32 * _TWICE, height), (right - 6 * _TWICE, height)], colour, 3 * _TWICE)


def _limits(values: Sequence[float]) -> tuple[float, float]:
    """Limits that leave some room; from a positive number on where the values span more than a factor of three."""
    low, high = min(values), max(values)
    if low > 0 and high > 3 * low:
        return low / 1.1, high * 1.1
    room = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
    return low - room, high + room


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=size * _TWICE)
