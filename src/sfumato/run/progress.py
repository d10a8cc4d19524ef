"""The progress of a training, computed from its events as they come; nothing here imports torch."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from sfumato.run.events import NUM_BUCKETS, Event, HeldOut, Replanned, Sampled, Saved, Skipped, Started, Stepped
from sfumato.run.folder import Run
from sfumato.run.plan import Plan

FORGET = 0.98
"""Weight of the earlier loss after one step: the last 34 steps have half of it all."""


class RecentLoss:
    """The training loss as every verb gives it: the mean of the steps' losses, each step weighing 2 % less than the
    next.

    It is that of the weights as trained, at the noise levels that training draws. So it can't be compared with the
    held-out loss, which is of the averaged weights and has all noise levels evenly; `HeldOut.train` can.
    """

    def __init__(self) -> None:
        self._value = self._weight = 0.0

    @property
    def value(self) -> float | None:
        """The loss; None before the first step."""
        return self._value if self._weight else None

    def take(self, event: Stepped) -> None:
        """Add a report of steps."""
        keep = FORGET**event.steps
        self._weight = keep * self._weight + 1 - keep
        self._value += (1 - keep) / self._weight * (event.loss - self._value)


class Progress:
    """The progress of a training, from its events."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.plan: Plan | None = None
        self.former: Plan | None = None  # the plan before the last event that has one
        self.announced = 0  # the planned length that the user was last told
        self.images = 0
        self.last_loss = self.grad_norm = self.lr = 0.0
        self.recent = RecentLoss()
        self.resumed = False  # whether there was an earlier session
        self.held_out: HeldOut | None = None
        self.grid = self.saved = ""
        self.skipped = 0
        self._total = [0.0] * NUM_BUCKETS
        self._count = [0.0] * NUM_BUCKETS
        self._times: deque[tuple[int, float]] = deque(maxlen=200)
        self._clock: float | None = None  # seconds at the last event that has them
        self._stepping = 0.0  # seconds spent in steps
        self._saving = 0.0  # seconds of saves since then
        self._grid = self._held_out = 0.0  # seconds of the last one

    def remember(self, steps: Iterable[Stepped]) -> None:
        """Take the losses of an earlier session's steps, which the loss of the last steps includes."""
        for event in steps:
            self._losses(event)

    def take(self, event: Event) -> None:
        """Add an event."""
        self.images = event.images
        if isinstance(event, Started | Replanned):
            self.former, self.plan = self.plan, event.plan
            self.resumed = self.resumed or (event.images > 0 and isinstance(event, Started))
        elif isinstance(event, Stepped):
            self._step(event)
        elif isinstance(event, HeldOut):
            self.held_out, self._held_out = event, self._pause(event.seconds)
        elif isinstance(event, Sampled):
            self._sampled(event)
        elif isinstance(event, Saved):
            self.saved = str(event.path)
            self._saving += event.cost
        elif isinstance(event, Skipped):
            self.skipped += event.steps

    def _sampled(self, event: Sampled) -> None:
        path = str(self.run.grid(event.images, event.kind))
        earlier = self._grid if event.kind != "ema" else 0.0  # a grid of the raw weights follows that of the average
        self.grid, self._grid = path, self._pause(event.seconds) + earlier

    def _pause(self, seconds: float) -> float:
        """Return the seconds since the last event, saves left out."""
        since = 0.0 if self._clock is None else max(0.0, seconds - self._clock - self._saving)
        self._clock, self._saving = seconds, 0.0
        return since

    def _step(self, event: Stepped) -> None:
        self.last_loss, self.grad_norm, self.lr = event.loss, event.grad_norm, event.lr
        self._losses(event)
        self._stepping += self._pause(event.seconds)
        self._times.append((event.images, self._stepping))

    def _losses(self, event: Stepped) -> None:
        self.recent.take(event)
        keep = FORGET**event.steps
        self._total = [keep * old + new for old, new in zip(self._total, event.buckets.total, strict=True)]
        self._count = [keep * old + new for old, new in zip(self._count, event.buckets.count, strict=True)]

    @property
    def loss(self) -> float | None:
        """The training loss of the last steps; None before the first."""
        return self.recent.value

    @property
    def by_noise(self) -> list[float | None]:
        """Smoothed loss by noise level, from little noise to much; None where there was no example."""
        return [total / n if n else None for total, n in zip(self._total, self._count, strict=True)]

    @property
    def planned(self) -> int:
        """Planned length in images, the last batch full; 0 before the training starts."""
        return 0 if self.plan is None else self.plan.steps * self.plan.batch

    @property
    def speed(self) -> float | None:
        """Images a second over the last steps, without pauses for grids, held-out losses and saving; None before the
        second report."""
        if len(self._times) < 2:
            return None
        (first, start), (last, end) = self._times[0], self._times[-1]
        return (last - first) / (end - start) if end > start else None

    @property
    def left(self) -> float | None:
        """Seconds to the planned length: steps at the present speed, and the grids and held-out losses still due, which
        take as long as the last ones, or as planned."""
        if self.plan is None or not self.speed:
            return None
        grids, held_outs = self.plan.looks_after(self.images // self.plan.batch)
        looks = grids * (self._grid or self.plan.grid_seconds or 0.0)
        looks += held_outs * (self._held_out or self.plan.held_out_seconds or 0.0)
        return (self.planned - self.images) / self.speed + looks
