r"""The variational bound: how many bits a model needs for an image, term by term.

Sending an image down the chain costs at least what the model's every step fails to predict:

    -log p(x_0) <= L = L_T + sum_{s > 0} L_s + L_0                                                DDPM Eq. 5

    L_T  = KL( q(x_T | x_0) || N(0, I) )                    what is left of the image in pure noise; no parameters
    L_s  = KL( q(x_s | x_t, x_0) || p(x_s | x_t) )          for each pair of neighbours s < t of the grid
    L_0  = -log p(x_0 | x_t), t the last before 0           a `Decoder`'s, since it depends on how values are stored

Posterior and reverse step are the ones that the sampler uses, so what is scored is what is sampled. Any decreasing grid
of times is a chain of its own (a respaced one), with a bound of its own. Bits a dimension are nats / (d ln 2).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.diffusion.condition import Condition
from sfumato.diffusion.decoder import Decoder, Discretized
from sfumato.diffusion.denoiser import Denoiser
from sfumato.diffusion.gaussian import Gaussian
from sfumato.diffusion.level import Level, broadcast
from sfumato.diffusion.noise import NoiseSource
from sfumato.diffusion.prediction import Prediction
from sfumato.diffusion.process import marginal, posterior
from sfumato.diffusion.schedule import as_time
from sfumato.diffusion.variance import Variance, reverse


def bits_per_dim(nats: Tensor) -> Tensor:
    """Return the mean over coordinates in bits: nats (B, C, H, W) -> (B,)."""
    return nats.flatten(1).mean(1) / math.log(2)


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
    decoder: Decoder = Discretized(),
) -> Tensor:
    """Return the bound's term of the step from t to s, in nats, (B, C, H, W): a KL for s > 0, L_0 at s = 0.

    Levels are () or (B,); some of a batch may be at s = 0. `level_next` is one step noisier than t (see `variance`).
    """
    step = reverse(prediction, x_t, level_s, level_t, variance, level_next)
    last = level_s.sigma == 0
    asked = last.device.type == "cpu"  # elsewhere the question would make Python wait for the device
    if asked and bool(last.all()):
        return decoder(step, x_0)
    kl = posterior(x_t, x_0, level_s, level_t).kl(step)
    if asked and not bool(last.any()):
        return kl
    return torch.where(broadcast(last, x_t).bool(), decoder(step, x_0), kl)


@dataclass(frozen=True)
class VLB:
    """The bound of a batch in bits a dimension: L_T (B,), L_s for each s > 0 of the grid, the noisiest first, (B, N -
    1), L_0 (B,); and the mean squared error of x0^ at each time of the grid, (B, N).
    """

    prior: Tensor
    steps: Tensor
    decoder: Tensor
    mse: Tensor

    @property
    def total(self) -> Tensor:
        """The bound on -log p(x_0), (B,)."""
        return self.prior + self.steps.sum(1) + self.decoder


@torch.no_grad()
def vlb(
    denoiser: Denoiser,
    x_0: Tensor,
    times: Tensor | Sequence[float],
    noise: NoiseSource,
    variance: Variance,
    condition: Condition | None = None,
    decoder: Decoder = Discretized(),
) -> VLB:
    """Return every term of the bound, each estimated with one sample of x_t.

    Args:
        x_0: (B, C, H, W), values for which the decoder is defined.
        times: (N + 1,) decreasing to 0, as from `grid`.
        noise: `noise.step(i)` noises the images at times[i].
        variance, decoder: of the reverse step, and of L_0.
    """
    times = as_time(times, denoiser.schedule.num_steps)
    chain, terms, errors = [denoiser.schedule(t) for t in times.tolist()], [], []
    for i in range(len(chain) - 1):
        x_t = marginal(x_0, chain[i]).sample(noise.step(i))
        prediction = denoiser(x_t, float(times[i]), condition)
        before = chain[max(i - 1, 0)]
        terms.append(bits_per_dim(bound_term(prediction, x_0, x_t, chain[i + 1], chain[i], before, variance, decoder)))
        errors.append((prediction.x0 - x_0).square().flatten(1).mean(1))
    steps = torch.stack(terms, 1)
    return VLB(bits_per_dim(prior_term(x_0, chain[0])), steps[:, :-1], steps[:, -1], torch.stack(errors, 1))
