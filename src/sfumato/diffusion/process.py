r"""The forward process and its exact posterior.

One step of the chain keeps sqrt(alpha_t) of the image and adds fresh noise (DDPM Eq. 2; in this paragraph, as in DDPM,
alpha_t = 1 - beta_t, and abar_t is the product of all up to t):

    x_t = sqrt(alpha_t) x_{t-1} + sqrt(1 - alpha_t) eps

Two independent Gaussians added have the sum of the variances, so two steps are one,

    x_t = sqrt(alpha_t alpha_{t-1}) x_{t-2} + sqrt(1 - alpha_t alpha_{t-1}) eps,
    since alpha_t (1 - alpha_{t-1}) + (1 - alpha_t) = 1 - alpha_t alpha_{t-1}

and repeating that gives the closed form x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps (Eq. 4). In terms of levels,
where alpha_t is sqrt(abar_t) (see `schedule`) and s < t are any two times, neighbours or not:

    q(x_t | x_0) = N( alpha_t x_0, sigma_t^2 I )
    q(x_t | x_s) = N( alpha_ts x_s, beta_ts I ),    alpha_ts = alpha_t / alpha_s
    beta_ts      = sigma_t^2 - alpha_ts^2 sigma_s^2

Written with c = 1 - SNR_t / SNR_s = -expm1(logsnr_t - logsnr_s) the step's variance is beta_ts = sigma_t^2 c, without a
difference of near numbers; for neighbours it is beta_t.

Backward, q(x_s | x_t) is intractable, but given x_0 Bayes' rule makes it Gaussian (DDPM Eq. 6-7):

    q(x_s | x_t, x_0) ~ q(x_t | x_s) q(x_s | x_0)
                      = N( alpha_ts sigma_s^2 / sigma_t^2 x_t + alpha_s c x_0,  sigma_s^2 c I )

For neighbours sigma_s^2 c is beta~_t. The model's step (`variance.reverse`) has the predicted x_0 in the place of the
true one. With s = 0 all of this still holds: sigma_s = 0, c = 1, and the posterior is x_0 itself.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sfumato.diffusion.gaussian import Gaussian
from sfumato.diffusion.level import Level, broadcast


def snr_drop(level_s: Level, level_t: Level) -> Tensor:
    """Return c = 1 - SNR_t / SNR_s, float64, in (0, 1] for s < t (VDM App. A)."""
    return -torch.expm1(level_t.logsnr - level_s.logsnr)


def check_order(level_s: Level, level_t: Level) -> None:
    """Raise ValueError unless s < t in every row; on other devices than the CPU the check would stall the queue."""
    if level_t.logsnr.device.type == "cpu" and bool((level_s.logsnr <= level_t.logsnr).any()):
        raise ValueError("a step goes from t to an earlier s: the level at s must be less noisy than that at t")


def step_variance(level_s: Level, level_t: Level) -> Tensor:
    """Return beta = sigma_t^2 c, the variance of the forward step from s to t, float64."""
    return level_t.sigma.square() * snr_drop(level_s, level_t)


def marginal(x_0: Tensor, level: Level) -> Gaussian:
    """Return q(x_t | x_0) = N( alpha_t x_0, sigma_t^2 I ) (DDPM Eq. 4) for x_0 (B, C, H, W) and a level () or (B,)."""
    return Gaussian(broadcast(level.alpha, x_0) * x_0, broadcast(2 * level.sigma.log(), x_0))


def forward_step(x_s: Tensor, level_s: Level, level_t: Level) -> Gaussian:
    """Return q(x_t | x_s) = N( alpha_t / alpha_s x_s, beta I ); neighbours give DDPM Eq. 2. ValueError unless s < t."""
    check_order(level_s, level_t)
    variance = step_variance(level_s, level_t)
    return Gaussian(broadcast(level_t.alpha / level_s.alpha, x_s) * x_s, broadcast(variance.log(), x_s))


def posterior_coefficients(level_s: Level, level_t: Level) -> tuple[Tensor, Tensor, Tensor]:
    """Return (a, b, beta~) with q(x_s | x_t, x_0) = N( a x_t + b x_0, beta~ I ), float64 (DDPM Eq. 7).

    a = alpha_ts sigma_s^2 / sigma_t^2,  b = alpha_s c,  beta~ = sigma_s^2 c.
    """
    drop = snr_drop(level_s, level_t)
    ratio = (level_s.sigma / level_t.sigma).square()
    return level_t.alpha / level_s.alpha * ratio, level_s.alpha * drop, level_s.sigma.square() * drop


def posterior(x_t: Tensor, x_0: Tensor, level_s: Level, level_t: Level) -> Gaussian:
    """Return q(x_s | x_t, x_0) for any s < t (DDPM Eq. 6-7); at s = 0 it is a point mass at x_0. Raises ValueError
    where s is not before t."""
    check_order(level_s, level_t)
    a, b, variance = posterior_coefficients(level_s, level_t)
    return Gaussian(broadcast(a, x_t) * x_t + broadcast(b, x_0) * x_0, broadcast(variance.log(), x_t))
