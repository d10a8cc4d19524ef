"""Causes that lie in the noise schedule, its two ends, and the way down it."""

from __future__ import annotations

from sfumato.diagnose.causes.finding import GAIN, UNLEARNED, Finding, again, far, redraw
from sfumato.diagnose.evidence import Evidence

__all__ = ["clipping", "first_level", "last_steps", "more_steps", "schedule_end"]

END = 0.05
"""alpha at the chain's end above which the start of sampling may matter; linear betas end at 0.006, cosine below it."""
COARSE = 1.2
"""Error at little noise, as a multiple of the pixel-by-pixel guess's, from which on samples keep noise."""
GRAINY = 1.3
"""Grain, as a multiple or fraction of the data's, outside which the last steps have spoilt the samples."""
UNSETTLED = 0.2
"""Change of the images from 50 to 250 steps, as a share of the data's diversity."""


def schedule_end(e: Evidence) -> Finding | None:
    """A chain that ends before the image is gone, so that sampling starts where training never was."""
    started = e.draws["from data"].apart
    if e.process.alpha_end < END or started > GAIN * e.draw.apart:
        return None
    return Finding(
        "schedule_end",
        3 if far(e) else 2,
        "The noise schedule ends before the image is gone: sampling starts from noise that training never saw.",
        (
            f"At the chain's end {100 * e.process.alpha_end:.0f} % of the image is left in x_T (alpha), "
            f"{e.process.leak_bits:,.1f} bits of it.",
            f"Started from noise, the samples are {e.draw.apart:.3f} from the data; started from noised training "
            f"images, {started:.3f}.",
        ),
        (again(e, "--diffusion.zero_terminal_snr true --diffusion.parameterization v"),),
    )


def last_steps(e: Evidence) -> Finding | None:
    """A network that is worse than useless where little noise is left: it leaves noise, or takes detail away."""
    reading = e.reading
    if reading.clean < COARSE or reading.middle > UNLEARNED:
        return None
    spoilt = not 1 / GRAINY < e.draw.look.grain / max(e.data.look.grain, 1e-9) < GRAINY
    return Finding(
        "last_steps",
        3 if spoilt else 2,
        "The last steps spoil the images: where little noise is left, the network is worse than a trivial guess.",
        (
            f"At the two levels of least noise its error is {reading.clean:.2f} times that of the best guess made "
            f"pixel by pixel; at medium noise it is {reading.middle:.2f} times.",
            f"The samples' grain is {e.draw.look.grain:.3f}, the data's {e.data.look.grain:.3f}.",
        ),
        (again(e, "--diffusion.parameterization v --diffusion.weighting none --diffusion.loss_space none"),),
    )


def first_level(e: Evidence) -> Finding | None:
    """A chain whose cleanest level is so noisy that fine detail is never learned."""
    sigma, grain = e.process.sigma_first, e.data.look.grain
    if sigma < 0.5 * grain or e.draw.look.grain > 0.8 * grain:
        return None
    return Finding(
        "first_level",
        3 if e.draw.look.grain < 0.6 * grain else 2,
        "The chain's cleanest level is still noisy: detail finer than that can't be drawn, and comes out blurred.",
        (
            f"The first level has noise of {127.5 * sigma:.0f} of 255, the data's finest detail {127.5 * grain:.0f}.",
            f"The samples' grain is {e.draw.look.grain / grain:.2f} times the data's.",
        ),
        (again(e, "--diffusion.schedule.kind cosine --diffusion.schedule.num_steps 1000 --diffusion.logsnr_shift 0"),),
    )


def more_steps(e: Evidence) -> Finding | None:
    """Samples that are not settled at the usual number of steps."""
    most = max(e.draws.values(), key=lambda draw: draw.steps)
    if most.steps == e.draw.steps or e.unsettled < UNSETTLED or most.apart > GAIN * e.draw.apart:
        return None
    return Finding(
        "more_steps",
        3 if far(e) else 2,
        f"{e.draw.steps} steps are too few for this model.",
        (
            f"From {e.draw.steps} to {most.steps} steps the images change by {100 * e.unsettled:.0f} % of the data's "
            f"diversity.",
            f"They are {e.draw.apart:.3f} from the data with {e.draw.steps} steps, {most.apart:.3f} with {most.steps}.",
        ),
        (redraw(e, f"--steps {most.steps}"),),
    )


def clipping(e: Evidence) -> Finding | None:
    """Samples that are better without clipping."""
    free = e.draws["unclipped"].apart
    if not far(e) or free > GAIN * e.draw.apart:
        return None
    return Finding(
        "clipping",
        2,
        "Clipping the predicted images harms this model's samples.",
        (f"The samples are {e.draw.apart:.3f} from the data with clipping, {free:.3f} without.",),
        (redraw(e, "--range free"),),
    )
