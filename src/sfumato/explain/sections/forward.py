"""An image and any t: x_t by the closed form, with its signal, its noise, its histogram and its frequencies."""

from __future__ import annotations

import torch
from torch import Tensor

from sfumato.explain.context import Context
from sfumato.explain.figure import Figure
from sfumato.explain.packing import f32


def collect(context: Context) -> Figure:
    """Return the figure; only the images' spectra are computed beforehand."""
    spectra = radial_power(context.images.x_0)
    levels = context.schedule(torch.arange(1, context.total + 1, dtype=torch.float64) / context.total)
    power = spectra.mean(0)
    drowned = [_drowned(levels.abar, levels.sigma.square(), float(p)) for p in (power[1], power[-1])]
    return Figure(
        name="forward",
        title="An image at any time",
        caption="Move t. The noisy image $x_t$ is a mixture of the image and of noise, the one scaled down as the "
        "other grows; the bars show how much of each. Fine detail has little power and drowns "
        "first; the broad shapes last.",
        formula=r"x_t = \sqrt{\bar\alpha_t}\, x_0 + \sqrt{1-\bar\alpha_t}\,\epsilon ,\quad"
        r" \epsilon \sim \mathcal{N}(0, I)",
        code=("diffusion.process.marginal", "diffusion.noise.normal", "explain.sections.forward.radial_power"),
        data={"spectra": f32(spectra)},
        live="x_t, its histogram and the bars, from the stored image, the schedule and noise that the page draws "
        "itself by the same counter-based generator as the library",
        made="the power of each image by spatial frequency",
        command=f"sfumato illustrate {context.command} --figure forward --out forward.png",
        findings=(
            f"Of these {len(spectra)} images the finest detail is weaker than the noise from t = {drowned[1]:,} of "
            f"{context.total:,} on, the broadest shapes from t = {drowned[0]:,} on.",
        ),
    )


def radial_power(x: Tensor) -> Tensor:
    """Return the mean power of images (n, C, H, W) by spatial frequency 0, 1, .. min(H, W) / 2 cycles an image, (n, K).

    With an orthonormal Fourier transform white noise of variance v has the power v at every frequency, so what lies
    below the noise's line is drowned.
    """
    _, _, height, width = x.shape
    power = torch.fft.fft2(x.double(), norm="ortho").abs().square().mean(1)
    rows, columns = (torch.fft.fftfreq(n, 1 / n, dtype=torch.float64) for n in (height, width))
    scale = max(height, width)  # cycles an image's longer side
    radius = ((rows[:, None] * scale / height) ** 2 + (columns[None] * scale / width) ** 2).sqrt().round().long()
    most = max(1, min(height, width) // 2)
    bins = radius.clamp(max=most).flatten()
    count = torch.bincount(bins, minlength=most + 1).clamp(min=1)
    sums = torch.zeros(len(x), most + 1, dtype=torch.float64).index_add_(1, bins, power.flatten(1))
    return (sums / count).float()


def _drowned(abar: Tensor, variance: Tensor, power: float) -> int:
    """The first step at which a frequency of this power is below the noise."""
    below = (abar * power < variance).nonzero()
    return int(below[0]) + 1 if len(below) else len(abar)
