"""Causes that lie in the weights: what they hold, how they are read, what they were averaged from."""

from __future__ import annotations

from sfumato.diagnose.causes.finding import BETTER, UNLEARNED, Finding, again, against_trivial, far, redraw
from sfumato.diagnose.evidence import Evidence
from sfumato.diagnose.symptoms import channels

__all__ = ["average_too_long", "broken_weights", "shifted_output", "untaught_variance", "wrong_reading"]

BIASED = 0.1
"""Share of the error that a constant a channel takes away; healthy runs stay below 0.03."""
UNTAUGHT = 1e-3
"""Spread of a learned variance's fraction below which it is one and the same everywhere."""


def broken_weights(e: Evidence) -> Finding | None:
    """Weights or predictions that are not numbers."""
    if e.draw.finite == 1 and e.reading.finite:
        return None
    good = [name for name, reading in e.readings.items() if name in ("raw", "best") and reading.finite]
    return Finding(
        "broken_weights",
        3,
        f"The {e.main} weights give values that are not numbers.",
        (f"{100 * (1 - e.draw.finite):.0f} % of the drawn values are not finite.",),
        tuple(redraw(e, "", name) for name in good)
        or (again(e, f"--optim.lr {e.training.lr / 10 if e.training else 1e-4:.2g}"),),
    )


def wrong_reading(e: Evidence) -> Finding | None:
    """The network's output is not what the header says it is."""
    others = [reading for name, reading in e.readings.items() if name.startswith("as ")]
    best = min(others, key=lambda reading: reading.middle, default=None)
    if best is None or best.middle > UNLEARNED or best.middle > BETTER * e.reading.middle:
        return None
    return Finding(
        "wrong_reading",
        3,
        f"The weights predict {best.parameterization}, but their header says {e.parameterization}.",
        (
            f"Read as {e.parameterization}, the error of the predicted image is {against_trivial(e.reading)}.",
            f"Read as {best.parameterization}, it is {best.middle:.2f} times that guess's.",
        ),
        (again(e, f"--diffusion.parameterization {best.parameterization}"),),
    )


def average_too_long(e: Evidence) -> Finding | None:
    """An average that still remembers weights from before anything was learned."""
    raw, tr = e.readings.get("raw"), e.training
    if e.main != "ema" or raw is None or raw.middle > min(UNLEARNED, BETTER * e.reading.middle):
        return None
    figures = [
        f"At medium noise the error is {e.reading.middle:.2f} times the trivial guess's with the average, "
        f"{raw.middle:.2f} times with the weights as trained.",
        f"The samples are {e.draw.apart:.3f} from the data with the average, {e.draws['raw'].apart:.3f} without.",
    ]
    if tr is not None:
        figures.append(
            f"{100 * tr.initial_share:.0f} % of the average is still the initial weights: its half-life is "
            f"{tr.half_life:,.0f} images, and {tr.images:,} were seen."
        )
    return Finding(
        "average_too_long",
        3 if e.reading.middle > UNLEARNED or far(e) else 2,
        "The average of the weights remembers too long: samples come from weights that have not learned yet.",
        tuple(figures),
        (redraw(e, "--raw"), again(e, "--ema.half_life 0.02 --ema.ramp 0.05")),
    )


def shifted_output(e: Evidence) -> Finding | None:
    """A constant error in a channel: tint, or a shift of brightness."""
    levels = [level for level in e.reading.levels if level.t > 0.2]
    biased = sum(level.biased for level in levels) / len(levels)
    if biased < BIASED or e.reading.freed > UNLEARNED:  # who knows nothing is off by a constant among other things
        return None
    means = [sum(level.bias[c] for level in levels) / len(levels) for c in range(len(levels[0].bias))]
    told = ", ".join(f"{name} {127.5 * mean:+.0f}" for name, mean in zip(channels(len(means)), means, strict=True))
    better = [
        name
        for name in ("raw", "best")
        if name != e.main and name in e.readings and e.readings[name].middle < BETTER * e.reading.middle
    ]
    return Finding(
        "shifted_output",
        3,
        "The network's output is off by a constant: everything it predicts is shifted in colour or brightness.",
        (
            f"{100 * biased:.0f} % of the error would vanish if a constant were added to each channel.",
            f"The predicted images are off by {told} (of 255), on average over the noise levels.",
        ),
        tuple(redraw(e, "", name) for name in better) or (again(e),),
    )


def untaught_variance(e: Evidence) -> Finding | None:
    """A learned variance that learned nothing."""
    v = e.variance
    if v is None or (v.spread > UNTAUGHT and v.learned < 1.05 * v.fixed):
        return None
    same = v.spread <= UNTAUGHT
    return Finding(
        "untaught_variance",
        2,
        "The learned variance has learned nothing: it is one and the same everywhere."
        if same
        else "The learned variance is worse than a fixed one.",
        (
            f"Its place between the smallest and the largest variance varies by {v.spread:.4f} over levels and pixels.",
            f"With it the bound's terms are {v.learned:.3f} bits a dimension, with a fixed variance {v.fixed:.3f}.",
        ),
        (redraw(e, "--sampler ddpm --variance small"), again(e, "--diffusion.objective hybrid")),
    )
