r"""The variational bound: how many bits a model needs for an image, term by term.

Sending an image down the chain costs at least what the model's every step fails to foresee:

    -log p(x_0) <= L = L_T + sum_{s > 0} L_s + L_0                                                DDPM Eq. 5

    L_T  = KL( q(x_T | x_0) || N(0, I) )                    what is left of the image in pure noise; no parameters
    L_s  = KL( q(x_s | x_t, x_0) || p(x_s | x_t) )          for each pair of neighbours s < t of the grid
    L_0  = -log p(x_0 | x_t), t the last before 0           a Gaussian integrated over each value's bin, DDPM Eq. 13

Posterior and reverse step are the ones that `process` gives the sampler, so what is scored is what is sampled. Any
decreasing grid of times is a chain of its own (a respaced one), with a bound of its own.

An 8-bit value k is the point 2k/255 - 1, and the model gives it the mass of the bin that reaches half-way to its
neighbours, 1/255 to either side, the outermost bins open to infinity; the 256 masses add up to one. Of other integers
there are more levels, 65,536 of 16 bits, and the bins are as much narrower. Values that are no integers have no bins
(`levels` None): L_0 is then -log of the Gaussian's density, and the whole bounds -log of a density, which may be
negative. Bits a dimension are nats / (d ln 2).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.diffusion.denoiser import Condition, Denoiser
from sfumato.diffusion.gaussian import Gaussian
from sfumato.diffusion.prediction import Prediction
from sfumato.diffusion.process import marginal, posterior
from sfumato.diffusion.reverse import reverse
from sfumato.diffusion.samplers.protocol import NoiseSource
from sfumato.diffusion.schedule import Level
from sfumato.diffusion.variance import Variance

__all__ = ["VLB", "bits_per_dim", "bound_term", "decoder_nll", "discretized_nll", "prior_term", "vlb", "vlb_terms"]


def bits_per_dim(nats: Tensor) -> Tensor:
    """Return mean over coordinates of nats, in bits: (B, C, H, W) -> (B,)."""
    return nats.flatten(1).mean(1) / math.log(2)


def decoder_nll(gaussian: Gaussian, x_0: Tensor, levels: int | None = 256) -> Tensor:
    """Return L_0 of each coordinate in nats, (B, C, H, W): `discretized_nll`, or for `levels` None -log N(x_0)."""
    return -gaussian.log_prob(x_0) if levels is None else discretized_nll(gaussian, x_0, levels)


def discretized_nll(gaussian: Gaussian, x_0: Tensor, levels: int = 256) -> Tensor:
    """Return -log of the mass that a Gaussian gives to the bin of each integer value, in nats (DDPM Eq. 13).

    log( Phi((x + h - mean)/std) - Phi((x - h - mean)/std) ), h = 1 / (levels - 1), with -1 and 1 open outwards. A
    difference of two near-equal tails is taken as log Phi(b) + log(1 - Phi(a)/Phi(b)) on the side of the mean where Phi
    is small, so that a value far out in a tail keeps its digits. Bins of more than 8 bits are so narrow that float32
    has too few digits for their edges, and they are taken in float64.

    Args:
        gaussian: the decoder p(x_0 | x_t); its variance positive.
        x_0: (B, C, H, W), values 2k/(levels - 1) - 1.
        levels: how many values there are.

    Returns:
        (B, C, H, W), at least 0.
    """
    if levels > 256 and x_0.dtype != torch.float64:
        wide = Gaussian(gaussian.mean.double(), gaussian.logvar.double())
        return discretized_nll(wide, x_0.double(), levels).to(x_0.dtype)
    half_bin, inverse_std = 1 / (levels - 1), (-gaussian.logvar / 2).exp()
    low, high = ((x_0 + side * half_bin - gaussian.mean) * inverse_std for side in (-1, 1))
    low = torch.where(x_0 < -1 + half_bin, torch.full_like(low, -torch.inf), low)
    high = torch.where(x_0 > 1 - half_bin, torch.full_like(high, torch.inf), high)
    # by symmetry the bin (low, high) has the mass of (-high, -low): use the one further left
    right = low + high > 0
    low, high = torch.where(right, -high, low), torch.where(right, -low, high)
    return -_log_mass(low, high)


def _log_mass(low: Tensor, high: Tensor) -> Tensor:
    """log( Phi(high) - Phi(low) ) for low < high with the bin's middle at or left of 0."""
    log_high: Tensor = torch.special.log_ndtr(high)
    log_low: Tensor = torch.special.log_ndtr(low.clamp(min=-1e18))
    return log_high + torch.log1p(-(log_low - log_high).exp().clamp(max=1 - torch.finfo(low.dtype).eps))


def prior_term(x_0: Tensor, level_T: Level) -> Tensor:
    """Return L_T = KL( q(x_T | x_0) || N(0, I) ) of each coordinate in nats, (B, C, H, W)."""
    standard = Gaussian(torch.zeros_like(x_0), x_0.new_zeros(()))
    return marginal(x_0, level_T).kl(standard)


def bound_term(
    prediction: Prediction,
    x_0: Tensor,
    x_t: Tensor,
    level_s: Level,
    level_t: Level,
    level_next: Level,
    variance: Variance,
    levels: int | None = 256,
) -> Tensor:
    """Return the bound's term of the step from t to s, in nats a coordinate: a KL for s > 0, the decoder's -log p at s
    = 0.

    Args:
        prediction: what the denoiser said at t.
        x_0: (B, C, H, W), where s = 0 values 2k/(levels - 1) - 1.
        x_t: (B, C, H, W).
        level_s: the level at s, () or (B,); some of a batch may be at s = 0.
        level_t: the level at t.
        level_next: one step noisier than t (see `variance`).
        variance: of the reverse step.
        levels: how many values x_0 can have; None for any.

    Returns:
        (B, C, H, W).
    """
    step = reverse(prediction, x_t, level_s, level_t, variance, level_next)
    last = level_s.sigma == 0
    if bool(last.all()):
        return decoder_nll(step, x_0, levels)
    kl = posterior(x_t, x_0, level_s, level_t).kl(step)
    if not bool(last.any()):
        return kl
    return torch.where(last.to(x_t.device).reshape(-1, *[1] * (x_t.ndim - 1)), decoder_nll(step, x_0, levels), kl)


@dataclass(frozen=True)
class VLB:
    """The bound of a batch, each example and term for itself, in bits a dimension.

    Attributes:
        prior: (B,), L_T.
        steps: (B, N - 1), L_s for each s > 0 of the grid, the noisiest first.
        decoder: (B,), L_0.
        mse: (B, N), mean squared error of x0^ at each time of the grid, the noisiest first, images in [-1, 1].
    """

    prior: Tensor
    steps: Tensor
    decoder: Tensor
    mse: Tensor

    @property
    def total(self) -> Tensor:
        """The bound on -log p(x_0), (B,)."""
        return self.prior + self.steps.sum(1) + self.decoder

    @property
    def rate(self) -> Tensor:
        """What is sent before the last step, L_T and every L_s, (B,) (DDPM Table 4)."""
        return self.prior + self.steps.sum(1)

    @property
    def distortion(self) -> Tensor:
        """What the last step leaves to say, L_0, (B,)."""
        return self.decoder


def vlb_terms(
    denoiser: Denoiser,
    x_0: Tensor,
    times: Tensor,
    noise: NoiseSource,
    variance: Variance,
    condition: Condition = None,
    levels: int | None = 256,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Walk the grid and yield each term as it is known, the noisiest first; the last is L_0.

    Args:
        denoiser: scored.
        x_0: (B, C, H, W), values 2k/(levels - 1) - 1.
        times: (N + 1,) decreasing to 0, as from `grid`.
        noise: `noise.step(i)` noises the images at times[i].
        variance: of the reverse step.
        condition: handed to the denoiser.
        levels: how many values x_0 can have; None for any.

    Yields:
        (term, mse): (B,) bits a dimension, and (B,) the mean squared error of the predicted image.
    """
    chain = [denoiser.schedule(t) for t in times.tolist()]
    for i in range(len(chain) - 1):
        x_t = marginal(x_0, chain[i]).sample(noise.step(i))
        prediction = denoiser(x_t, float(times[i]), condition)
        before = chain[max(i - 1, 0)]
        term = bound_term(prediction, x_0, x_t, chain[i + 1], chain[i], before, variance, levels)
        yield bits_per_dim(term), (prediction.x0 - x_0).square().flatten(1).mean(1)


@torch.no_grad()
def vlb(
    denoiser: Denoiser,
    x_0: Tensor,
    times: Tensor,
    noise: NoiseSource,
    variance: Variance,
    condition: Condition = None,
    levels: int | None = 256,
) -> VLB:
    """Return every term of the bound, each estimated with one draw of x_t. Arguments as `vlb_terms`."""
    terms, errors = zip(*vlb_terms(denoiser, x_0, times, noise, variance, condition, levels), strict=True)
    prior = bits_per_dim(prior_term(x_0, denoiser.schedule(float(times[0]))))
    inner = torch.stack(terms[:-1], 1) if len(terms) > 1 else prior.new_zeros(len(prior), 0)
    return VLB(prior, inner, terms[-1], torch.stack(errors, 1))
