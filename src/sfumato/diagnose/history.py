"""The history of a training from its event log, and the fraction of initial weights in their average."""

from __future__ import annotations

import math

from sfumato.config.config import Config
from sfumato.config.train import EMAConfig
from sfumato.diagnose.evidence import Training
from sfumato.run.events import HeldOut, Skipped, Stepped
from sfumato.run.summary import RunSummary
from sfumato.train.budget import FREE

PARTS = 10


def read_training(summary: RunSummary, config: Config, images: int) -> Training:
    """Return the history of a training, whose weights had seen `images` images, from its events."""
    parts, planned, batch = summary.stepped(PARTS), summary.planned or images, config.train.batch
    start = 0 if summary.plan is None else summary.plan.start  # of the last phase, in which the rate rises again
    first = next((event for event in summary.of(HeldOut) if event.images == 0), None)
    initial, half_life = initial_fraction(config.ema, images, batch, planned)
    return Training(
        images=images,
        planned=planned,
        batch=batch,
        lr=config.optim.lr,
        steps=sum(event.steps for event in summary.of(Stepped)),
        skipped=summary.skipped,
        in_a_row=max((event.in_a_row for event in summary.of(Skipped)), default=0),
        restarts=summary.restarts,
        finished=summary.finished,
        losses=tuple(summary.training_loss(part.buckets) for part in parts),
        held_out=tuple((event.images, event.loss, event.train) for event in summary.of(HeldOut)),
        gradient=tuple(part.grad_norm for part in parts),
        warnings=summary.warnings,
        initial=initial,
        half_life=half_life,
        decays_at=start + round(FREE.get(config.optim.decay, 0.0) * (planned - start)),
        speed=summary.images_per_second,
        begun_with=summary.begun_with,
        start=summary.training_loss(first.buckets) if first and parts else None,
    )


def initial_fraction(config: EMAConfig, images: int, batch: int, planned: int) -> tuple[float, float]:
    """Return the fraction of the initial weights in their average, prod_k d_k, and its half-life at the end in images:
    that of a decay d a step of B images is h with 1/2 = d^(h / B)."""
    left, decay = 1.0, 1.0
    for start in range(0, images, batch):
        decay = config.decay(start, batch, planned)
        left *= decay
        if left == 0.0 and start:  # as with every ramp; then only the last decay matters
            decay = config.decay(images - batch, batch, planned)
            break
    return left, batch * math.log(0.5) / math.log(decay) if 0 < decay < 1 else 0.0
