"""What a sink gets: the numbers of an event by name, at the images seen.

train/loss  train/grad_norm  train/lr      means over the steps that the event reports
train/loss_by_level/0.0-0.1 ...            the loss by noise level: t in (0.0, 0.1], ...
train/images_per_second                    since the last such event, pauses left out
held_out/loss  held_out/train  held_out/bits  held_out/loss_by_level/...
system/skipped_steps                       in all
system/memory                              bytes in use, on the GPU where there is one
system/save_seconds  system/planned_images
"""

from __future__ import annotations

from collections.abc import Callable

from sfumato.run.events import NUM_BUCKETS, Buckets, Event, HeldOut, Replanned, Saved, Skipped, Started, Stepped


class Points:
    """Turns the events of a run, in order, into numbers by name; `memory` returns the bytes in use."""

    def __init__(self, memory: Callable[[], int] = lambda: 0) -> None:
        self.memory = memory
        self._skipped = 0
        self._last: tuple[int, float] | None = None  # images and seconds of the last event that has them

    def of(self, event: Event) -> dict[str, float]:
        """Return the numbers of an event; empty where it has none."""
        if isinstance(event, Started):
            self._last = None
            return {"system/planned_images": event.plan.images}
        if isinstance(event, Replanned):
            return {"system/planned_images": event.plan.images}
        if isinstance(event, Stepped):
            return self._stepped(event)
        if isinstance(event, HeldOut):
            self._last = event.images, event.seconds
            values = {"held_out/loss": event.loss, "held_out/train": event.train}
            if any(event.bound.count):
                values["held_out/bits"] = event.bound.mean
            return values | _levels("held_out", event.buckets)
        if isinstance(event, Saved):
            self._last = None
            return {"system/save_seconds": event.cost}
        if isinstance(event, Skipped):
            self._skipped += event.steps
            return {"system/skipped_steps": self._skipped}
        return {}

    def _stepped(self, event: Stepped) -> dict[str, float]:
        values = {"train/loss": event.loss, "train/grad_norm": event.grad_norm, "train/lr": event.lr}
        values |= _levels("train", event.buckets)
        if self._last is not None and event.seconds > self._last[1]:
            values["train/images_per_second"] = (event.images - self._last[0]) / (event.seconds - self._last[1])
        self._last = event.images, event.seconds
        if memory := self.memory():
            values["system/memory"] = memory
        return values


def _levels(kind: str, buckets: Buckets) -> dict[str, float]:
    """The mean loss of each part of the noise levels that has an example."""
    means = enumerate(buckets.means)
    name = f"{kind}/loss_by_level/{{:.1f}}-{{:.1f}}"
    return {name.format(i / NUM_BUCKETS, (i + 1) / NUM_BUCKETS): mean for i, mean in means if mean is not None}
