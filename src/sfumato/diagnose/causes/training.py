"""Causes in the images, in the course of the training, and in the labels, each in `CAUSES`."""

from __future__ import annotations

from sfumato.diagnose.causes.finding import (
    FEW,
    GUESS,
    Finding,
    again,
    distances,
    far,
    longer,
    resample,
    takes,
    unlearned,
)
from sfumato.diagnose.evidence import Evidence, Training
from sfumato.diagnose.symptoms import COPIED, byte
from sfumato.errors import command, plural
from sfumato.evaluate.need import FAULTY, LONG, enough, typical

NARROW = 0.5
"""Range of the data, of the 2 from black to white, below which it is narrow."""
ONE_VALUE = 0.95
"""Fraction of values at black, or at white, above which the data is nearly all black or white."""
SKIPPED = (0.001, 0.02, 0.1)
"""Fractions of skipped steps for severities 1, 2 and 3."""
RISEN = 1.2
"""Training loss at the end as a multiple of its lowest tenth: noise in a tenth's mean stays within a few per cent."""
ENOUGH = 100
"""The fewest steps for a curve of the loss: ten in each tenth of the run."""
USUAL = 1e-3
"""Learning rate of the presets for small images."""
EXPLODED = 1.5
"""Training loss of a tenth of the run, as a multiple of that before the first step."""
STUCK = 0.98
"""Loss of the last tenth relative to that of three tenths before, above which it has stopped falling."""
FALLING, STEADY = 0.95, 0.97
"""Loss of the last three tenths of the constant learning rate relative to that of the three tenths before, below which
it was falling, and above which it was not: chance alone changes it by about 2 % in a run of 2,000 images."""
HEEDED = 1.01
"""Error with another image's label as a multiple of that with its own, below which labels have no effect."""
OVERFIT = 1.05
"""Held-out loss at the end as a multiple of its lowest, while the loss on training images fell."""


def other_data(e: Evidence) -> Finding | None:
    """The images are not those that the run was trained on."""
    if not e.data.changed:
        return None
    return Finding(
        3 if far(e) else 2,
        f"The images of {e.data.source} are no longer those that the run was trained on.",
        (
            "Their fingerprint is not the one in the newest checkpoint.",
            f"The samples' distance from them is {e.default.distance:.3f} (that of two halves of the images: "
            f"{e.data.distance:.3f}).",
        ),
        (again(e),),
    )


def one_image(e: Evidence) -> Finding | None:
    """So few distinct images that the model can only memorise them."""
    if e.data.distinct >= FEW:
        return None
    ours, real = (127.5 * x.diversity for x in (e.default.statistics, e.data.statistics))
    return Finding(
        3,
        f"The data holds only {plural(e.data.distinct, 'distinct image')}: the model can only memorise.",
        (
            f"Training images: {e.data.train:,}; distinct ones among them, pixel by pixel: {e.data.distinct}.",
            f"Two training images differ by {real:.0f} of 255, two samples by {ours:.0f}.",
        ),
        (command("data", "check", e.data.source),),
    )


def narrow_data(e: Evidence) -> Finding | None:
    """Images within a small part of the range from black to white."""
    real = e.data.statistics
    extreme = max(real.black, real.white)
    if max(high - low for low, high in zip(real.low, real.high, strict=True)) > NARROW and extreme < ONE_VALUE:
        return None
    shade = "black" if real.black > real.white else "white"
    return Finding(
        3,
        "The training images have almost no contrast, and the samples too: the cause is the data, not the model.",
        (
            f"{100 * extreme:.0f} % of their values are {shade}."
            if extreme >= ONE_VALUE
            else f"98 % of their values are within {byte(min(real.low))} to {byte(max(real.high))} of 255.",
            f"The samples' values have a standard deviation of {127.5 * e.default.statistics.contrast:.0f} of 255, the "
            f"data's of {127.5 * real.contrast:.0f}.",
        ),
        (command("data", "check", e.data.source),),
    )


def stretched_range(e: Evidence) -> Finding | None:
    """Values that make the range of the images larger than they need: marks for missing data, an unused depth."""
    if not e.data.findings:
        return None
    text = "Training sees the images in a small part of its range: the cause is the data, not the model."
    return Finding(3, text, e.data.findings, (command("data", "check", e.data.source),))


def skipped_steps(e: Evidence) -> Finding | None:
    """Steps whose loss or gradient was not finite."""
    tr = e.training
    if tr is None or not tr.skipped:
        return None
    total = tr.skipped + tr.steps
    severity = sum(tr.skipped / total >= bound for bound in SKIPPED)
    if not severity:
        return None
    return Finding(
        severity,
        f"{100 * tr.skipped / total:.1f} % of the training steps were skipped, because their loss or gradient was not "
        "finite.",
        (f"{tr.skipped:,} of {total:,} steps, at most {tr.in_a_row} in a row.", f"The learning rate is {tr.lr:g}."),
        (again(e, f"--optim.lr {tr.lr / 3:.2g}"),),
    )


def diverged(e: Evidence) -> Finding | None:
    """A loss that rose again, or that never fell below the trivial guess."""
    tr = e.training
    if tr is None or tr.steps < ENOUGH:
        return None
    lowest, highest, last = min(tr.losses), max(tr.losses), tr.losses[-1]
    start = float("inf") if tr.start is None else tr.start
    exploded, rose = highest > EXPLODED * start, last > RISEN * lowest
    if not (exploded or rose or last > STUCK * tr.losses[-4]) or not unlearned(e):
        return None
    slow = not (exploded or rose) and tr.lr < USUAL
    return Finding(
        3,
        f"The training {'made no progress' if slow else 'diverged'}: the learning rate is too "
        f"{'low' if slow else 'high'}.",
        (
            f"The training loss went from {start:.3f} before the first step up to {highest:.3g}, and is {last:.3f} at "
            "the end."
            if exploded
            else f"The training loss rose again: {lowest:.3f} at its lowest, {last:.3f} at the end."
            if rose
            else f"The training loss stays at {last:.3f}.",
            f"The error of the predicted image at medium noise is {e.trained.middle:.2f} times {GUESS}.",
            f"The learning rate is {tr.lr:g}; the gradient's norm went from {tr.gradient[0]:.2g} to "
            f"{tr.gradient[-1]:.2g}.",
        ),
        (again(e, f"--optim.lr {USUAL if slow else min(tr.lr / 10, USUAL):.2g}"),),
    )


def too_short(e: Evidence) -> Finding | None:
    """A training that ended before the network learned anything, or before its samples came near the data.

    The latter holds where nothing else explains the distance, and is worth knowing where the samples may be close to
    the data already. A loss that falls at the end of a run says nothing: the
    decay of the learning rate makes it fall at the end of every run.
    """
    tr, certain = e.training, e.quality.least >= FAULTY
    if tr is None or e.data.changed or diverged(e) is not None:  # errors on other images say nothing of the training
        return None
    nothing = unlearned(e)
    memorised = e.data.distinct < FEW or repeats(e) is not None
    if nothing and not falling(tr) and tr.steps >= ENOUGH:  # then it diverged
        return None
    if not nothing and (memorised or e.quality.worst < FAULTY or tr.images >= LONG * typical(e.shape)):
        return None
    stopped = tr.images < tr.planned
    least = enough(tr.images, e.quality)
    first = f", besides the {tr.begun_with:,} that its first weights had seen" if tr.begun_with else ""
    more = max(least, 4 * tr.images, 2 * typical(e.shape)) if nothing else least
    what = "was far too short" if nothing else "was too short" if certain else "may have been too short"
    worst = "" if nothing or certain else "At worst about"
    return Finding(
        3 if nothing else max(1, e.quality.least - 1),
        f"The training {what}: "
        + ("the network has not learned what the images are." if nothing else f"it saw {tr.images:,} images."),
        tuple(
            filter(
                None,
                (
                    f"{plural(tr.images, 'image')} were seen{f' of {tr.planned:,} planned' if stopped else ''}, each "
                    f"training image {tr.images / max(e.data.train, 1):,.1f} times{first}.",
                    f"{worst or 'About'} {more:,} would be needed for samples close to the data, as other runs went "
                    f"(docs/training.md){_time(e, more - tr.images)}.",
                    _words(tr),
                    f"At medium noise the error is {e.trained.middle:.2f} times {GUESS}.",
                ),
            )
        ),
        (again(e, suffix="") if stopped else longer(e, more),),
        last=not nothing,
    )


def falling(tr: Training) -> bool:
    """Return whether the loss was falling clearly while the learning rate was still constant, as far as is known."""
    course = _course(tr)
    return course is None or course[1] < FALLING * course[0]


def _before_decay(tr: Training) -> tuple[float, ...]:
    """The losses of the parts of the run before the learning rate began its last fall; all where it never did."""
    parts = len(tr.losses) * tr.decays_at // max(tr.images, 1)
    return tr.losses[:parts] if 6 <= parts <= len(tr.losses) else tr.losses


def _course(tr: Training) -> tuple[float, float] | None:
    """Mean loss of two successive times of three tenths of the run each, the second just before the learning rate
    fell; None in a run of so few steps that it has no such parts."""
    before = _before_decay(tr)
    return (sum(before[-6:-3]) / 3, sum(before[-3:]) / 3) if len(before) >= 6 else None


def _words(tr: Training) -> str:
    """How the loss went before the learning rate fell."""
    if (course := _course(tr)) is None:
        return ""
    before, after = course
    when = "Before the learning rate fell, the" if len(_before_decay(tr)) < len(tr.losses) else "The"
    change = 100 * (after / before - 1)
    how = f"fell by {-change:.0f} %" if after < STEADY * before else f"rose by {change:.0f} %"
    how = how if abs(change) > 100 * (1 - STEADY) else "hardly changed"
    return f"{when} training loss {how} in three tenths of the run: {before:.3f}, then {after:.3f}."


def _time(e: Evidence, images: int) -> str:
    time = takes(e, images)
    return f": {time} from here" if time else ""


def too_small(e: Evidence) -> Finding | None:
    """A network that has seen enough images, and whose samples are still far from the data."""
    tr = e.training
    if tr is None or not far(e) or unlearned(e) or tr.images < LONG * typical(e.shape) or repeats(e) is not None:
        return None
    return Finding(
        2,
        "The network is probably too small for these images: more training is unlikely to help.",
        (
            f"{tr.images:,} images were seen, over {LONG} times as many as runs on images of this size needed to come "
            f"close to the data ({typical(e.shape):,}).",
        ),
        (again(e, "--preset medium32" if max(e.shape[1:]) <= 32 else "--preset large64"),),
        last=True,
    )


def repeats(e: Evidence) -> Finding | None:
    """Samples that are training images, or a held-out loss that rose again."""
    data, tr = e.data, e.training
    copies = data.nearest is not None and data.nearest > 0 and e.default.nearest < COPIED * data.nearest
    passes = tr.held_out if tr is not None else ()
    best = min(passes, key=lambda one: one[1], default=None)
    warned = tr is not None and any(message.startswith("overfitting") for message in tr.warnings)
    turned = best is not None and (warned or passes[-1][1] > OVERFIT * best[1]) and passes[-1][2] < best[2]
    if not (copies or turned) or data.distinct < FEW:
        return None
    figures = []
    if copies and data.nearest is not None:
        figures.append(
            f"The distance from the nearest training image is {127.5 * e.default.nearest:.1f} of 255 for a sample, "
            f"{127.5 * data.nearest:.1f} for a held-out image (medians)."
        )
    if turned and best is not None:
        figures.append(
            f"The held-out loss rose from {best[1]:.3f} at {best[0]:,} images to {passes[-1][1]:.3f}, while that on "
            f"training images fell from {best[2]:.3f} to {passes[-1][2]:.3f}."
        )
    if tr is not None:
        figures.append(f"{data.train:,} training images were each seen {tr.images / data.train:,.0f} times.")
    earlier = (resample(e, "--weights best"),) if turned and "best" in e.readings else ()
    return Finding(
        3 if copies else 2,
        "The model repeats its training images instead of making new ones."
        if copies
        else "The model has begun to memorise its training images.",
        tuple(figures),
        (*earlier, again(e, "--data.flip true --net.dropout 0.1", f"--images {best[0] if best else 10_000}")),
    )


def unfinished(e: Evidence) -> Finding | None:
    """A run that stopped before its planned length."""
    tr = e.training
    if tr is None or tr.finished or tr.images >= tr.planned:
        return None
    events = f"{plural(len(tr.warnings), 'warning')}, {plural(tr.restarts, 'restart')}"
    return Finding(
        1,
        f"The training stopped at {100 * tr.images / tr.planned:.0f} % of its planned length.",
        (f"{tr.images:,} of {tr.planned:,} images; {events}.",),
        (again(e, suffix=""),),
    )


def unheeded_labels(e: Evidence) -> Finding | None:
    """A conditional model on which labels have no effect."""
    labels = e.labels
    if labels is None or labels.other > HEEDED * labels.own:
        return None
    return Finding(
        2,
        "Labels have no effect: the network predicts an image as well with another image's label as with its own.",
        (
            f"The error with another image's label is {labels.other / labels.own:.3f} times that with its own.",
            f"{100 * labels.dropout:.0f} % of the examples were trained without their label.",
        ),
        (again(e, "--train.label_dropout 0.1"),),
    )


def needs_labels(e: Evidence) -> Finding | None:
    """A conditional model that never saw an image without its label."""
    labels = e.labels
    if labels is None or labels.dropout > 0 or labels.none < 1.05 * labels.own:
        return None
    return Finding(
        1,
        "The model never saw an image without its label, and cannot generate without one.",
        (
            f"Without a label the error is {labels.none / labels.own:.2f} times that with it.",
            distances(e, "with labels", "no label", "without"),
        ),
        (resample(e, "--label all"),),
    )
