"""Line charts as pictures, drawn by Pillow: the same few curves that the page draws, for a terminal's user and for
documents. Nothing here imports torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from PIL import Image, ImageDraw, ImageFont

COLOURS = ((11, 102, 168), (192, 74, 0), (0, 121, 90), (162, 68, 127), (125, 92, 0), (90, 104, 119), (122, 79, 181))
_DASHES = ((), (14, 8), (4, 6), (20, 6, 4, 6), (28, 8), (2, 8), (10, 4, 2, 4))
_INK, _SOFT, _LINE, _PAPER = (34, 37, 43), (88, 94, 105), (220, 223, 229), (255, 255, 255)
_FINE = 2
"""Pixels drawn for one of the picture: lines become smooth."""


@dataclass(frozen=True)
class Line:
    """A curve: its name, empty for none in the legend; its points, where a `None` leaves a gap; whether it is drawn
    broad, or pale behind the others; whether its points are marked; the number of its colour, its position if None."""

    name: str
    x: Sequence[float]
    y: Sequence[float | None]
    strong: bool = False
    faint: bool = False
    dots: bool = False
    colour: int | None = None

    def style(self, position: int) -> tuple[tuple[int, int, int], tuple[int, ...], int]:
        """Return colour, dashes and width of the line at a position."""
        number = position if self.colour is None else self.colour
        colour = COLOURS[number % 7]
        if self.faint:
            colour = tuple((c + 2 * 255) // 3 for c in colour)  # type: ignore[assignment]
        dashes = () if self.faint or self.dots else _DASHES[number % 7]
        return colour, dashes, _FINE if self.faint else (5 if self.strong else 3) * _FINE // 2


@dataclass(frozen=True)
class Axis:
    """An axis: its name, whether it is logarithmic, and its ends where they do not follow from the data."""

    name: str
    log: bool = False
    low: float | None = None
    high: float | None = None


def chart(lines: Sequence[Line], x: Axis, y: Axis, title: str = "", size: tuple[int, int] = (880, 460)) -> Image.Image:
    """Return a chart of curves, each with its colour and its dashes, and a legend below."""
    width, height = (_FINE * n for n in size)
    page = Image.new("RGB", (width, height), _PAPER)
    pen = ImageDraw.Draw(page)
    small, usual = (ImageFont.load_default(size=_FINE * n) for n in (12, 14))
    left, right, top = 76 * _FINE, 20 * _FINE, (44 if title else 18) * _FINE
    rows = _legend(pen, lines, small, left, width - right, None, 0)
    bottom = ((56 if x.name else 44) + 22 * rows) * _FINE
    spans = [_span(lines, axis, index) for axis, index in ((x, 0), (y, 1))]
    box = (left, top, width - right, height - bottom)

    def place(value: float, axis: Axis, span: tuple[float, float], low: float, high: float) -> float:
        a, b, v = (math.log(max(n, 1e-300)) if axis.log else n for n in (*span, value))
        return low + (v - a) / (b - a) * (high - low)

    def point(a: float, b: float) -> tuple[float, float]:
        vertical = place(b, y, spans[1], box[3], box[1])
        return place(a, x, spans[0], box[0], box[2]), min(max(vertical, box[1]), box[3])

    for tick in ticks(*spans[1], y.log):
        vertical = place(tick, y, spans[1], box[3], box[1])
        pen.line((box[0], vertical, box[2], vertical), _LINE, _FINE)
        pen.text((box[0] - 8 * _FINE, vertical), number(tick), _SOFT, small, anchor="rm")
    for tick in ticks(*spans[0], x.log):
        along = place(tick, x, spans[0], box[0], box[2])
        pen.line((along, box[3], along, box[3] + 5 * _FINE), _SOFT, _FINE)
        pen.text((along, box[3] + 8 * _FINE), number(tick), _SOFT, small, anchor="ma")
    pen.line((box[0], box[3], box[2], box[3]), _SOFT, _FINE)
    for n, line in enumerate(lines):
        points = [
            None if b is None or not _fits(a, b, x, y) else point(a, b) for a, b in zip(line.x, line.y, strict=True)
        ]
        _curve(pen, points, *line.style(n))
        for dot in points if line.dots or len(points) == 1 else ():
            if dot is not None:
                pen.circle(dot, 3 * _FINE, line.style(n)[0])
    pen.text(((box[0] + box[2]) / 2, box[3] + 28 * _FINE), x.name, _INK, small, anchor="ma")
    _turned(page, y.name, small, (16 * _FINE, (box[1] + box[3]) // 2))
    if title:
        pen.text((left, 14 * _FINE), title, _INK, usual)
    _legend(pen, lines, small, left, width - right, height - 22 * rows * _FINE - 6 * _FINE, 22 * _FINE)
    return page.resize(size, Image.Resampling.LANCZOS)


def _fits(a: float, b: float, x: Axis, y: Axis) -> bool:
    return math.isfinite(a) and math.isfinite(b) and (a > 0 or not x.log) and (b > 0 or not y.log)


def _span(lines: Sequence[Line], axis: Axis, index: int) -> tuple[float, float]:
    """The ends of an axis."""
    values = [
        v
        for line in lines
        for v in (line.x, line.y)[index]
        if v is not None and math.isfinite(v) and (v > 0 or not axis.log)
    ] or [1.0]
    low = min(values) if axis.low is None else axis.low
    high = max(values) if axis.high is None else axis.high
    return (low, high) if low < high else (low / 2, low * 2) if axis.log else (low - 0.5, low + 0.5)


def ticks(low: float, high: float, log: bool, most: int = 6) -> list[float]:
    """Return round numbers between two ends, multiples of 1, 2 or 5 times a power of ten; on a logarithmic axis powers
    of ten, where these are fewer than three also twice and five times as much."""
    if log:
        first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
        found = [10.0**e for e in range(first, last + 1, max(1, -(-(last - first + 1) // most)))]
        if len(found) < 3:
            found = [m * 10.0**e for e in range(first - 1, last + 1) for m in (1, 2, 5) if low <= m * 10.0**e <= high]
        if len(found) > 2:
            return found
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    step = next(m * power for m in (1, 2, 5, 10) if (high - low) / (m * power) <= most)
    return [k * step for k in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def number(value: float) -> str:
    """Return a number of an axis: 1,000, 0.25, 1e-4."""
    if value != 0 and not 1e-3 <= abs(value) < 1e6:
        mantissa, exponent = f"{value:.0e}".split("e")
        return f"{mantissa}e{int(exponent)}"
    return f"{value:,.0f}" if abs(value) >= 10 and value == round(value) else f"{value:.4g}"


def _curve(
    pen: ImageDraw.ImageDraw,
    points: Sequence[tuple[float, float] | None],
    colour: tuple[int, int, int],
    dashes: Sequence[int],
    width: int,
) -> None:
    """Draw through points, in dashes; a None begins anew."""
    lengths: list[float] = [n * _FINE for n in dashes] or [math.inf]
    left, index = lengths[0], 0
    for start, end in pairwise(points):
        if start is None or end is None:
            continue
        (x, y), (u, v) = start, end
        whole = math.hypot(u - x, v - y)
        done = 0.0
        while done < whole:
            part = min(left, whole - done)
            if index % 2 == 0:
                a, b = done / whole, (done + part) / whole
                pen.line((x + a * (u - x), y + a * (v - y), x + b * (u - x), y + b * (v - y)), colour, width)
            done, left = done + part, left - part
            if left <= 0:
                index = (index + 1) % len(lengths)
                left = lengths[index]


def _turned(
    page: Image.Image, text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, middle: tuple[int, int]
) -> None:
    """Write a text upwards."""
    box = ImageDraw.Draw(page).textbbox((0, 0), text, font=font)
    size = (max(1, int(box[2])), max(1, int(box[3]) + 2))
    label = Image.new("RGB", size, _PAPER)
    ImageDraw.Draw(label).text((0, 0), text, _INK, font)
    label = label.rotate(90, expand=True)
    page.paste(label, (middle[0] - label.width // 2, middle[1] - label.height // 2))


def _legend(
    pen: ImageDraw.ImageDraw,
    lines: Sequence[Line],
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    left: float,
    right: float,
    top: float | None,
    pitch: float,
) -> int:
    """Write the names of the lines in rows, or only count the rows (`top` None)."""
    x, row = left, 0
    for n, line in enumerate(lines):
        if not line.name:
            continue
        wide = 40 * _FINE + pen.textlength(line.name, font=font) + 18 * _FINE
        if x + wide > right and x > left:
            x, row = left, row + 1
        if top is not None:
            y = top + row * pitch
            _curve(pen, [(x, y), (x + 32 * _FINE, y)], *line.style(n))
            pen.text((x + 40 * _FINE, y), line.name, _SOFT, font, anchor="lm")
        x += wide
    return row + (x > left)
