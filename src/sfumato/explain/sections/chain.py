"""The chain step by step beside the jump: other noise, the same distribution, shown and measured."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sfumato.diffusion import Noise, forward_step, marginal
from sfumato.explain.context import Context
from sfumato.explain.figure import Figure
from sfumato.explain.packing import u8
from sfumato.report.figures import spaced

COLUMNS = 11
_VALUES = 20_000
"""About how many values the chain is measured on."""


def collect(context: Context) -> Figure:
    """Walk one image through the chain, several times over where it is small."""
    steps = [0, *spaced(context.schedule, COLUMNS - 1).tolist()]
    x_0 = context.images.x_0[:1]
    copies = max(1, min(64, _VALUES // x_0.numel()))
    chain, jump = walk(context, x_0.expand(copies, -1, -1, -1), steps)
    rows = []
    for step, stepped, jumped in zip(steps, chain, jump, strict=True):
        level = context.schedule(step / context.total)
        alpha, sigma = float(level.alpha), float(level.sigma)
        left = [(x - alpha * x_0) / sigma if sigma else x * 0 for x in (stepped, jumped)]
        distance = kolmogorov(*left) if step else 0.0
        rows.append([step, *(float(f(r)) for r in left for f in (torch.mean, torch.std)), distance])
    number = x_0.numel() * copies
    # the 1 % point of the largest of several two-sample Kolmogorov-Smirnov distances
    limit = math.sqrt(-math.log(0.01 / max(1, len(steps) - 1) / 2) / number)
    worst = max(row[-1] for row in rows)
    return Figure(
        name="chain",
        title="A thousand small steps, or one jump",
        caption="Above, noise is added step by step, as the chain is defined; below, each time is reached at once "
        "by the closed form. The noise differs, so single pixels do. How much of the image is left at each t is "
        "the same. The steps are even in the logarithm of the signal-to-noise ratio, so something happens in each.",
        formula=r"q(x_t \mid x_{t-1}) = \mathcal{N}( \sqrt{1-\beta_t}\, x_{t-1},\ \beta_t I )",
        code=("diffusion.process.forward_step", "diffusion.process.marginal", "explain.sections.chain.walk"),
        data={
            "steps": steps,
            "chain": u8(context.shown(context.model.codec.from_pixels(torch.stack([x[0] for x in chain])))),
            "jump": u8(context.shown(context.model.codec.from_pixels(torch.stack([x[0] for x in jump])))),
            "rows": rows,
            "limit": limit,
        },
        made=f"both rows, and the table, from {number:,} pixel values each",
        command=f"sfumato illustrate {context.command} --figure forward --out forward.png",
        findings=(
            f"The largest distance between the two distributions of the noise is {worst:.4f}; if they are equal, "
            f"it exceeds {limit:.4f} once in a hundred times.",
        ),
    )


def walk(context: Context, x_0: Tensor, steps: list[int]) -> tuple[list[Tensor], list[Tensor]]:
    """Return x_0 (n, C, H, W) at some steps, by the chain and by the closed form."""
    total, schedule = context.total, context.schedule
    noise = Noise(context.seed + 1, torch.arange(len(x_0)), tuple(x_0.shape[1:]))
    chain, stepped = x_0, [x_0]
    for i in range(1, total + 1):
        chain = forward_step(chain, schedule((i - 1) / total), schedule(i / total)).sample(noise.step(i - 1))
        if i in steps:
            stepped.append(chain)
    return stepped, [
        marginal(x_0, schedule(i / total)).sample(noise.step(total + k)) if i else x_0 for k, i in enumerate(steps)
    ]


def kolmogorov(x: Tensor, y: Tensor) -> float:
    """Return the greatest distance of two samples' distribution functions (Kolmogorov, Smirnov)."""
    x, y = x.flatten().sort().values, y.flatten().sort().values
    both = torch.cat([x, y])
    below = [torch.searchsorted(each, both, right=True) / len(each) for each in (x, y)]
    return float((below[0] - below[1]).abs().max())
