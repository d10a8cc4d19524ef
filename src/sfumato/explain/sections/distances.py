"""The model's step against the posterior by two distances, KL and Wasserstein, by t."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sfumato.diffusion.process import posterior_coefficients, step_variance
from sfumato.explain.context import Context
from sfumato.explain.figure import Figure


def distances(context: Context, steps: Tensor, mse: Tensor) -> tuple[Tensor, Tensor]:
    """Return KL in bits and W_2^2, both a coordinate, (K,), from the mean squared error of x_0 at some steps t > 1."""
    t = steps.double() / context.total
    before, level = context.schedule(t - 1 / context.total), context.schedule(t)
    _, b, small = posterior_coefficients(before, level)
    own = step_variance(before, level) if "large" in context.model.config.diffusion.variance else small
    apart = b.square() * mse
    ratio = small / own
    kl = 0.5 * (ratio - 1 - ratio.log() + apart / own) / math.log(2)
    return kl, apart + (small.sqrt() - own.sqrt()).square()


def figure(context: Context, steps: Tensor, mse: Tensor) -> Figure:
    """Return the figure from what the bound's measurement found."""
    inner, learned = steps > 1, context.model.config.diffusion.variance == "learned"
    kl, wasserstein = distances(context, steps[inner], mse[inner])
    # each measured term stands for the steps up to the middle between its neighbours
    edges = torch.cat(
        [steps[inner][:1].double(), (steps[inner][1:] + steps[inner][:-1]) / 2, steps[inner][-1:].double()]
    )
    width = edges.diff()
    fractions = [each * width / (each * width).sum().clamp(min=1e-300) for each in (kl, wasserstein)]
    low = steps[inner] <= 0.1 * context.total
    parts = [float(each[low].sum()) for each in fractions]
    return Figure(
        name="distances",
        title="KL and Wasserstein, measured",
        caption="The distance of the model's step from the true one by t, by two measures, each relative to its "
        "largest value. KL divides by the variance of the step and sees the end near the data; Wasserstein does not.",
        formula=r"W_2^2 = (m_1-m_2)^2 + ( s_1 - s_2 )^2",
        code=("explain.sections.distances.distances",),
        data={
            "steps": steps[inner].tolist(),
            "kl": kl.tolist(),
            "wasserstein": wasserstein.tolist(),
            "fractions": [each.cumsum(0).tolist() for each in fractions],
        },
        made="the errors that the bound was measured from"
        + ("; for the learned variance stands the small one" if learned else ""),
        findings=(
            f"The tenth of the chain nearest to the data has {100 * parts[0]:.0f} % of the sum of KL and "
            f"{100 * parts[1]:.0f} % of the sum of the squared Wasserstein distances.",
        ),
    )
