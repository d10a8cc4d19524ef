"""One training step as a story, with Algorithm 1 beside it and this run's numbers."""

from __future__ import annotations

import torch

from sfumato.diffusion import PARAMETERIZATIONS
from sfumato.errors import command
from sfumato.explain.context import Context
from sfumato.explain.figure import Figure
from sfumato.explain.packing import f32
from sfumato.explain.sections.bound import loss_weight

LINES = (
    "repeat",
    "x₀ ~ q(x₀): take an image from the data",
    "t ~ Uniform{1 .. T}: take a time at random",
    "ε ~ N(0, I): draw noise",
    "make xₜ, ask the network, take a gradient step on the squared error",
    "until converged",
)


def collect(context: Context) -> Figure:
    """Return the figure; it reads the shared predictions."""
    config, moments = context.model.config, context.moments
    t = moments.steps.double() / context.total
    spaces = {name: PARAMETERIZATIONS[name].direction(context.schedule, t) for name in _spaces(context)}
    recent: list[float | None] = []
    if context.summary is not None and (parts := context.summary.stepped(10)):
        recent = list(parts[-1].buckets.means)
    changes = []
    if config.diffusion.parameterization != "eps":
        changes.append(
            f"This network does not output the noise but '{config.diffusion.parameterization}', another reading of the "
            "same thing."
        )
    timesteps = type(config.diffusion.timesteps).__name__
    if timesteps != "Uniform":
        changes.append(
            f"Its t is not uniform ({timesteps}): the levels where an image takes shape are drawn more often."
        )
    optim = config.optim
    changes.append(
        f"A step of this run takes {config.train.batch} images at once; the optimiser is {optim.name} at a rate of up "
        f"to {optim.lr:g}."
    )
    return Figure(
        name="step",
        title="One training step",
        caption="Go through Algorithm 1 of DDPM line by line. Each example is an image, a time and a noise; the "
        "only thing that the network sees is the noisy image and the time.",
        formula=r"L_{\mathrm{simple}} = \left\| \epsilon - \epsilon_\theta( \sqrt{\bar\alpha_t}\, x_0 +"
        r" \sqrt{1-\bar\alpha_t}\,\epsilon ,\ t ) \right\|^2",
        code=(
            "diffusion.objective.training_loss",
            "diffusion.objective.Simple.losses",
            "train.trainer.Trainer.step",
        ),
        data={
            "lines": list(LINES),
            "spaces": {name: f32(torch.stack(both)) for name, both in spaces.items()},
            "space": config.diffusion.space,
            "own": config.diffusion.parameterization,
            "weights": f32(loss_weight(context, moments.steps)),
            "recent": recent,
        },
        live="the noisy image, the errors and the loss",
        made="the network's predictions; the losses by noise level are from the run's event log",
        command=command(
            *("train", context.model.config.data.source, "--diffusion.parameterization", "eps"),
            *("--diffusion.timesteps.kind", "uniform", "--run", "runs/eps"),
        ),
        findings=tuple(changes),
    )


def _spaces(context: Context) -> list[str]:
    diffusion = context.model.config.diffusion
    return list(dict.fromkeys(["eps", diffusion.space, diffusion.parameterization]))
