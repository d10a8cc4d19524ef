"""Causes in the weights, in how their output is read, in the noise schedule, and in sampling, each in `CAUSES`."""

from __future__ import annotations

from sfumato.diagnose.causes.finding import BETTER, GUESS, UNLEARNED, Finding, again, distances, far, mends, resample
from sfumato.diagnose.evidence import Evidence
from sfumato.diagnose.symptoms import shifts

BIASED = 0.1
"""Fraction of the error that a constant a channel removes; healthy runs stay below 0.03."""
UNTAUGHT = 1e-3
"""Standard deviation of a learned variance's fraction below which it is the same everywhere."""
END = 0.05
"""alpha at the chain's end above which the start of sampling may matter; linear betas end at 0.006, cosine below it."""
COARSE = 1.2
"""Error at little noise relative to the trivial one above which samples keep noise."""
GRAINY = 1.3
"""Grain, as a multiple or fraction of the data's, outside which the last steps spoil the samples."""
UNSETTLED = 0.2
"""Change of the images from the default number of steps to the most, relative to the data's diversity."""


def broken_weights(e: Evidence) -> Finding | None:
    """Weights or predictions that are not finite."""
    if e.default.finite == 1 and e.reading.finite:
        return None
    good = [name for name in ("raw", "best") if name != e.main and name in e.readings and e.readings[name].finite]
    lower = again(e, f"--optim.lr {e.training.lr / 10 if e.training else 1e-4:.2g}")
    return Finding(
        3,
        f"The {e.main} weights give values that are not finite.",
        (f"{100 * (1 - e.default.finite):.0f} % of the sampled values are not finite.",),
        tuple(resample(e, f"--weights {name}") for name in good) or (lower,),
    )


def wrong_reading(e: Evidence) -> Finding | None:
    """The network's output is of another parameterisation than its header's."""
    best = min(e.others.values(), key=lambda reading: reading.middle, default=None)
    if best is None or best.middle > UNLEARNED or best.middle > BETTER * e.reading.middle:
        return None
    return Finding(
        3,
        f"The weights predict {best.parameterization}, but their header says {e.parameterization}.",
        (
            f"Read as {e.parameterization}, the error of the predicted image at medium noise is "
            f"{e.reading.middle:.2f} times {GUESS}.",
            f"Read as {best.parameterization}, it is {best.middle:.2f} times that.",
        ),
        (again(e, f"--diffusion.parameterization {best.parameterization}"),),
    )


def average_too_long(e: Evidence) -> Finding | None:
    """An average that still holds weights from before anything was learned."""
    raw, tr = e.readings.get("raw"), e.training
    if e.main != "ema" or raw is None or raw.middle > min(UNLEARNED, BETTER * e.reading.middle):
        return None
    history = (
        f"{100 * tr.initial:.0f} % of the average is still the initial weights: its half-life is "
        f"{tr.half_life:,.0f} images, and {tr.images:,} were seen."
        if tr is not None
        else ""
    )
    return Finding(
        3 if e.reading.middle > UNLEARNED or far(e) else 2,
        "The half-life of the average of the weights is too long: it still holds weights that had learned nothing.",
        (
            f"At medium noise the error of the average is {e.reading.middle:.2f} times {GUESS}; that of the weights as "
            f"trained is {raw.middle:.2f} times.",
            distances(e, "with the average", "raw", "without"),
            *filter(None, (history,)),
        ),
        (resample(e, "--weights raw"), again(e, "--ema.half_life 0.02 --ema.ramp 0.05")),
    )


def shifted_output(e: Evidence) -> Finding | None:
    """A constant error in a channel: a tint, or a shift of brightness."""
    levels = [level for level in e.reading.levels if level.t > 0.2]
    constant = sum(level.constant for level in levels) / len(levels)
    if constant < BIASED or e.reading.centred > UNLEARNED:  # an untrained network has more than a constant error
        return None
    means = [sum(biases) / len(levels) for biases in zip(*(level.bias for level in levels), strict=True)]
    better = [
        name
        for name in ("raw", "best")
        if name != e.main and name in e.readings and e.readings[name].middle < BETTER * e.reading.middle
    ]
    return Finding(
        3,
        "The network's output is off by a constant: everything it predicts is shifted in colour or brightness.",
        (
            f"{100 * constant:.0f} % of the error would vanish if a constant were added to each channel.",
            f"The predicted images are off by {shifts(means)} (of 255), on average over the noise levels.",
        ),
        tuple(resample(e, f"--weights {name}") for name in better) or (again(e),),
    )


def untaught_variance(e: Evidence) -> Finding | None:
    """A learned variance that learned nothing."""
    v = e.variance
    if v is None or (v.deviation > UNTAUGHT and v.learned < 1.05 * v.fixed):
        return None
    return Finding(
        2,
        "The learned variance has learned nothing: it is the same everywhere."
        if v.deviation <= UNTAUGHT
        else "The learned variance is worse than a fixed one.",
        (
            "Its position between the smallest and the largest variance has a standard deviation of "
            f"{v.deviation:.4f} over levels and pixels.",
            f"With it the bound's terms are {v.learned:.3f} bits a dimension, with a fixed variance {v.fixed:.3f}.",
        ),
        (resample(e, "--sampler ddpm --variance small"), again(e, "--diffusion.objective hybrid")),
    )


def schedule_end(e: Evidence) -> Finding | None:
    """A chain that ends before the image is gone, so that sampling starts outside the training distribution."""
    if e.process.alpha_end < END or not mends(e, "from data"):
        return None
    return Finding(
        3 if far(e) else 2,
        "The noise schedule ends before the image is gone: sampling starts from pure noise, which training never saw.",
        (
            f"At the chain's end {100 * e.process.alpha_end:.0f} % of the image is left in x_T (alpha), "
            f"{e.process.leak_bits:,.1f} bits of it.",
            distances(e, "when they start from noise", "from data", "when they start from noised training images"),
        ),
        (again(e, "--diffusion.zero_terminal_snr true --diffusion.parameterization v"),),
    )


def last_steps(e: Evidence) -> Finding | None:
    """A network that is worse than the trivial guess at little noise: it leaves noise, or removes detail."""
    reading, ours, real = e.reading, e.default.statistics.grain, e.data.statistics.grain
    if reading.clean < COARSE or reading.middle > UNLEARNED:
        return None
    return Finding(
        2 if 1 / GRAINY < ours / max(real, 1e-9) < GRAINY else 3,
        "The last steps spoil the images: where little noise is left, the network is worse than a trivial guess.",
        (
            f"At the two levels of least noise its error is {reading.clean:.2f} times {GUESS}; at medium noise it is "
            f"{reading.middle:.2f} times.",
            f"The samples' grain is {ours:.3f}, the data's {real:.3f}.",
        ),
        (again(e, "--diffusion.parameterization v --diffusion.weighting none --diffusion.loss_space none"),),
    )


def first_level(e: Evidence) -> Finding | None:
    """A chain whose cleanest level is so noisy that fine detail is never learned."""
    sigma, ours, real = e.process.sigma_first, e.default.statistics.grain, e.data.statistics.grain
    if sigma < 0.5 * real or ours > 0.8 * real:
        return None
    return Finding(
        3 if ours < 0.6 * real else 2,
        "The chain's cleanest level is still noisy: detail finer than that noise is never learned and gets blurred.",
        (
            f"The first level has noise of {127.5 * sigma:.0f} of 255, the data's finest detail {127.5 * real:.0f}.",
            f"The samples' grain is {ours / real:.2f} times the data's.",
        ),
        (again(e, "--diffusion.schedule.kind cosine --diffusion.schedule.num_steps 1000 --diffusion.logsnr_shift 0"),),
    )


def more_steps(e: Evidence) -> Finding | None:
    """Samples that are not converged at the default number of steps."""
    few, name = e.default.steps, max(e.samples, key=lambda name: e.samples[name].steps)
    most = e.samples[name].steps
    if most == few or e.unsettled < UNSETTLED or not mends(e, name):
        return None
    return Finding(
        3 if far(e) else 2,
        f"{few} steps are too few for this model.",
        (
            f"From {few} to {most} steps the images change by {100 * e.unsettled:.0f} % of the data's diversity.",
            distances(e, f"with {few} steps", name, f"with {most}"),
        ),
        (resample(e, f"--steps {most}"),),
    )


def clipping(e: Evidence) -> Finding | None:
    """Samples that are better without clipping."""
    if not far(e) or not mends(e, "unclipped"):
        return None
    return Finding(
        2,
        "Clipping the predicted images harms this model's samples.",
        (distances(e, "with clipping", "unclipped", "without"),),
        (resample(e, "--range free"),),
    )
