"""What a cause returns, and the yardsticks and commands that several causes share."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from sfumato.diagnose.evidence import Evidence, Reading

__all__ = [
    "BETTER",
    "FAR",
    "FEW",
    "GAIN",
    "UNLEARNED",
    "Finding",
    "again",
    "against_trivial",
    "far",
    "redraw",
    "resume",
    "unlearned",
]

FAR = 0.05
"""Energy distance from the data from which on samples are badly off: healthy small runs stay below 0.02."""
UNLEARNED = 0.95
"""Error at medium noise, as a share of the pixel-by-pixel guess's, above which nothing of the images was learned: small
healthy runs have 0.6 to 0.8, a run of ten steps 1.3, one that diverged 2.0."""
BETTER = 0.8
"""What another reading's or other weights' error must be below, as a share of this one's, to be called better."""
FEW = 20
"""Different images below which a model can only repeat them."""
GAIN = 0.7
"""Energy distance under a remedy, as a share of that without, below which the remedy works."""


@dataclass(frozen=True)
class Finding:
    """One cause, found.

    Attributes:
        cause: its name.
        severity: 3 ruins the samples, 2 harms them, 1 is worth knowing.
        sentence: what is wrong, in plain words.
        figures: what that rests on, a sentence each.
        remedy: what to do, a command each.
    """

    cause: str
    severity: int
    sentence: str
    figures: tuple[str, ...]
    remedy: tuple[str, ...]


def again(e: Evidence, *changes: str) -> str:
    """Return the command that trains the run anew with some values changed."""
    source, run = shlex.quote(e.data.source), shlex.quote(e.path)
    if e.training is None:
        return f"sfumato train {source} {' '.join(changes)}".rstrip()
    return f"sfumato train {source} --config {run}/config.toml --run {run}-again {' '.join(changes)}".rstrip()


def unlearned(e: Evidence) -> bool:
    """Whether the weights as trained know nothing of the images, however their output is read."""
    if e.data.distinct < FEW:  # the yardstick is as good as the images are alike
        return False
    own = e.readings.get("raw", e.reading)
    return (
        min(own.freed, *(reading.freed for name, reading in e.readings.items() if name.startswith("as "))) > UNLEARNED
    )


def resume(e: Evidence) -> str:
    """Return the command that goes on with the run."""
    source, run = shlex.quote(e.data.source), shlex.quote(e.path)
    return f"sfumato train {source} --config {run}/config.toml --run {run}"


def redraw(e: Evidence, words: str, weights: str = "") -> str:
    """Return the command that draws from the run in another way."""
    place = f"{shlex.quote(e.path)}{'/weights/' + weights + '.safetensors' if weights else ''}"
    return f"sfumato sample {place} {words}".rstrip()


def against_trivial(reading: Reading) -> str:
    """Say how a reading's error compares with the trivial one."""
    return f"{reading.middle:.2f} times that of the best guess made pixel by pixel, at medium noise"


def far(e: Evidence) -> bool:
    """Whether the samples are badly off, whatever they look like."""
    return e.draw.apart > FAR
