"""Two Gaussians into one: the step from which the closed form follows."""

from __future__ import annotations

from sfumato.explain.context import Context
from sfumato.explain.figure import Figure


def collect(context: Context) -> Figure:
    """Return the figure, which the page computes alone."""
    return Figure(
        name="merge",
        title="Two Gaussians become one",
        caption="Two steps of the chain add two independent noises. The sum of two independent Gaussians is a "
        "Gaussian, and its variance is the sum of theirs: two steps are one step with more noise. Change the two "
        "steps, or play: the two noises are added, and what comes out is the curve that the formula promises.",
        formula=r"\begin{aligned} x_t &= \sqrt{\alpha_t \alpha_{t-1}}\, x_{t-2} + \sqrt{\alpha_t (1-\alpha_{t-1})}"
        r"\,\epsilon_1 + \sqrt{1-\alpha_t}\,\epsilon_2 \\ \alpha_t (1-\alpha_{t-1}) + (1-\alpha_t) &= 1 - \alpha_t"
        r"\alpha_{t-1} \end{aligned}",
        code=("diffusion.process.step_variance",),
        data={},
        live="everything: the two numbers are drawn, scaled and added in the page",
    )
