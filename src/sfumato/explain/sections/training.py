"""The training from the run's event log: loss by noise level, the held-out gap, speed, learning rate, EMA."""

from __future__ import annotations

import itertools

from sfumato.config.keys import typed
from sfumato.diagnose.history import initial_fraction
from sfumato.errors import plural
from sfumato.explain.context import Context
from sfumato.explain.figure import Figure, Missing
from sfumato.report.text import duration
from sfumato.run.events import HeldOut, Replanned, Skipped

PARTS = 160


def collect(context: Context) -> Figure:
    """Return the curves; raises `Missing` without a run folder or before its first step."""
    summary, config = context.summary, context.model.config
    if summary is None:
        raise Missing("this is a weights file, without the run folder that keeps the history of its training")
    parts = summary.stepped(PARTS)
    if not parts:
        raise Missing("the run's event log holds no step")
    held_out = summary.of(HeldOut)
    speeds = [
        (b.images - a.images) / (b.seconds - a.seconds) if b.seconds > a.seconds else None
        for a, b in itertools.pairwise(parts)
    ]
    images = summary.images
    _, half_life = initial_fraction(config.ema, images, config.train.batch, summary.planned or images)
    skipped = sum(event.steps for event in summary.of(Skipped))
    findings = [
        f"{images:,} images in {duration(summary.seconds)}, {summary.images_per_second or 0:.1f} images/s in the last "
        f"steps; {plural(skipped, 'step')} skipped, resumed {plural(summary.restarts, 'time')}.",
        f"The average of the weights that samples are made with has a half-life of {half_life:,.0f} images.",
    ]
    if held_out:
        last = held_out[-1]
        findings.append(
            f"The last held-out loss, at {last.images:,} images, is {last.loss:.4f}, that of as many training images "
            f"{last.train:.4f}: a gap of {last.loss - last.train:+.4f}. A gap that grows is memorisation."
        )
    findings += [f"Warning in the log: {typed(message)}" for message in summary.warnings[:3]]
    return Figure(
        name="training",
        title="The training",
        caption="The loss at all noise levels together says little, since each has a floor of its own: near the "
        "data the noise can hardly be told, near pure noise the image. So it is shown by noise level. The "
        "held-out loss is of images that the network never saw, with the same times and noise every time.",
        code=("train.trainer.Trainer.step", "train.ema.EMA.update", "train.validation.held_out_losses"),
        data={
            "images": [part.images for part in parts],
            "loss": [summary.training_loss(part.buckets) for part in parts],
            "levels": [list(part.buckets.means) for part in parts],
            "lr": [part.lr for part in parts],
            "gradient": [part.grad_norm for part in parts],
            "speed": speeds,
            "held_out": [[e.images, e.loss, e.train, e.best] for e in held_out],
            "skipped": [[e.images, e.steps] for e in summary.of(Skipped)],
            "replanned": [[e.images, e.former, e.plan.images] for e in summary.of(Replanned)],
        },
        made="the run's events.jsonl, joined into at most 160 parts",
        command=f"sfumato illustrate {context.command} --figure loss --out loss.png",
        findings=tuple(findings),
    )
