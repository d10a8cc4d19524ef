"""The loss curves of a run as a picture: training loss as it was reported and smoothed, held-out loss, learning rate.

The held-out losses are drawn as they are at the noise levels that training draws, so that both curves are of the same
measure; in the log and elsewhere a held-out loss has all noise levels evenly.

Nothing here imports torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from PIL import Image

from sfumato.errors import UserError
from sfumato.report.chart import Axis, Line, chart
from sfumato.run.events import HeldOut, Stepped
from sfumato.run.summary import RunSummary

SIZE = (960, 640)
"""Width and height of the picture in pixels."""
WINDOW = 1 / 40
"""Half-life of the smoothing, as a fraction of the run."""
_RATE = 200
"""Height of the lower chart."""

Points = Sequence[tuple[float, float]]


def loss_curves(summary: RunSummary) -> Image.Image:
    """Return a picture of a run's losses over the images seen, and below it the learning rate.

    The loss's axis is logarithmic where it spans more than a factor of three. Raises `UserError` before a step.
    """
    steps = summary.of(Stepped)
    raw = [(float(step.images), step.loss) for step in steps if math.isfinite(step.loss)]
    if not raw:
        raise UserError(f"{summary.run.path} has no training step in its log yet: nothing to plot")
    smooth = smoothed(raw, WINDOW * steps[-1].images)
    held_out = [(float(look.images), summary.training_loss(look.buckets)) for look in summary.of(HeldOut)]
    seen = [(images, loss) for images, loss in held_out if math.isfinite(loss)]
    end = float(max(summary.planned or 0, steps[-1].images))
    values = [y for _, y in [*smooth, *seen]] + sorted(y for _, y in raw)[len(raw) // 50 : -(len(raw) // 50) or None]
    lines = [
        Line("training loss of each report", *_columns(raw), faint=True, colour=0),
        Line("its running mean: weights as trained", *_columns(smooth), strong=True, colour=0),
    ]
    if seen:
        log = summary.of(HeldOut)[-1].loss
        name = f"held-out loss at the same noise levels ({log:.4f} in the log, all evenly)"
        lines.append(Line(name, *_columns(seen), dots=True, colour=1))
    rates = Line("", [float(step.images) for step in steps], [step.lr for step in steps])
    images = Axis("images seen", low=0.0, high=end)
    title = f"{summary.run.path.name}: {steps[-1].images:,} images seen"
    page = Image.new("RGB", SIZE)
    page.paste(chart(lines, Axis("", low=0.0, high=end), _limits(values), title, (SIZE[0], SIZE[1] - _RATE)), (0, 0))
    rate = Axis("learning rate", low=0.0, high=max(step.lr for step in steps) * 1.05 or 1.0)
    page.paste(chart([rates], images, rate, "", (SIZE[0], _RATE)), (0, SIZE[1] - _RATE))
    return page


def smoothed(points: Points, half_life: float) -> list[tuple[float, float]]:
    """Return the exponential average of points (x, y), x rising, with a half-life in x; the first weigh in full."""
    result, total, weight = list[tuple[float, float]](), 0.0, 0.0
    before = points[0][0] if points else 0.0
    for x, y in points:
        keep = 0.5 ** ((x - before) / half_life) if half_life > 0 else 0.0
        total, weight, before = keep * total + y, keep * weight + 1.0, x
        result.append((x, total / weight))
    return result


def _columns(points: Points) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def _limits(values: Sequence[float]) -> Axis:
    """The axis of the loss, with some room; logarithmic where positive values span more than a factor of three."""
    low, high = min(values), max(values)
    if low > 0 and high > 3 * low:
        return Axis("loss", True, low / 1.1, high * 1.1)
    alike = high - low < 1e-9 * abs(high)  # but for rounding
    room = (0.0 if alike else 0.06 * (high - low)) or 0.1 * abs(high) or 1.0
    return Axis("loss", False, low - room, high + room)
