r"""The best variance of the reverse step, measured on a trained model instead of learnt.

The optimal variance is beta~ + b^2 Var[x_0 | x_t] (see `variance.Optimal`), and Analytic-DPM (2201.06503, Eq. 8-10)
reads the average posterior variance off a noise predictor that is exact, eps^ = E[eps | x_t]. What the mean of an
inexact one needs is its own mean squared error, which is stable to estimate too (Bao et al. 2022, 2206.07309, Sec. 4);
for an exact eps^ the two agree, since its error is orthogonal to it:

    E Var[x_0 | x_t] / d = sigma_t^2 / alpha_t^2 ( 1 - E |eps^|^2 / d )
    E |x_0 - x0^|^2 / d  = sigma_t^2 / alpha_t^2 E |eps - eps^|^2 / d

One pass of the network over some noised images at a few dozen times measures it; any grid of sampling steps can then
use it. Values in [-1, 1] have a variance of at most 1, and a measured one is clamped to [0, 1].
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.diffusion.condition import Condition
from sfumato.diffusion.denoiser import Denoiser
from sfumato.diffusion.process import marginal
from sfumato.diffusion.samplers.protocol import NoiseSource
from sfumato.diffusion.schedule import Level, Schedule


@dataclass(frozen=True, eq=False)
class MeasuredVariance:
    """Var[x_0 | x_t] averaged over coordinates, from measured errors, for `variance.Optimal` or `PiGDM`.

    Attributes:
        schedule: of the denoiser that was measured.
        times: (K,) increasing, in (0, 1].
        error: (K,), E |eps - eps^|^2 / d at those times, interpolated linearly in t between them.
    """

    schedule: Schedule
    times: Tensor
    error: Tensor

    def __call__(self, level: Level) -> Tensor:
        """Return Var[x_0 | x_t], () or (B, 1, 1, 1) float64 in [0, 1]."""
        t = self.schedule.time(level.logsnr)
        times, error = (table.to(t.device, torch.float64) for table in (self.times, self.error))
        right = torch.searchsorted(times, t).clamp(1, len(times) - 1)
        part = ((t - times[right - 1]) / (times[right] - times[right - 1])).clamp(0.0, 1.0)
        between = torch.lerp(error[right - 1], error[right], part)
        variance = ((-level.logsnr).exp() * between).clamp(0.0, 1.0)
        return variance if variance.ndim == 0 else variance.reshape(-1, 1, 1, 1)


@torch.no_grad()
def noise_errors(
    denoiser: Denoiser, x_0: Tensor, times: Tensor, noise: NoiseSource, condition: Condition | None = None
) -> Tensor:
    """Return | eps - eps^(x_t, t) |^2 / d of each example at each time, (B, K); the mean over examples is
    `MeasuredVariance.error`.

    Args:
        denoiser: the trained model.
        x_0: (B, C, H, W).
        times: (K,) in (0, 1].
        noise: `noise.step(k)` noises the images at times[k].
        condition: of the images.
    """
    columns = []
    for k, t in enumerate(times.tolist()):
        eps = noise.step(k)
        x_t = marginal(x_0, denoiser.schedule(t)).sample(eps)
        columns.append((eps - denoiser(x_t, t, condition).eps).square().flatten(1).mean(1))
    return torch.stack(columns, 1)
