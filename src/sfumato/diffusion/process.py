r"""The forward process and its exact posterior.

Forward, one step and in closed form (DDPM Eq. 2 and 4), for any s < t:

    q(x_t | x_s) = N( alpha_ts x_s, var_ts I ),      alpha_ts = alpha_t / alpha_s,    var_ts = sigma_t^2 - alpha_ts^2
    sigma_s^2 q(x_t | x_0) = N( alpha_t x_0, sigma_t^2 I )

Adding two independent Gaussians adds their variances, so steps compose: alpha_tu^2 var_us + var_tu = var_ts. Written
with c = 1 - SNR_t / SNR_s = -expm1(logsnr_t - logsnr_s), the step's variance is var_ts = sigma_t^2 c, with no
difference of near numbers.

Backward, q(x_s | x_t) is out of reach, but given x_0 Bayes' rule makes it Gaussian (DDPM Eq. 6-7):

    q(x_s | x_t, x_0) ~ q(x_t | x_s) q(x_s | x_0)
                      = N( alpha_ts sigma_s^2 / sigma_t^2 x_t + alpha_s c x_0,  sigma_s^2 c I )

For neighbours on the chain c sigma_s^2 is beta~_t. The model's step (`reverse`) puts the predicted
x_0 in the place of the true one and takes its variance from a `Variance`. With s = 0 all of this still holds: sigma_s =
0, c = 1, and the posterior is x_0 itself.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sfumato.diffusion.gaussian import Gaussian
from sfumato.diffusion.schedule import Level, broadcast

__all__ = ["forward_step", "marginal", "posterior", "posterior_coefficients", "snr_drop"]


def snr_drop(level_s: Level, level_t: Level) -> Tensor:
    """Return c = 1 - SNR_t / SNR_s = -expm1(logsnr_t - logsnr_s), float64, in (0, 1] for s < t (VDM App. A)."""
    return -torch.expm1(level_t.logsnr - level_s.logsnr)


def marginal(x_0: Tensor, level: Level) -> Gaussian:
    """Return q(x_t | x_0) = N( alpha_t x_0, sigma_t^2 I ), the forward process in closed form (DDPM Eq. 4).

    Args:
        x_0: (B, C, H, W), images in [-1, 1].
        level: the level at t, () or (B,).
    """
    return Gaussian(broadcast(level.alpha, x_0) * x_0, broadcast(2 * level.sigma.log(), x_0))


def forward_step(x_s: Tensor, level_s: Level, level_t: Level) -> Gaussian:
    """Return q(x_t | x_s) = N( alpha_t / alpha_s x_s, sigma_t^2 c I ) for s < t; neighbours give DDPM Eq. 2.

    Args:
        x_s: (B, C, H, W).
        level_s: the level at s, () or (B,).
        level_t: the noisier level at t.
    """
    variance = level_t.sigma.square() * snr_drop(level_s, level_t)
    return Gaussian(broadcast(level_t.alpha / level_s.alpha, x_s) * x_s, broadcast(variance.log(), x_s))


def posterior_coefficients(level_s: Level, level_t: Level) -> tuple[Tensor, Tensor, Tensor]:
    """Return (a, b, v) with q(x_s | x_t, x_0) = N( a x_t + b x_0, v I ), float64 (DDPM Eq. 7).

    a = alpha_ts sigma_s^2 / sigma_t^2,  b = alpha_s c,  v = sigma_s^2 c.
    """
    drop = snr_drop(level_s, level_t)
    ratio = (level_s.sigma / level_t.sigma).square()
    return level_t.alpha / level_s.alpha * ratio, level_s.alpha * drop, level_s.sigma.square() * drop


def posterior(x_t: Tensor, x_0: Tensor, level_s: Level, level_t: Level) -> Gaussian:
    """Return q(x_s | x_t, x_0) for any s < t (DDPM Eq. 6-7; Luo 2022, Eq. 84).

    Args:
        x_t: (B, C, H, W).
        x_0: (B, C, H, W).
        level_s: the level at s, () or (B,); the clean level gives a point mass at x_0.
        level_t: the noisier level at t.
    """
    a, b, variance = posterior_coefficients(level_s, level_t)
    return Gaussian(broadcast(a, x_t) * x_t + broadcast(b, x_0) * x_0, broadcast(variance.log(), x_t))
