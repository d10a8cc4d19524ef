"""What a cause returns, and the thresholds, phrases and commands that several causes share."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from sfumato.diagnose.evidence import Evidence
from sfumato.evaluate.verdict import FAR
from sfumato.report import text

UNLEARNED = 0.95
"""Error at medium noise relative to the trivial one above which nothing was learned: small healthy runs
have 0.6 to 0.8, a run of ten steps 1.3, one that diverged 2.0."""
BETTER = 0.8
"""Error of another reading or of other weights, relative to this one's, below which it is better."""
FEW = 20
"""Distinct images below which a model can only repeat them."""
GAIN = 0.7
"""Energy distance under a remedy, relative to that without, below which the remedy works."""
NOTICED = 0.004
"""Energy distance below which a remedy has nothing to mend: the error of 64 images."""
GUESS = "that of the best guess made pixel by pixel"


@dataclass(frozen=True)
class Finding:
    """A cause that was found.

    Attributes:
        severity: 3 ruins the samples, 2 harms them, 1 is worth knowing.
        figures: the evidence, a sentence each.
        remedy: commands that fix it.
        cause: its name, set by `conclude`.
        last: whether it holds only where nothing else of its severity explains the samples.
    """

    severity: int
    sentence: str
    figures: tuple[str, ...]
    remedy: tuple[str, ...]
    cause: str = ""
    last: bool = False


def distances(e: Evidence, first: str, name: str, second: str) -> str:
    """Return a sentence on how far the default samples and others are from the data, in what they differ more."""
    own, other = e.default, e.samples[name]
    pairs = {"layout": (own.layout, other.layout), "detail": (own.detail, other.detail)}
    view, (a, b) = max(pairs.items(), key=lambda pair: abs(pair[1][0] - pair[1][1]))
    return f"The samples' distance from the data in {view} is {a:.3f} {first}, {b:.3f} {second}."


def mends(e: Evidence, name: str) -> bool:
    """Return whether samples made otherwise are clearly nearer to the data in layout or detail, and no farther in
    all."""
    own, other = e.default, e.samples[name]
    pairs = ((own.layout, other.layout), (own.detail, other.detail))
    nearer = any(a >= NOTICED and b <= GAIN * a for a, b in pairs)
    return nearer and other.distance <= own.distance + NOTICED


def far(e: Evidence) -> bool:
    """Return whether the samples are certainly far from the data by the verdict."""
    return e.quality.least >= FAR


def unlearned(e: Evidence) -> bool:
    """Return whether the weights as trained have learned nothing of the images, for any reading of their output."""
    if e.data.distinct < FEW:  # the trivial guess is good where images are alike
        return False
    return min(e.trained.centred, *(reading.centred for reading in e.others.values())) > UNLEARNED


def again(e: Evidence, *changes: str, suffix: str = "-again") -> str:
    """Return the command that trains the run again with some values changed; without a suffix, that resumes it."""
    source, run = shlex.quote(e.data.source), shlex.quote(e.path)
    if not suffix and e.training is not None:
        return " ".join(("sfumato train", run, *changes))
    own = f"--config {run}/config.toml --run {run}{suffix}" if e.training is not None else ""
    return " ".join(filter(None, ("sfumato train", source, own, *changes)))


def longer(e: Evidence, images: int) -> str:
    """Return the command that trains the run on `images` in all."""
    return text.longer(e.path, images, e.images)


def takes(e: Evidence, images: int) -> str:
    """Return how long so many images take at the run's own speed: `about 12 min 05 s here`; empty where unknown."""
    speed = e.training.speed if e.training is not None else None
    return f"about {text.duration(images / speed)} at this run's speed" if speed else ""


def resample(e: Evidence, words: str) -> str:
    """Return the command that samples from the run with other options."""
    return f"sfumato sample {shlex.quote(e.path)} {words}"
