"""The posterior q(x_{t-1} | x_t, x_0) and the model's step, pixel by pixel."""

from __future__ import annotations

from sfumato.explain.context import Context
from sfumato.explain.figure import Figure


def collect(context: Context) -> Figure:
    """Return the figure; it reads the shared predictions."""
    moments = context.moments
    number = f"{len(moments.x0)} images at {len(moments.steps)} times"
    return Figure(
        name="posterior",
        title="The posterior under the microscope",
        caption="Given the true image, the step back is a Gaussian that is known exactly: its mean is a mixture "
        "of $x_t$ and $x_0$. The model does not know $x_0$ and puts its prediction in its place. Choose a pixel: "
        "its two Gaussians, and the divergence between them, which is what the bound adds up.",
        formula=r"\begin{aligned} q(x_{t-1} \mid x_t, x_0) &= \mathcal{N}( a\, x_t + b\, x_0,\ \tilde\beta_t I )\\"
        r" a &= \frac{\sqrt{\alpha_t} (1-\bar\alpha_{t-1})}{1-\bar\alpha_t} ,\quad b ="
        r" \frac{\sqrt{\bar\alpha_{t-1}}\,\beta_t}{1-\bar\alpha_t} ,\quad \tilde\beta_t ="
        r" \frac{1-\bar\alpha_{t-1}}{1-\bar\alpha_t} \beta_t \end{aligned}",
        code=(
            "diffusion.process.posterior_coefficients",
            "diffusion.process.posterior",
            "diffusion.variance.reverse",
            "diffusion.gaussian.Gaussian.kl",
        ),
        data={},
        live="the coefficients, both means, both variances and the KL of each pixel",
        made=f"the network's predictions of {number}",
    )
