"""The events of a training: frozen values of plain data, and their JSON, one line of the event log each.

Losses come by noise level: ten equal parts of t in (0, 1], each with the sum of its losses and the number of its
examples. Sums, not means, so that reports of several steps add up exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from sfumato.run.plan import Plan

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NUM_BUCKETS = 10


class Brief:
    """A dataclass whose repr is short enough to be printed for each step: numbers have four digits, what is None or not
    in the repr is left out."""

    def __repr__(self) -> str:
        shown = [(f.name, getattr(self, f.name)) for f in fields(self) if f.repr]  # type: ignore[arg-type]
        words: dict[type, Callable[[Any], str]] = {float: "{:.4g}".format, type(Path()): str}
        values = (f"{name}={words.get(type(value), repr)(value)}" for name, value in shown if value is not None)
        return f"{type(self).__name__}({', '.join(values)})"


@dataclass(frozen=True)
class Buckets:
    """Losses by noise level: sums and numbers of examples; bucket i holds t in (i / 10, (i + 1) / 10]."""

    total: tuple[float, ...] = (0.0,) * NUM_BUCKETS
    count: tuple[int, ...] = (0,) * NUM_BUCKETS

    def __repr__(self) -> str:
        count = sum(self.count)
        return f"Buckets({f'mean {self.mean:.4g} of {count:,}' if count else 'empty'})"

    def __add__(self, other: Buckets) -> Buckets:
        return Buckets(
            tuple(a + b for a, b in zip(self.total, other.total, strict=True)),
            tuple(a + b for a, b in zip(self.count, other.count, strict=True)),
        )

    @property
    def mean(self) -> float:
        """Mean loss over all examples; there must be one."""
        return sum(self.total) / sum(self.count)

    @property
    def means(self) -> tuple[float | None, ...]:
        """Mean loss of each bucket; None where it has no example."""
        return tuple(t / n if n else None for t, n in zip(self.total, self.count, strict=True))

    def at_levels_of(self, others: Buckets) -> float:
        """Mean loss if the noise levels were as frequent as in `others`, whose means stand for buckets without an
        example: so losses of few examples can be compared that happened to have other noise levels."""
        pairs = zip(self.means, others.means, others.count, strict=True)
        means = [(theirs if own is None else own, count) for own, theirs, count in pairs]
        return sum(mean * count for mean, count in means if mean is not None) / sum(others.count)


@dataclass(frozen=True, repr=False)
class Started(Brief):
    """Training starts, or resumes when `resumed_at` images had been seen."""

    plan: Plan
    resumed_at: int

    @property
    def images(self) -> int:
        """Images seen, as in every event."""
        return self.resumed_at


@dataclass(frozen=True, repr=False)
class Replanned(Brief):
    """The length or the number of grids and held-out losses was corrected to keep the budget.

    Attributes:
        images: images seen when the plan comes into force.
        plan: the plan from here on.
        former: planned length before, in images.
    """

    images: int
    plan: Plan
    former: int


@dataclass(frozen=True)
class Initialised:
    """A run began with the weights of another model, `source`; `taken` says what was taken over and what was not."""

    images: int
    source: str
    taken: str


@dataclass(frozen=True)
class Changed:
    """Values of the configuration are others from here on: `optim.lr 0.001 -> 0.0001`."""

    images: int
    changes: str


@dataclass(frozen=True, repr=False)
class Stepped(Brief):
    """Steps were taken: one on a CPU, several on a GPU, where reading a number makes the device wait.

    Attributes:
        images: images seen after them.
        step: steps taken since the run began, these included.
        loss: mean over their examples.
        grad_norm: mean over the steps, before clipping.
        lr: learning rate of the last one.
        seconds: spent training since the run began, all sessions together.
        buckets: the losses by noise level.
        steps: how many steps this reports.
    """

    images: int
    step: int
    loss: float
    grad_norm: float
    lr: float
    seconds: float
    buckets: Buckets = field(repr=False)
    steps: int = 1

    def __add__(self, later: Stepped) -> Stepped:
        """Join two reports: means weighted by steps, sums added, the rest as in the later one."""
        steps = self.steps + later.steps
        return replace(
            later,
            loss=(self.loss * self.steps + later.loss * later.steps) / steps,
            grad_norm=(self.grad_norm * self.steps + later.grad_norm * later.steps) / steps,
            buckets=self.buckets + later.buckets,
            steps=steps,
        )


@dataclass(frozen=True, repr=False)
class Skipped(Brief):
    """The loss or gradient of some steps was not finite, `in_a_row` in all so far; nothing else changed by them."""

    images: int
    steps: int
    in_a_row: int
    reason: str


@dataclass(frozen=True, repr=False)
class HeldOut(Brief):
    """The loss of the averaged weights on the held-out set, with the same times and noise every time.

    Attributes:
        images: images seen.
        loss: mean over the held-out images.
        buckets: the losses by noise level.
        seconds: as in `Stepped`.
        train: mean loss on as many training images; a growing gap to `loss` is memorisation.
        bound: the variational bound by noise level, in bits a dimension; a bucket's mean over ten is its steps' cost.
        best: whether the loss is the lowest so far.
    """

    images: int
    loss: float
    buckets: Buckets = field(repr=False)
    seconds: float
    train: float
    bound: Buckets = field(repr=False)
    best: bool


@dataclass(frozen=True, repr=False)
class Sampled(Brief):
    """A sample grid was written to `Run.grid(images, kind)`.

    Attributes:
        images: images seen.
        kind: its weights: `ema` or `raw`.
        seed: image i has the noise of the random key (seed, i), in every grid of the run.
        seconds: as in `Stepped`.
        pictures: (N, C, H, W) uint8; None in an event read from a log.
    """

    images: int
    kind: str
    seed: int
    seconds: float
    pictures: NDArray[np.uint8] | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, repr=False)
class Saved(Brief):
    """A checkpoint was written and read back in `cost` seconds, and the weights files were replaced."""

    images: int
    path: Path
    cost: float


@dataclass(frozen=True, repr=False)
class Warned(Brief):
    """Something went wrong and training continues."""

    images: int
    message: str


@dataclass(frozen=True, repr=False)
class Finished(Brief):
    """The planned length is reached after `seconds` of training; `again` where it had been reached before."""

    images: int
    seconds: float
    again: bool = False


Event = Started | Initialised | Replanned | Changed | Stepped | Skipped | HeldOut | Sampled | Saved | Warned | Finished
TIMED = (Stepped, HeldOut, Sampled, Finished)
"""The events that have the seconds spent training."""
_KINDS: dict[str, type[Any]] = {kind.__name__.lower(): kind for kind in get_args(Event)}


def to_json(event: Event) -> dict[str, Any]:
    """Return an event as a JSON-able dict: its kind, the images seen, then its attributes without pictures."""
    values: dict[str, Any] = {"event": type(event).__name__.lower(), "images": event.images}
    for name, value in vars(event).items():
        if isinstance(value, Buckets | Plan):
            values[name] = vars(value)
        elif isinstance(value, Path):
            values[name] = value.name
        elif name != "pictures":
            values[name] = value
    return values


def from_json(line: Mapping[str, Any]) -> Event | None:
    """Return the event of a log's line, the inverse of `to_json`; None where the line is not an event."""
    kind = _KINDS.get(str(line.get("event")))
    if kind is None:
        return None
    values = {f.name: line[f.name] for f in fields(kind) if f.name in line}
    try:
        if "plan" in values:
            values["plan"] = Plan(**values["plan"])
        for name in values.keys() & {"buckets", "bound"}:
            values[name] = Buckets(tuple(values[name]["total"]), tuple(values[name]["count"]))
        if "path" in values:
            values["path"] = Path(values["path"])
        event: Event = kind(**values)
    except (AttributeError, KeyError, TypeError):  # written by another version
        return None
    return event if all(map(_is_well_typed, [event, *values.values()])) else None


_TYPES: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "str": (str,), "bool": (bool,)}
_TYPES["float | None"] = (int, float, type(None))


def _is_well_typed(value: Any) -> bool:
    """Whether the numbers and texts of an event, a plan or buckets are of their types; other values are taken."""
    if isinstance(value, Buckets):
        sizes = len(value.total) == len(value.count) == NUM_BUCKETS
        return sizes and all(type(n) in (int, float) for n in (*value.total, *value.count))
    if not is_dataclass(value):
        return True
    of_plain_type = [f for f in fields(value) if str(f.type) in _TYPES]
    return all(type(getattr(value, f.name)) in _TYPES[str(f.type)] for f in of_plain_type)
