"""Symptoms: visible faults of the samples, by their statistics and the data's.

A symptom is not a cause: noise can come from an average that still holds the initial weights, from a training that
diverged or from weights read the wrong way. The thresholds are between healthy runs and planted faults
(docs/diagnose.md has the figures). Healthy small networks fall short of the data's contrast, grain and diversity by up
to a fifth, so everything below begins at a quarter.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sfumato.diagnose.evidence import Data, Evidence, Samples

NOISY = 1.4
"""Grain relative to the data's above which samples are noisy, if neighbours are less correlated too."""
FLAT = 0.35
"""Contrast relative to the data's below which samples are nearly uniform."""
WASHED = 0.75
GARISH = 1.25
"""Contrast relative to the data's outside which it is wrong."""
SHIFT = 0.12
"""Difference of means, in [-1, 1], above which brightness or colour is wrong: 15 of 255."""
SMOOTH = 0.6
"""Grain relative to the data's below which samples are blurred."""
SAME = 0.6
"""Diversity relative to the data's below which samples are too much alike."""
COPIED = 0.5
"""Distance from the nearest training image, relative to a held-out image's, below which samples are copies."""

CHANNELS = {1: ("grey",), 2: ("grey", "alpha"), 3: ("red", "green", "blue"), 4: ("red", "green", "blue", "alpha")}


@dataclass(frozen=True)
class Symptom:
    """A visible fault: one word or two, and a sentence with the figures."""

    name: str
    sentence: str


def observe(evidence: Evidence) -> tuple[Symptom, ...]:
    """Return the symptoms of samples of the default recipe, the most visible first."""
    return tuple(Symptom(name, f"the samples are {rest}") for name, rest in _observed(evidence.default, evidence.data))


def byte(value: float) -> int:
    """Return a value of [-1, 1] as a byte, 0 .. 255."""
    return round((min(max(value, -1.0), 1.0) + 1) * 127.5)


def channel_names(count: int) -> tuple[str, ...]:
    """Return the names of the channels of an image."""
    return CHANNELS.get(count) or tuple(f"channel {n}" for n in range(count))


def shifts(values: Sequence[float]) -> str:
    """Return differences of each channel, in [-1, 1], as `red +5, green -3, blue +0` (of 255)."""
    names = zip(channel_names(len(values)), values, strict=True)
    return ", ".join(f"{name} {127.5 * value:+.0f}" for name, value in names)


def _observed(samples: Samples, data: Data) -> Iterator[tuple[str, str]]:
    """The name of each symptom, and the rest of its sentence."""
    ours, real = samples.statistics, data.statistics
    contrast, flat = ours.contrast / max(real.contrast, 1e-9), ours.contrast <= FLAT * real.contrast
    grain = f"{ours.grain / real.grain:.1f} times" if real.grain > 0 else "above"
    if samples.finite < 1:
        yield "broken", f"not finite: {100 * (1 - samples.finite):.0f} % of their values are not numbers"
    if ours.grain >= NOISY * real.grain and ours.correlation <= real.correlation - 0.1:
        neighbours = f"neighbouring pixels correlate by {ours.correlation:.2f} (the data's by {real.correlation:.2f})"
        yield "noise", f"noisy: their grain is {grain} the data's, and {neighbours}"
    if flat:
        name = "black" if ours.brightness < -0.85 else "white" if ours.brightness > 0.85 else "grey"
        own, others = (f"{127.5 * x.contrast:.0f} around {byte(x.brightness)}" for x in (ours, real))
        yield name, f"{name}: their values have a standard deviation of {own} (of 255), the data's of {others}"
    differences = [a - b for a, b in zip(ours.mean, real.mean, strict=True)]
    middle = sum(differences) / len(differences)
    if max(abs(difference - middle) for difference in differences) >= SHIFT:
        yield "tinted", f"tinted: their mean is off by {shifts(differences)} (of 255)"
    if abs(ours.brightness - real.brightness) >= SHIFT:
        name = "too bright" if ours.brightness > real.brightness else "too dark"
        yield name, f"{name}: their mean is {byte(ours.brightness)}, the data's {byte(real.brightness)} (of 255)"
    if not flat and not WASHED <= contrast <= GARISH:
        name = "washed out" if contrast < 1 else "garish"
        yield name, f"{name}: their contrast is {100 * contrast:.0f} % of the data's"
    if not flat and ours.grain <= SMOOTH * real.grain:
        yield "blurred", f"blurred: their grain is {grain} the data's"
    if real.diversity > 0 and ours.diversity <= SAME * real.diversity:
        alike = f"{ours.diversity / real.diversity:.2f} times as much as two training images"
        yield "collapsed", f"too much alike: two of them differ {alike}"
    if data.nearest and samples.nearest <= COPIED * data.nearest:
        apart = f"{samples.nearest / data.nearest:.2f} times as far"
        yield "copies", f"copies: {apart} from a training image as held-out images"
