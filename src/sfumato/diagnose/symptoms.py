"""What is wrong with the samples to look at, told from their statistics and the data's.

A symptom is no cause: noise can come from an average that remembers the initial weights, from a training that diverged
or from weights read the wrong way. It says what `causes` has to explain, and the sentence that a report begins with.

The thresholds were laid between healthy runs and planted faults; docs/diagnose.md has the figures of both. Healthy
small networks fall short of the data's contrast, grain and diversity by up to a fifth, so everything below begins at a
quarter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from sfumato.diagnose.evidence import Data, Draw, Evidence
from sfumato.diagnose.looks import Look

__all__ = ["Symptom", "byte", "channels", "observe"]

NOISY = 1.4
"""Grain, as a multiple of the data's, from which on samples are noisy, if neighbours are less alike too."""
FLAT = 0.35
"""Contrast, as a share of the data's, below which there is next to no picture."""
WASHED = 0.75
GARISH = 1.25
"""Contrast, as a share of the data's, outside which it is wrong."""
SHIFT = 0.12
"""Difference of means, in [-1, 1], from which on brightness or colour is off: 15 of 255."""
SMOOTH = 0.6
"""Grain, as a share of the data's, below which samples are blurred."""
SAME = 0.6
"""Diversity, as a share of the data's, below which samples are too much alike."""
COPIED = 0.5
"""Distance from the nearest training image, as a share of a held-out image's, below which samples are copies."""


@dataclass(frozen=True)
class Symptom:
    """One thing that is off.

    Attributes:
        name: one word or two.
        sentence: with the figures.
    """

    name: str
    sentence: str


def observe(evidence: Evidence) -> tuple[Symptom, ...]:
    """Return what is off with the images that `sfumato sample` draws, the most glaring first; () for nothing."""
    draw, data = evidence.draw, evidence.data
    return tuple(found for check in CHECKS if (found := check(draw, data)) is not None)


def byte(value: float) -> int:
    """Return a value of [-1, 1] as people know it, 0 .. 255."""
    return round((min(max(value, -1.0), 1.0) + 1) * 127.5)


def _broken(draw: Draw, _: Data) -> Symptom | None:
    if draw.finite == 1:
        return None
    return Symptom("broken", f"{100 * (1 - draw.finite):.0f} % of the samples' values are not numbers")


def _noise(draw: Draw, data: Data) -> Symptom | None:
    look, real = draw.look, data.look
    if look.grain < NOISY * real.grain or look.correlation > real.correlation - 0.1:
        return None
    return Symptom(
        "noise",
        f"the samples are noisy: their grain is {_times(look.grain, real.grain)} the data's, and neighbouring pixels "
        f"correlate by {look.correlation:.2f} where the data's do by {real.correlation:.2f}",
    )


def _flat(draw: Draw, data: Data) -> Symptom | None:
    look, real = draw.look, data.look
    if look.contrast > FLAT * real.contrast:
        return None
    level = look.brightness
    name = "black" if level < -0.85 else "white" if level > 0.85 else "grey"
    return Symptom(
        name,
        f"the samples are {name}: their values spread by {127.5 * look.contrast:.0f} around {byte(level)} (of 255), "
        f"the data's by {127.5 * real.contrast:.0f} around {byte(real.brightness)}",
    )


def _contrast(draw: Draw, data: Data) -> Symptom | None:
    look, real = draw.look, data.look
    share = look.contrast / max(real.contrast, 1e-9)
    if WASHED <= share <= GARISH or share <= FLAT:
        return None
    name = "washed out" if share < 1 else "garish"
    return Symptom(name, f"the samples are {name}: their contrast is {100 * share:.0f} % of the data's")


def _tint(draw: Draw, data: Data) -> Symptom | None:
    shifts = _shifts(draw.look, data.look)
    middle = sum(shifts) / len(shifts)
    if max(abs(shift - middle) for shift in shifts) < SHIFT:
        return None
    told = ", ".join(f"{name} {shift * 127.5:+.0f}" for name, shift in zip(channels(len(shifts)), shifts, strict=True))
    return Symptom("tinted", f"the samples are tinted: against the data, of 255, {told}")


def _brightness(draw: Draw, data: Data) -> Symptom | None:
    shift = draw.look.brightness - data.look.brightness
    if abs(shift) < SHIFT:
        return None
    name = "too bright" if shift > 0 else "too dark"
    means = f"{byte(draw.look.brightness)} where the data's is {byte(data.look.brightness)} (of 255)"
    return Symptom(name, f"the samples are {name}: their mean is {means}")


def _blur(draw: Draw, data: Data) -> Symptom | None:
    look, real = draw.look, data.look
    if look.grain > SMOOTH * real.grain or look.contrast <= FLAT * real.contrast:
        return None
    return Symptom("blurred", f"the samples are blurred: their grain is {_times(look.grain, real.grain)} the data's")


def _collapse(draw: Draw, data: Data) -> Symptom | None:
    share = draw.look.diversity / data.look.diversity if data.look.diversity > 0 else 1.0
    if share > SAME:
        return None
    return Symptom("collapsed", f"the samples are too much alike: two differ {share:.2f} times as much as the data's")


def _copies(draw: Draw, data: Data) -> Symptom | None:
    if not data.nearest or draw.nearest > COPIED * data.nearest:
        return None
    share = draw.nearest / data.nearest
    return Symptom("copies", f"the samples lie {share:.2f} times as far from a training image as held-out images do")


CHECKS: tuple[Callable[[Draw, Data], Symptom | None], ...] = (
    _broken, _noise, _flat, _tint, _brightness, _contrast, _blur, _collapse, _copies,
)  # fmt: skip


def channels(count: int) -> Iterator[str]:
    """Return what the channels are called."""
    names = {1: ("grey",), 2: ("grey", "alpha"), 3: ("red", "green", "blue"), 4: ("red", "green", "blue", "alpha")}
    return iter(names.get(count) or tuple(f"channel {n}" for n in range(count)))


def _shifts(look: Look, real: Look) -> tuple[float, ...]:
    return tuple(a - b for a, b in zip(look.mean, real.mean, strict=True))


def _times(a: float, b: float) -> str:
    return f"{a / b:.1f} times" if b > 0 else "above"
