"""What a cause returns, and the thresholds, phrases and commands that several causes share."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from sfumato.diagnose.evidence import Evidence

FAR = 0.05
"""Energy distance from the data above which samples are badly wrong: healthy small runs stay below 0.02."""
UNLEARNED = 0.95
"""Error at medium noise relative to the trivial one above which nothing was learned: small healthy runs
have 0.6 to 0.8, a run of ten steps 1.3, one that diverged 2.0."""
BETTER = 0.8
"""Error of another reading or of other weights, relative to this one's, below which it is better."""
FEW = 20
"""Distinct images below which a model can only repeat them."""
GAIN = 0.7
"""Energy distance under a remedy, relative to that without, below which the remedy works."""
GUESS = "that of the best guess made pixel by pixel"


@dataclass(frozen=True)
class Finding:
    """A cause that was found.

    Attributes:
        severity: 3 ruins the samples, 2 harms them, 1 is worth knowing.
        figures: the evidence, a sentence each.
        remedy: commands that fix it.
        cause: its name, set by `conclude`.
    """

    severity: int
    sentence: str
    figures: tuple[str, ...]
    remedy: tuple[str, ...]
    cause: str = ""


def distances(e: Evidence, first: str, name: str, second: str) -> str:
    """Return a sentence on how far the default samples and others are from the data."""
    own, other = e.default.distance, e.samples[name].distance
    return f"The samples' distance from the data is {own:.3f} {first}, {other:.3f} {second}."


def far(e: Evidence) -> bool:
    """Return whether the samples are badly wrong by their distance."""
    return e.default.distance > FAR


def unlearned(e: Evidence) -> bool:
    """Return whether the weights as trained have learned nothing of the images, for any reading of their output."""
    if e.data.distinct < FEW:  # the trivial guess is good where images are alike
        return False
    return min(e.trained.centred, *(reading.centred for reading in e.others.values())) > UNLEARNED


def again(e: Evidence, *changes: str, suffix: str = "-again") -> str:
    """Return the command that trains the run again with some values changed; without a suffix, that resumes it."""
    source, run = shlex.quote(e.data.source), shlex.quote(e.path)
    own = f"--config {run}/config.toml --run {run}{suffix}" if e.training is not None else ""
    return " ".join(filter(None, ("sfumato train", source, own, *changes)))


def resample(e: Evidence, words: str) -> str:
    """Return the command that samples from the run with other options."""
    return f"sfumato sample {shlex.quote(e.path)} {words}"
