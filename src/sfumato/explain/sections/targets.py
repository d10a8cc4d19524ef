"""Why predict the noise: eps, x_0, v and mu of one moment, and what an error in one is in the others."""

from __future__ import annotations

import torch

from sfumato.diffusion import PARAMETERIZATIONS
from sfumato.errors import command
from sfumato.explain.context import Context
from sfumato.explain.figure import Figure
from sfumato.explain.packing import f32
from sfumato.report.figures import spaced

SPACES = ("eps", "x0", "v", "mu")


def collect(context: Context) -> Figure:
    """Return the figure: directions (p, q) of each space by t, and the determinants that convert errors."""
    steps = spaced(context.schedule, 60, -12.0, 14.0)
    t = steps.double() / context.total
    level = context.schedule(t)
    directions, factors = [], []
    own = context.model.config.diffusion.parameterization
    spaces = [*SPACES, *([] if own in SPACES else [own])]
    for name in spaces:
        p, q = PARAMETERIZATIONS[name].direction(context.schedule, t)
        directions.append(torch.stack([p, q]))
        # an error of the image, dx_0, is an error d / sigma dx_0 of the output
        factors.append(((level.alpha * q - level.sigma * p) / level.sigma).abs())
    return Figure(
        name="targets",
        title="Noise, image, velocity, mean: four ways to say one thing",
        caption="At a given $x_t$ the image and the noise determine each other, so a network may output either, "
        "or a mixture $p\\, x_0 + q\\,\\epsilon$. Only the scale of an error changes: the curves show what an "
        "error of 0.1 in the output is in the guessed image. A noise predictor is exact near the data and leaves "
        "the image open near pure noise; an image predictor is the reverse.",
        formula=r"(p, q) =\quad \epsilon :\ (0, 1) ,\quad x_0 :\ (1, 0) ,\quad v :\ (-\sqrt{1-\bar\alpha_t},"
        r"\ \sqrt{\bar\alpha_t})",
        code=(
            "diffusion.parameterization.inverse",
            "diffusion.parameterization.solve",
            "diffusion.parameterization.target",
        ),
        data={
            "spaces": spaces,
            "own": own,
            "steps": steps.tolist(),
            "directions": f32(torch.stack(directions)),
            "factors": f32(torch.stack(factors)),
        },
        live="the four targets and the four predictions, from the image, the noise and the network's prediction",
        made="the network's predictions, and the factors by t",
        command=command(
            *("train", context.model.config.data.source, "--diffusion.parameterization", "eps"),
            *("--run", "runs/eps"),
        ),
    )
