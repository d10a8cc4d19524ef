"""Causes that lie in the training: its rate, its length, what it was shown."""

from __future__ import annotations

from sfumato.diagnose.causes.finding import FEW, Finding, again, against_trivial, redraw, resume, unlearned
from sfumato.diagnose.evidence import Evidence
from sfumato.diagnose.symptoms import COPIED

__all__ = ["diverged", "needs_labels", "repeats", "skipped_steps", "too_short", "unfinished", "unheeded_labels"]

SKIPPED = (0.001, 0.02, 0.1)
"""Shares of skipped steps that are worth knowing, that harm, that ruin."""
RISEN = 1.2
"""Training loss at the end as a multiple of its lowest tenth: noise in a tenth's mean stays within a few per cent."""
ENOUGH = 100
"""Steps before which a loss says nothing about its course: ten in each tenth of the run."""
USUAL = 1e-3
"""Learning rate of the presets for small images."""
EXPLODED = 1.5
"""Training loss of a tenth of the run, as a multiple of that before the first step."""
STUCK = 0.98
"""Loss of the last tenth as a share of that of three tenths before, above which it has stopped falling."""
FALLING = 0.95
"""The same share, below which more training would clearly help."""
HEEDED = 1.01
"""Error with another image's label as a multiple of that with its own, below which the label is not heeded."""
OVERFIT = 1.05
"""Held-out loss at the end as a multiple of its lowest, while the loss on training images fell."""


def skipped_steps(e: Evidence) -> Finding | None:
    """Steps whose loss or gradient was not finite."""
    tr = e.training
    if tr is None or not tr.skipped:
        return None
    share = tr.skipped / (tr.skipped + tr.steps)
    severity = sum(share >= bound for bound in SKIPPED)
    if not severity:
        return None
    return Finding(
        "skipped_steps",
        severity,
        f"{100 * share:.1f} % of the training steps were thrown away, because their loss or gradient was not finite.",
        (
            f"{tr.skipped:,} of {tr.skipped + tr.steps:,} steps, at most {tr.in_a_row} in a row.",
            f"The learning rate is {tr.lr:g}.",
        ),
        (again(e, f"--optim.lr {tr.lr / 3:.2g}"),),
    )


def diverged(e: Evidence) -> Finding | None:
    """A loss that rose again, or that never left the level of the trivial guess."""
    tr = e.training
    if tr is None or tr.steps < ENOUGH:
        return None
    lowest, last = min(tr.losses), tr.losses[-1]
    rose = last > RISEN * lowest
    start = tr.held_out[0][2] if tr.held_out and tr.held_out[0][0] == 0 else float("inf")
    exploded = max(tr.losses) > EXPLODED * start
    if not (exploded or rose or last > STUCK * tr.losses[-4]) or not unlearned(e):
        return None
    told = f"stands still at {last:.3f}"
    if rose:
        told = f"rose again: {lowest:.3f} at its lowest, {last:.3f} at the end"
    if exploded:
        told = f"went from {start:.3f} before the first step up to {max(tr.losses):.3g}, and is {last:.3f} at the end"
    slow = not (exploded or rose) and tr.lr < USUAL
    return Finding(
        "diverged",
        3,
        f"The training {'got nowhere' if slow else 'diverged'}: the learning rate is too {'low' if slow else 'high'}.",
        (
            f"The training loss {told}.",
            f"The error of the predicted image is {against_trivial(e.readings.get('raw', e.reading))}.",
            f"The learning rate is {tr.lr:g}; the gradient's norm went from {tr.gradient[0]:.2g} to "
            f"{tr.gradient[-1]:.2g}.",
        ),
        (again(e, f"--optim.lr {USUAL if slow else min(tr.lr / 10, USUAL):.2g}"),),
    )


def too_short(e: Evidence) -> Finding | None:
    """A training that ended before anything, or before much, was learned."""
    tr = e.training
    if tr is None:
        return None
    raw = e.readings.get("raw", e.reading)
    falling = len(tr.losses) < 4 or tr.losses[-1] < FALLING * tr.losses[-4]
    nothing = unlearned(e)
    if diverged(e) is not None or (not nothing and by_heart(e)):  # where more of the same would not help
        return None
    if not falling and (not nothing or tr.steps >= ENOUGH):  # in the latter case it diverged
        return None
    stopped = f" of {tr.planned:,} planned" if tr.images < tr.planned else ""
    course = (
        f": {tr.losses[-4]:.3f} three tenths before the end, {tr.losses[-1]:.3f} at it" if len(tr.losses) > 3 else ""
    )
    return Finding(
        "too_short",
        3 if nothing else 1,
        "The training was far too short: the network has not learned what the images are."
        if nothing
        else "The loss was still falling at the end: more training would help.",
        (
            f"{tr.images:,} images were seen{stopped}, in {tr.steps:,} steps.",
            f"The training loss {'was still falling' if falling else 'had stopped falling'}{course}.",
            f"At medium noise the error is {raw.middle:.2f} times that of the best guess made pixel by pixel.",
        ),
        (resume(e) if stopped else again(e, f"--images {_longer(tr.images)}"),),
    )


def _longer(images: int) -> int:
    """A length to try next."""
    return max(50_000, 4 * images)


def by_heart(e: Evidence) -> bool:
    """Whether there is nothing left to learn but the training images themselves."""
    return e.data.distinct < FEW or repeats(e) is not None


def repeats(e: Evidence) -> Finding | None:
    """Samples that are training images, or a held-out loss that turned."""
    data, tr = e.data, e.training
    copies = data.nearest is not None and data.nearest > 0 and e.draw.nearest < COPIED * data.nearest
    passes = tr.held_out if tr is not None else ()
    best = min(passes, key=lambda one: one[1], default=None)
    warned = tr is not None and any(message.startswith("overfitting") for message in tr.warnings)
    turned = best is not None and (warned or passes[-1][1] > OVERFIT * best[1]) and passes[-1][2] < best[2]
    if not (copies or turned) or data.distinct < FEW:
        return None
    figures = []
    if copies and data.nearest is not None:
        figures.append(
            f"A sample lies {127.5 * e.draw.nearest:.1f} of 255 from the nearest training image, a held-out image "
            f"{127.5 * data.nearest:.1f} (medians)."
        )
    if turned and best is not None:
        figures.append(
            f"The held-out loss rose from {best[1]:.3f} at {best[0]:,} images to {passes[-1][1]:.3f}, while that on "
            f"training images fell from {best[2]:.3f} to {passes[-1][2]:.3f}."
        )
    figures.append(f"{data.train:,} training images were each seen {tr.images / data.train:,.0f} times." if tr else "")
    earlier = (redraw(e, "", "best"),) if turned and "best" in e.readings else ()
    return Finding(
        "repeats",
        3 if copies else 2,
        "The model repeats its training images instead of making new ones."
        if copies
        else "The model has begun to learn its training images by heart.",
        tuple(figure for figure in figures if figure),
        (*earlier, again(e, "--data.flip true --net.dropout 0.1", f"--images {best[0] if best else 10_000}")),
    )


def unfinished(e: Evidence) -> Finding | None:
    """A run that stopped before its planned length."""
    tr = e.training
    if tr is None or tr.finished or tr.images >= tr.planned:
        return None
    share = tr.images / tr.planned
    return Finding(
        "unfinished",
        1,
        f"The training stopped at {100 * share:.0f} % of its planned length.",
        (f"{tr.images:,} of {tr.planned:,} images; {len(tr.warnings)} warnings, {tr.restarts} restarts.",),
        (resume(e),),
    )


def unheeded_labels(e: Evidence) -> Finding | None:
    """A conditional model that does not care what it is asked for."""
    labels = e.labels
    if labels is None or labels.other > HEEDED * labels.own:
        return None
    return Finding(
        "unheeded_labels",
        2,
        "The model does not heed its labels: it draws the same whatever is asked for.",
        (
            f"The error with another image's label is {labels.other / labels.own:.3f} times that with its own.",
            f"{100 * labels.dropout:.0f} % of the examples were trained without their label.",
        ),
        (again(e, "--train.label_dropout 0.1"),),
    )


def needs_labels(e: Evidence) -> Finding | None:
    """A conditional model that was never shown an image without its label."""
    labels = e.labels
    if labels is None or labels.dropout > 0 or labels.none < 1.05 * labels.own:
        return None
    return Finding(
        "needs_labels",
        1,
        "The model was never shown images without their label, and can't draw without one.",
        (
            f"Without a label the error is {labels.none / labels.own:.2f} times that with it.",
            f"Samples drawn without are {e.draws['no label'].apart:.3f} from the data, with labels {e.draw.apart:.3f}.",
        ),
        (redraw(e, "--label all"),),
    )
