"""What a training reports: frozen values that the generator yields and that whoever runs it logs, draws or ignores.

Losses come with the noise levels that they were made at: ten equal parts of t in (0, 1], each with the sum of its
losses and the number of its examples. Sums, not means, so that any number of reports add up to one exactly.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from sfumato.train.plan import Plan

__all__ = [
    "NUM_BUCKETS",
    "Buckets",
    "Event",
    "Finished",
    "HeldOut",
    "Sampled",
    "Saved",
    "Skipped",
    "Started",
    "Stepped",
    "Warned",
    "to_json",
]

NUM_BUCKETS = 10


@dataclass(frozen=True)
class Buckets:
    """Losses by noise level: part i holds t in (i / 10, (i + 1) / 10].

    Attributes:
        total: sum of the losses, by part.
        count: number of examples, by part.
    """

    total: tuple[float, ...] = (0.0,) * NUM_BUCKETS
    count: tuple[int, ...] = (0,) * NUM_BUCKETS

    def __add__(self, other: Buckets) -> Buckets:
        """Return the losses of both."""
        return Buckets(
            tuple(a + b for a, b in zip(self.total, other.total, strict=True)),
            tuple(a + b for a, b in zip(self.count, other.count, strict=True)),
        )

    @property
    def mean(self) -> float:
        """Mean loss of all examples; there must be one."""
        return sum(self.total) / sum(self.count)

    @property
    def means(self) -> tuple[float | None, ...]:
        """Mean loss of each part; None where it has no example."""
        return tuple(t / n if n else None for t, n in zip(self.total, self.count, strict=True))


@dataclass(frozen=True)
class Started:
    """Training starts, or goes on.

    Attributes:
        plan: the planned length and what it was planned from.
        resumed_at: images seen before this session; 0 for a new run.
    """

    plan: Plan
    resumed_at: int

    @property
    def images(self) -> int:
        """The clock: images seen."""
        return self.resumed_at


@dataclass(frozen=True)
class Stepped:
    """Steps were taken: one on a CPU, several at once where asking the device for a number makes it wait.

    Attributes:
        images: images seen after them.
        step: steps taken since the run began, these included.
        loss: mean over their examples.
        grad_norm: mean over the steps, before clipping.
        lr: rate of the last one.
        seconds: spent training since the run began, earlier sessions included.
        buckets: the losses by noise level.
        steps: how many steps this reports.
    """

    images: int
    step: int
    loss: float
    grad_norm: float
    lr: float
    seconds: float
    buckets: Buckets
    steps: int = 1


@dataclass(frozen=True)
class Skipped:
    """Steps whose loss or gradient was not finite; weights, moments and average are as if they had not been.

    Attributes:
        images: images seen after them.
        steps: how many.
        in_a_row: how many without a good one between or since.
        reason: in words.
    """

    images: int
    steps: int
    in_a_row: int
    reason: str


@dataclass(frozen=True)
class HeldOut:
    """The average's loss on images that are kept out of training, with the same noise every time.

    Attributes:
        images: images seen.
        loss: mean over the held-out images.
        buckets: by noise level.
        seconds: as in `Stepped`.
        train: mean loss of as many training images, with the same times and noise: the gap is what was learnt by heart.
        bound: by noise level, the variational bound in bits a dimension; a part's mean over ten is what its steps cost.
        best: whether no pass before had a lower loss.
    """

    images: int
    loss: float
    buckets: Buckets
    seconds: float
    train: float
    bound: Buckets
    best: bool


@dataclass(frozen=True)
class Sampled:
    """A grid was drawn, from the same seeds every time.

    Attributes:
        images: images seen.
        pictures: (N, C, H, W) uint8.
        kind: `ema`, from the average of the weights, or `raw`.
        seed: picture i has the noise of address (seed, i).
        seconds: as in `Stepped`.
    """

    images: int
    pictures: Tensor = field(repr=False)
    kind: str
    seed: int
    seconds: float


@dataclass(frozen=True)
class Saved:
    """A checkpoint is on the disk and was read back; the weights files are as new.

    Attributes:
        images: images seen.
        path: the checkpoint's folder.
        cost: seconds that saving took.
    """

    images: int
    path: Path
    cost: float


@dataclass(frozen=True)
class Warned:
    """Something went wrong and training goes on.

    Attributes:
        images: images seen.
        message: what, and what it means, on one line.
    """

    images: int
    message: str


@dataclass(frozen=True)
class Finished:
    """The planned length is reached.

    Attributes:
        images: images seen.
        seconds: spent training, all sessions together.
        again: the run was already finished, and nothing was done.
    """

    images: int
    seconds: float
    again: bool = False


Event = Started | Stepped | Skipped | HeldOut | Sampled | Saved | Warned | Finished


def to_json(event: Event) -> dict[str, Any]:
    """Return an event as a JSON-able dict: its name, then its attributes; pictures are left out."""
    values: dict[str, Any] = {"event": type(event).__name__.lower(), "images": event.images}
    for name, value in vars(event).items():
        if isinstance(value, Buckets):
            values[name] = {"total": value.total, "count": value.count}
        elif isinstance(value, Plan):
            values[name] = vars(value)
        elif isinstance(value, Path):
            values[name] = value.name
        elif not isinstance(value, Tensor):
            values[name] = value
    return values
