"""The model's reverse step p(x_s | x_t): the posterior with the predicted image in the place of the true one."""

from __future__ import annotations

from torch import Tensor

from sfumato.diffusion.gaussian import Gaussian
from sfumato.diffusion.prediction import Prediction
from sfumato.diffusion.process import posterior
from sfumato.diffusion.schedule import Level
from sfumato.diffusion.variance import Variance

__all__ = ["reverse"]


def reverse(
    prediction: Prediction,
    x_t: Tensor,
    level_s: Level,
    level_t: Level,
    variance: Variance,
    level_next: Level | None = None,
) -> Gaussian:
    """Return the model's step p(x_s | x_t): the posterior's mean at the predicted x_0, the variance of `variance`.

    In terms of the predicted noise the mean is ( x_t - (1 - alpha_t)/sqrt(1 - abar_t) eps ) / sqrt(alpha_t), DDPM Eq.
    11. The ancestral sampler draws from this Gaussian and the variational bound scores it; for the last step, s = 0,
    the bound names the next noisier level of the chain (see `variance`).
    """
    mean = posterior(x_t, prediction.x0, level_s, level_t).mean
    return Gaussian(mean, variance.logvar(level_s, level_t, prediction, level_next))
