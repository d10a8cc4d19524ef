"""What a run's diary tells: losses in ten parts, steps that were skipped, restarts, warnings, the average's memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from sfumato.config.config import Config
from sfumato.config.train import EMAConfig
from sfumato.diagnose.evidence import Training
from sfumato.run.folder import Run
from sfumato.run.log import read_events

__all__ = ["initial_share", "read_training"]

PARTS = 10


def read_training(run: Run, config: Config, images: int) -> Training:
    """Read a run's events.

    Args:
        run: the run folder.
        config: its configuration.
        images: images that the weights in question had seen.
    """
    events = list(read_events(run.events_path)) if run.events_path.exists() else []
    stepped, skipped = _of(events, "stepped"), _of(events, "skipped")
    planned, batch = config.train.images or images, config.train.batch
    losses, norms = _parts(stepped)
    share, half_life = initial_share(config.ema, images, batch, planned)
    return Training(
        images=images,
        planned=planned,
        batch=batch,
        lr=config.optim.lr,
        steps=sum(int(e.get("steps", 1)) for e in stepped),
        skipped=sum(int(e.get("steps", 0)) for e in skipped),
        in_a_row=max((int(e.get("in_a_row", 0)) for e in skipped), default=0),
        restarts=max(0, len(_of(events, "started")) - 1),
        finished=run.finished_path.exists(),
        losses=losses,
        held_out=tuple((int(e["images"]), float(e["loss"]), float(e["train"])) for e in _of(events, "heldout")),
        gradient=norms,
        warnings=tuple(str(e.get("message", "")) for e in _of(events, "warned")),
        initial_share=share,
        half_life=half_life,
    )


def initial_share(config: EMAConfig, images: int, batch: int, planned: int) -> tuple[float, float]:
    """Return what is left of the initial weights in their average, prod_k d_k, and its half-life at the end in images.

    Args:
        config: how the average remembers.
        images: images seen.
        batch: images a step.
        planned: planned length in images.
    """
    share, decay = 1.0, 1.0
    for start in range(0, images, batch):
        decay = config.decay(start, batch, planned)
        share *= decay
        if share == 0.0 and start:  # as with every ramp; only the last decay is still of interest
            decay = config.decay(images - batch, batch, planned)
            break
    return share, _half_life(decay, batch)


def _half_life(decay: float, batch: int) -> float:
    """The half-life in images of a decay a step: 1/2 = d^(h / B)."""
    return batch * math.log(0.5) / math.log(decay) if 0 < decay < 1 else 0.0


def _of(events: Sequence[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [event for event in events if event.get("event") == name]


def _parts(stepped: Sequence[dict[str, Any]]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean loss, noise levels weighing alike, and mean gradient norm, in up to ten equal parts of the lines."""
    parts = min(PARTS, len(stepped))
    ends = [round(i * len(stepped) / parts) for i in range(parts + 1)] if parts else []
    groups = [stepped[a:b] for a, b in pairwise(ends)]
    norms = tuple(sum(float(e["grad_norm"]) for e in group) / len(group) for group in groups)
    return tuple(_loss(group) for group in groups), norms


def _loss(lines: Sequence[dict[str, Any]]) -> float:
    """Mean over the ten noise levels of the lines' mean loss at each: which levels chance drew does not matter."""
    totals = [sum(column) for column in zip(*(line["buckets"]["total"] for line in lines), strict=True)]
    counts = [sum(column) for column in zip(*(line["buckets"]["count"] for line in lines), strict=True)]
    means = [total / count for total, count in zip(totals, counts, strict=True) if count]
    return float(sum(means) / len(means))
