"""From noise to image by Algorithm 2: the sample, the guess at the image, the guess at the noise, and what is "
"decided."""

from __future__ import annotations

import torch
from torch import Tensor

from sfumato.diagnose.statistics import reduced
from sfumato.diffusion import State
from sfumato.explain.context import Context
from sfumato.explain.effort import SIDE
from sfumato.explain.figure import Figure
from sfumato.explain.packing import u8, unit
from sfumato.generate.pictures import evenly
from sfumato.generate.sample import prepare

STEPS = 100
SETTLED = 0.1
"""A pixel is decided when its guess stays within this of the final value, in the range -1 .. 1."""
LINES = (
    "x_T ~ N(0, I): begin with pure noise",
    "for t = T, .., 1",
    "z ~ N(0, I) if t > 1, else z = 0",
    "ask the network; xₜ₋₁ = mean of its step + σₜ z",
    "return x₀",
)


def collect(context: Context) -> Figure:
    """Sample a few images and keep what was seen on the way, evenly in logsnr."""
    num, recipe = context.effort.filmed, context.watched("ddpm", STEPS)
    sampling = prepare(context.counted, recipe)
    states: list[State] = []
    for _ in sampling.stream(
        num, context.seed, condition=context.conditions(num), batch=num, on_state=lambda first, s: states.append(s)
    ):
        pass
    # the prediction made at state k is carried by state k + 1
    chosen = evenly(len(states) - 1, context.effort.frames)
    x = torch.stack([states[k].x for k in chosen] + [states[-1].x], 1)
    guesses = [states[k + 1].prediction for k in chosen]
    x0 = torch.stack([g.x0 for g in guesses if g is not None] + [states[-1].x], 1)
    eps = torch.stack([g.eps for g in guesses if g is not None], 1)
    when = decided(_pixels(context, x0))
    times = [round(states[k].t * context.total) for k in chosen] + [0]
    middle = times[int(when.flatten().median())]
    return Figure(
        name="reverse",
        title="From noise to image",
        caption="Move through the film, or play it. The sample $x_t$ is noisy until the very end, but the guess "
        "at $x_0$ shows what is being decided: a blur of everything that is still possible at first, then shapes, "
        "then details. The last picture shows when each pixel was decided: the darker, the earlier.",
        formula=r"x_{t-1} = \mu_\theta(x_t, t) + \sigma_t z ,\quad z \sim \mathcal{N}(0, I)",
        code=("diffusion.samplers.ddim.Ancestral.step", "diffusion.variance.reverse"),
        data={
            "lines": list(LINES),
            "times": times,
            "x": u8(_shown(context, x)),
            "x0": u8(_shown(context, x0)),
            "eps": unit(_pixels(context, eps), -3, 3),
            "decided": u8(when),
        },
        made=f"{num} samples by Algorithm 2 in {recipe.steps} steps (sampler ddpm, seed {context.seed}); the frames "
        "are even in the logarithm of the signal-to-noise ratio, so something happens in each",
        command=f"sfumato sample {context.command} --sampler ddpm --steps {recipe.steps} --grid {recipe.grid} "
        f"--num {num} --seed {context.seed}",
        findings=(f"Half of the pixels were decided before t = {middle:,}.",),
    )


def _shown(context: Context, x: Tensor) -> Tensor:
    """States (n, F, ...) as bytes."""
    seen = context.shown(x.flatten(0, 1))
    return seen.reshape(*x.shape[:2], *seen.shape[1:])


def _pixels(context: Context, x: Tensor) -> Tensor:
    """States (n, F, ...) as pixels."""
    pixels = reduced(context.model.codec.to_pixels(x.flatten(0, 1)).cpu(), SIDE)
    return pixels.reshape(*x.shape[:2], *pixels.shape[1:])


def decided(x0: Tensor) -> Tensor:
    """Return for guesses (n, F, C, H, W) the first frame from which each pixel stays near its final value, (n, H, "
    "W)."""
    far = (x0 - x0[:, -1:]).abs().amax(2) > SETTLED
    frame = torch.arange(1, far.shape[1] + 1)[None, :, None, None]
    return (far * frame).amax(1)
