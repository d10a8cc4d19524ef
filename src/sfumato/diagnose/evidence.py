"""The evidence: measured figures of a run as frozen values, and how each was measured.

Each field's metadata says how it was measured, and has its key in the JSON where that is not the field's name.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from typing import Any

from sfumato.diagnose.statistics import ImageStatistics
from sfumato.evaluate.verdict import Verdict


def measured(how: str, key: str | None = None, default: Any = MISSING) -> Any:
    """Return a dataclass field that says how its value is measured, and its key in the JSON."""
    return field(default=default, metadata={"how": how, "key": key})


@dataclass(frozen=True)
class LevelError:
    """The network's error at one noise level."""

    t: float = measured("time of the level in (0, 1]")
    sigma: float = measured("standard deviation of the noise in x_t there, from the schedule")
    error: float = measured("mean squared error of the predicted image, clipped, a value, over the probe's images")
    trivial: float = measured(
        "the same of the best linear guess made value by value, from the data's mean and variance"
    )
    bias: tuple[float, ...] = measured("mean of predicted image - image for each channel")

    @property
    def ratio(self) -> float:
        """The network's error relative to the trivial one; below 1 it has learned something here."""
        return self.error / self.trivial if self.trivial > 0 else math.inf

    @property
    def constant(self) -> float:
        """The fraction of the error that a constant added to each channel would remove."""
        return sum(b * b for b in self.bias) / len(self.bias) / self.error if self.error > 0 else 0.0


@dataclass(frozen=True)
class Reading:
    """A network's error at ten noise levels, its output read as one parameterisation."""

    weights: str = measured("which weights: ema, raw or best")
    parameterization: str = measured("as what the output was read: eps, x0, v or mu")
    levels: tuple[LevelError, ...] = measured("t = 0.05, 0.15 .. 0.95, the same images and noise for all readings")

    @property
    def ratio(self) -> float:
        """Geometric mean over the levels of the error relative to the trivial one; infinite where not finite."""
        return _mean(level.ratio for level in self.levels)

    @property
    def medium(self) -> tuple[LevelError, ...]:
        """The levels of medium noise, sigma from 0.4 to 0.95; all where the chain has none of these."""
        return tuple(level for level in self.levels if 0.4 < level.sigma < 0.95) or self.levels

    @property
    def middle(self) -> float:
        """The same mean over medium noise, which determines the image's content."""
        return _mean(level.ratio for level in self.medium)

    @property
    def clean(self) -> float:
        """The same mean over the two levels of least noise, which determine fine detail."""
        return _mean(level.ratio for level in self.levels[:2])

    @property
    def centred(self) -> float:
        """The same mean over medium noise if the best constant were added to each channel."""
        return _mean(level.ratio * (1 - level.constant) for level in self.medium)

    @property
    def finite(self) -> bool:
        """Whether every error is a number."""
        return all(math.isfinite(level.error) for level in self.levels)


@dataclass(frozen=True)
class Samples:
    """Images sampled from the run, compared with the data."""

    weights: str = measured("which weights: ema, raw or best")
    steps: int = measured("steps of the default sampler; the recipe is the default one but for what the name says")
    statistics: ImageStatistics = measured("statistics of the sampled images", "look")
    layout: float = measured("energy distance of the layout from training images, 0 for alike, 1 at most")
    detail: float = measured("the same of the detail")
    finite: float = measured("fraction of values that are finite")
    nearest: float = measured("median root-mean-square difference from the nearest training image")

    @property
    def distance(self) -> float:
        """The greater of the two distances, which the verdict goes by."""
        return max(self.layout, self.detail)


@dataclass(frozen=True)
class Data:
    """The training images."""

    source: str = measured("the name or path of the images")
    train: int = measured("images that train")
    distinct: int = measured("distinct images among them, by the SHA-256 of their pixels")
    statistics: ImageStatistics = measured("statistics of up to 512 training images, evenly spaced", "look")
    distance: float = measured("the same distance of two halves of them: what chance alone gives", "apart")
    nearest: float | None = measured("the median for held-out images of the difference from the nearest training image")
    changed: bool | None = measured("whether the images' fingerprint differs from the newest checkpoint's")
    findings: tuple[str, ...] = measured("what is probably wrong with the images' values (docs/data.md)", default=())


@dataclass(frozen=True)
class Process:
    """The noise schedule, and its ends on these images."""

    num_steps: int = measured("length of the chain")
    alpha_end: float = measured("fraction of the image left in x_T, sqrt(abar_T)")
    leak_bits: float = measured("KL( q(x_T | x_0) || N(0, I) ) in bits, mean over training images (DDPM's L_T)")
    sigma_first: float = measured("standard deviation of the noise at the chain's first level")


@dataclass(frozen=True)
class Variance:
    """Figures of a learned variance."""

    deviation: float = measured("standard deviation of the predicted fraction over levels and pixels", "spread")
    learned: float = measured("bits a dimension of the bound's terms at the ten levels with the learned variance")
    fixed: float = measured("the same with the better of the two fixed variances")


@dataclass(frozen=True)
class Training:
    """Figures of the run's event log."""

    images: int = measured("images seen, by the weights' header")
    planned: int = measured("planned length in images")
    batch: int = measured("images a step")
    lr: float = measured("learning rate, from the configuration")
    steps: int = measured("steps taken and reported in events.jsonl")
    skipped: int = measured("steps whose loss or gradient was not finite, summed over events.jsonl")
    in_a_row: int = measured("the most consecutive skipped steps")
    restarts: int = measured("sessions after the first, in events.jsonl")
    finished: bool = measured("whether finished.json says that the planned length is reached")
    losses: tuple[float, ...] = measured(
        "training loss in ten equal parts of the run, each at the noise levels of the whole"
    )
    held_out: tuple[tuple[int, float, float], ...] = measured("(images, held-out loss, training loss) each time")
    gradient: tuple[float, ...] = measured("mean norm of the gradient in the same ten parts")
    warnings: tuple[str, ...] = measured("messages of the warnings in events.jsonl")
    initial: float = measured("initial weights left in their average: the product of its decays", "initial_share")
    half_life: float = measured("half-life of the average at the end, in images")
    decays_at: int = measured("images at which the learning rate begins to fall for the last time")
    speed: float | None = measured("images per second in the last steps; None before the second report of them")
    begun_with: int = measured("images that the weights had seen which the run began with (--init)", default=0)
    start: float | None = measured("held-out loss before the first step, at the training's noise levels", default=None)


@dataclass(frozen=True)
class Labels:
    """Whether labels have an effect on a conditional model."""

    dropout: float = measured("fraction of examples trained without their label, from the configuration")
    own: float = measured("error of x_0 relative to the trivial one, each image with its own label")
    other: float = measured("the same with the label of another image")
    none: float = measured("the same with no label")


@dataclass(frozen=True)
class Evidence:
    """All that was measured."""

    path: str = measured("as given")
    main: str = measured("the weights that `sfumato sample` takes")
    parameterization: str = measured("as the header of the weights says")
    recipe: Mapping[str, Any] = measured("how `sfumato sample` samples by default")
    data: Data = measured("the images of the run's configuration")
    process: Process = measured("the schedule of the weights' header")
    readings: Mapping[str, Reading] = measured("by weights; `as eps` and so on is the main weights' output read so")
    samples: Mapping[str, Samples] = measured("by name; the same seeds throughout", "draws")
    unsettled: float = measured("change of the images from the default number of steps to the most, over the diversity")
    variance: Variance | None = measured("None where the variance is fixed")
    labels: Labels | None = measured("None where the model has no labels")
    training: Training | None = measured("None where there is no run folder")
    quality: Verdict = measured("verdict on the default samples, as `sfumato evaluate` gives it")
    images: int = measured("images that the main weights have seen, by their header")
    shape: tuple[int, int, int] = measured("channels, height and width of the images")

    def __repr__(self) -> str:
        return f"Evidence({self.path!r}: {self.quality.words}, {self.images:,} images seen)"

    @property
    def reading(self) -> Reading:
        """The main weights, read as the header says."""
        return self.readings[self.main]

    @property
    def trained(self) -> Reading:
        """The weights as trained, where the run has them, else the main ones."""
        return self.readings.get("raw", self.reading)

    @property
    def others(self) -> dict[str, Reading]:
        """The main weights, read as what the header does not say."""
        return {name: reading for name, reading in self.readings.items() if name.startswith("as ")}

    @property
    def default(self) -> Samples:
        """Samples of the default recipe."""
        return self.samples[self.main]


def _mean(ratios: Iterable[float]) -> float:
    """Geometric mean; infinite where one is not finite."""
    values = list(ratios)
    if not all(math.isfinite(value) for value in values):
        return math.inf
    return math.exp(sum(math.log(max(value, 1e-12)) for value in values) / len(values))


def how() -> dict[str, str]:
    """Return how each figure is measured, by `record.key`."""
    records = {
        "evidence": Evidence, "data": Data, "process": Process, "draw": Samples, "reading": Reading,
        "level": LevelError, "variance": Variance, "labels": Labels, "training": Training,
    }  # fmt: skip
    return {
        f"{name}.{f.metadata['key'] or f.name}": str(f.metadata["how"])
        for name, record in records.items()
        for f in fields(record)
    }


def to_json(value: Any) -> Any:
    """Return evidence, or a part of it, as JSON has it: readings with their ratios, None for what is not finite."""
    if isinstance(value, Mapping):
        return {key: to_json(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(inner) for inner in value]
    if is_dataclass(value):
        table = {f.metadata.get("key") or f.name: to_json(getattr(value, f.name)) for f in fields(value)}
        if isinstance(value, Reading):
            ratios = {"ratio": value.ratio, "middle": value.middle, "clean": value.clean, "freed": value.centred}
            table |= to_json(ratios)
        if isinstance(value, Samples):
            table["apart"] = value.distance
        return table
    return None if isinstance(value, float) and not math.isfinite(value) else value
