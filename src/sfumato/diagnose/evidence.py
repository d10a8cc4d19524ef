"""The evidence: what was measured about a run, frozen, and how each figure came about.

Nothing here is a judgement. `measure` and `history` fill these records in; `symptoms` and `causes` read them. Every
field says in its metadata how it was measured, and `how` collects that for whoever reads the JSON.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from sfumato.diagnose.looks import Look

__all__ = ["Data", "Draw", "Evidence", "Level", "Process", "Reading", "Training", "Variance", "how", "to_json"]


def measured(how: str) -> Any:
    """Return a dataclass field that says how its value is measured."""
    return field(metadata={"how": how})


@dataclass(frozen=True)
class Level:
    """How well the network denoises at one noise level."""

    t: float = measured("time of the level in (0, 1]")
    sigma: float = measured("standard deviation of the noise in x_t there, from the schedule")
    error: float = measured(
        "mean squared error of the predicted x_0, clipped to [-1, 1], a value, over the probe's images"
    )
    trivial: float = measured(
        "the same error of the best linear guess made pixel by pixel, from the data's mean and variance at each pixel, "
        "at least a byte's rounding; no worse, where it is fitted, than predicting the mean"
    )
    bias: tuple[float, ...] = measured("mean of predicted x_0 - x_0 for each channel")

    @property
    def ratio(self) -> float:
        """The network's error as a share of the trivial one; below 1 it has learned something here."""
        return self.error / self.trivial if self.trivial > 0 else math.inf

    @property
    def biased(self) -> float:
        """The share of the error that a constant added to each channel would take away."""
        return sum(b * b for b in self.bias) / len(self.bias) / self.error if self.error > 0 else 0.0

    @property
    def freed(self) -> float:
        """The ratio that would be left if that constant were added."""
        return self.ratio * (1 - self.biased)


@dataclass(frozen=True)
class Reading:
    """A network's error at ten noise levels, its output read in one way."""

    weights: str = measured("which weights: ema, raw or best")
    parameterization: str = measured("as what the output was read: eps, x0, v or mu")
    levels: tuple[Level, ...] = measured(
        "ten levels, t = 0.05, 0.15 .. 0.95, the same images and noise for all readings"
    )

    @property
    def ratio(self) -> float:
        """Geometric mean over the levels of the error as a share of the trivial one; infinite where not finite."""
        return _mean(level.ratio for level in self.levels)

    @property
    def medium(self) -> tuple[Level, ...]:
        """The levels of medium noise, sigma from 0.4 to 0.95; all where the chain has none of these."""
        return tuple(level for level in self.levels if 0.4 < level.sigma < 0.95) or self.levels

    @property
    def middle(self) -> float:
        """The same mean over medium noise, where the image's content is decided."""
        return _mean(level.ratio for level in self.medium)

    @property
    def clean(self) -> float:
        """The same mean over the two levels of least noise, where the fine detail is decided."""
        return _mean(level.ratio for level in self.levels[:2])

    @property
    def finite(self) -> bool:
        """Whether every error is a number."""
        return all(math.isfinite(level.error) for level in self.levels)

    @property
    def freed(self) -> float:
        """The mean over medium noise of what would be left if a constant were added to each channel."""
        return _mean(level.freed for level in self.medium)


@dataclass(frozen=True)
class Draw:
    """Images drawn from the run, and how they compare with the data."""

    weights: str = measured("which weights: ema, raw or best")
    steps: int = measured(
        "steps of DDIM, trailing grid, predicted images clipped unless the draw's name says otherwise"
    )
    look: Look = measured("statistics of the drawn images")
    apart: float = measured("energy distance from training images, 0 is alike and 1 is as far apart as can be")
    finite: float = measured("share of values that are finite")
    nearest: float = measured("median root-mean-square difference from the nearest training image")


@dataclass(frozen=True)
class Data:
    """The training images."""

    source: str = measured("as the run's configuration names it")
    train: int = measured("images that train")
    distinct: int = measured("different images among them, by the SHA-256 of their pixels")
    look: Look = measured("statistics of up to 512 training images, evenly spaced")
    apart: float = measured("energy distance of two halves of them: what chance alone gives")
    nearest: float | None = measured(
        "median root-mean-square difference of held-out images from the nearest training image"
    )
    changed: bool | None = measured("whether the images' fingerprint differs from the newest checkpoint's")


@dataclass(frozen=True)
class Process:
    """The noise schedule, and what its ends do to these images."""

    num_steps: int = measured("length of the chain")
    alpha_end: float = measured("share of the image left in x_T, sqrt(abar_T)")
    leak_bits: float = measured(
        "KL( q(x_T | x_0) || N(0, I) ) of an image in bits, mean over training images (DDPM's L_T)"
    )
    sigma_first: float = measured("standard deviation of the noise at the chain's first level")


@dataclass(frozen=True)
class Variance:
    """What a learned variance has learned."""

    spread: float = measured("standard deviation of the predicted fraction over levels, images and pixels")
    learned: float = measured("bits a dimension of the bound's terms at the ten levels with the learned variance")
    fixed: float = measured("the same with the better of the two fixed variances")


@dataclass(frozen=True)
class Training:
    """What the run's diary tells."""

    images: int = measured("images seen, by the weights' header")
    planned: int = measured("planned length in images")
    batch: int = measured("images a step")
    lr: float = measured("learning rate, from the configuration")
    steps: int = measured("steps taken and reported in events.jsonl")
    skipped: int = measured("steps whose loss or gradient was not finite, summed over events.jsonl")
    in_a_row: int = measured("most of them without a good one between")
    restarts: int = measured("sessions after the first, in events.jsonl")
    finished: bool = measured("whether finished.json says that the planned length is reached")
    losses: tuple[float, ...] = measured("training loss in ten equal parts of the run, levels weighing alike")
    held_out: tuple[tuple[int, float, float], ...] = measured(
        "(images, held-out loss, training loss) of each held-out pass"
    )
    gradient: tuple[float, ...] = measured("mean norm of the gradient in the same ten parts")
    warnings: tuple[str, ...] = measured("messages of the warnings in events.jsonl")
    initial_share: float = measured("share of the initial weights left in their average: the product of all its decays")
    half_life: float = measured("half-life of the average at the end, in images")


@dataclass(frozen=True)
class Labels:
    """Whether a conditional model heeds what it is told."""

    dropout: float = measured("share of examples trained without their label, from the configuration")
    own: float = measured("error of x_0 as a share of the trivial one, each image with its own label")
    other: float = measured("the same with the label of another image")
    none: float = measured("the same with no label")


@dataclass(frozen=True)
class Evidence:
    """All that was measured.

    Attributes:
        path: the run folder or weights file.
        main: the weights that are sampled from by default.
        parameterization: what the header says the output is.
    """

    path: str = measured("as given")
    main: str = measured("the weights that `sfumato sample` takes")
    parameterization: str = measured("as the header of the weights says")
    data: Data = measured("the images of the run's configuration")
    process: Process = measured("the schedule of the weights' header")
    readings: Mapping[str, Reading] = measured("by weights; `as eps` and so on is the main weights' output read so")
    draws: Mapping[str, Draw] = measured("by name; the same seeds throughout")
    unsettled: float = measured(
        "root-mean-square difference between the images of 50 and of 250 steps, as a share of the data's diversity"
    )
    variance: Variance | None = measured("None where the variance is fixed")
    labels: Labels | None = measured("None where the model has no classes")
    training: Training | None = measured("None where there is no run folder")

    @property
    def reading(self) -> Reading:
        """The main weights, read as the header says."""
        return self.readings[self.main]

    @property
    def draw(self) -> Draw:
        """The samples that a user sees by default."""
        return self.draws[self.main]


def _mean(ratios: Iterable[float]) -> float:
    """Geometric mean; infinite where one is not finite."""
    values = list(ratios)
    if not all(math.isfinite(value) for value in values):
        return math.inf
    return math.exp(sum(math.log(max(value, 1e-12)) for value in values) / len(values))


def how() -> dict[str, str]:
    """Return how each figure is measured, by `record.field`."""
    records = (Evidence, Data, Process, Draw, Reading, Level, Variance, Labels, Training)
    return {f"{r.__name__.lower()}.{f.name}": str(f.metadata["how"]) for r in records for f in fields(r)}


def to_json(evidence: Evidence) -> dict[str, Any]:
    """Return the evidence as JSON-able dicts, with the readings' ratios, which are not fields."""
    table: dict[str, Any] = asdict(evidence)
    for name, reading in evidence.readings.items():
        table["readings"][name] |= {
            "ratio": reading.ratio,
            "middle": reading.middle,
            "clean": reading.clean,
            "freed": reading.freed,
        }
    found: dict[str, Any] = _plain(table)
    return found


def _plain(value: Any) -> Any:
    """Nested values with None for numbers that JSON does not know."""
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
