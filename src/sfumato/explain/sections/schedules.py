"""The noise schedules side by side, this run's marked."""

from __future__ import annotations

import torch
from torch import Tensor

from sfumato.diffusion import SCHEDULES, Schedule, bits_per_dim, prior_term
from sfumato.explain.context import Context
from sfumato.explain.figure import Figure
from sfumato.explain.packing import f32

POINTS = 200
OWN = "this model's"
GONE = 0.001
"""Bits per dimension below which an image counts as gone: of 3x16x16 values, less than one bit of the whole image."""


def collect(context: Context) -> Figure:
    """Return the schedules at evenly spaced times."""
    named: dict[str, Schedule] = {OWN: context.schedule}
    named |= {name: kind(context.total) for name, kind in SCHEDULES.items()}
    count = min(POINTS, context.total)
    t = torch.linspace(1, context.total, count, dtype=torch.float64).round() / context.total
    curves = torch.stack([schedule(t).logsnr.clamp(-30, 30) for schedule in named.values()])
    half = {name: _half(schedule) for name, schedule in named.items()}
    x_0 = context.model.codec.from_pixels(context.images.x_0)
    last = {name: gone(x_0, named[name]) for name in (OWN, "linear", "cosine")}
    own = [name for name, schedule in named.items() if schedule == context.schedule and name != OWN]
    kind = f"the {own[0]} schedule" if own else "a schedule of its own"
    return Figure(
        name="schedules",
        title="Schedules",
        caption="A schedule says how fast the image goes. The strip shows one image under each schedule at the "
        "same times. At the end of the linear schedule of the DDPM paper the images are noise already for many "
        "steps; the cosine schedule was made to lose the image evenly.",
        formula=r"\bar\alpha_t = \prod_{s \le t} (1-\beta_s) ,\quad \mathrm{SNR}_t ="
        r" \frac{\bar\alpha_t}{1-\bar\alpha_t}",
        code=(
            "diffusion.schedule.Linear.betas",
            "diffusion.schedule.Cosine.betas",
            "diffusion.schedule.Chain.log_abar",
        ),
        data={
            "names": list(named),
            "own": own,
            "steps": (t * context.total).round().tolist(),
            "curves": f32(curves),
        },
        live="the strip, and abar, beta and SNR from the stored log SNR",
        made=f"the log SNR of each schedule at {count} of {context.total:,} steps",
        command=f"sfumato illustrate {context.command} --figure schedule --out schedule.png",
        findings=(
            f"This model has {kind}; half of the image's power is left at t = {half[OWN]:,} of {context.total:,} "
            f"(linear: {half['linear']:,}, cosine: {half['cosine']:,}).",
            f"If the chain ended at t, its L_T would be what is left of the image there. For these images that "
            f"is less than {GONE:g} bits per dimension from t = {last[OWN]:,} on (linear: {last['linear']:,}, "
            f"cosine: {last['cosine']:,}): the steps from there on deal with noise alone.",
        ),
    )


def _half(schedule: Schedule) -> int:
    """The step at which abar is a half: logsnr = 0."""
    return round(float(schedule.time(torch.tensor(0.0))) * schedule.num_steps)


def gone(x_0: Tensor, schedule: Schedule) -> int:
    """Return the first step at which KL( q(x_t | x_0) || N(0, I) ), the mean over images x_0, is below `GONE` bits per
    dimension, T + 1 where none is; the divergence falls with t."""
    low, high = 1, schedule.num_steps + 1
    while low < high:
        middle = (low + high) // 2
        left = bits_per_dim(prior_term(x_0.double(), schedule(middle / schedule.num_steps))).mean()
        low, high = (low, middle) if float(left) < GONE else (middle + 1, high)
    return low
