"""The progress of a training, computed from its events as they come; nothing here imports torch."""

from __future__ import annotations

from collections import deque

from sfumato.run.events import NUM_BUCKETS, Event, HeldOut, Sampled, Saved, Skipped, Started, Stepped
from sfumato.run.folder import Run

FORGET = 0.98
"""Weight of the earlier smoothed loss after one step."""


class Progress:
    """The progress of a training, from its events."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.planned = 0
        self.images = 0
        self.loss = self.smoothed = self.grad_norm = self.lr = 0.0
        self.held_out: HeldOut | None = None
        self.grid = self.saved = ""
        self.skipped = 0
        self._weight = 0.0
        self._total = [0.0] * NUM_BUCKETS
        self._count = [0.0] * NUM_BUCKETS
        self._times: deque[tuple[int, float]] = deque(maxlen=200)

    def take(self, event: Event) -> None:
        """Add an event."""
        self.images = event.images
        if isinstance(event, Started):
            self.planned = event.plan.steps * event.plan.batch
        elif isinstance(event, Stepped):
            self._step(event)
        elif isinstance(event, HeldOut):
            self.held_out = event
        elif isinstance(event, Sampled):
            self.grid = str(self.run.grid(event.images, event.kind))
        elif isinstance(event, Saved):
            self.saved = str(event.path)
        elif isinstance(event, Skipped):
            self.skipped += event.steps

    def _step(self, event: Stepped) -> None:
        self.loss, self.grad_norm, self.lr = event.loss, event.grad_norm, event.lr
        keep = FORGET**event.steps
        self._weight = keep * self._weight + 1 - keep
        self.smoothed += (1 - keep) / self._weight * (event.loss - self.smoothed)
        self._total = [keep * old + new for old, new in zip(self._total, event.buckets.total, strict=True)]
        self._count = [keep * old + new for old, new in zip(self._count, event.buckets.count, strict=True)]
        self._times.append((event.images, event.seconds))

    @property
    def by_noise(self) -> list[float | None]:
        """Smoothed loss by noise level, from little noise to much; None where there was no example."""
        return [total / n if n else None for total, n in zip(self._total, self._count, strict=True)]

    @property
    def speed(self) -> float | None:
        """Images a second over the last steps, pauses for grids and saving included; None before the second report."""
        if len(self._times) < 2:
            return None
        (first, start), (last, end) = self._times[0], self._times[-1]
        return (last - first) / (end - start) if end > start else None

    @property
    def left(self) -> float | None:
        """Seconds to the planned length at the present speed."""
        return (self.planned - self.images) / self.speed if self.speed else None
