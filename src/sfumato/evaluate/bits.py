r"""Bits a dimension of held-out images, with intervals that say how far to trust them.

Three ways to the code length of images under a model, all through the denoiser that samples:

    vlb       the whole bound on a grid: L_T, every L_s and L_0 (DDPM Eq. 5), one evaluation a step for each image
    sampled   the same bound from a few of its terms an image: an unbiased estimate, which buys more images for the
              same time where the spread between images is what limits the figure
    flow      the probability-flow density at t_0 = 1/T and the decoder below it (`diffusion.flow`)

Images of integers, 8 bits or 16, are the middles of 256 or 65,536 bins and have probabilities. Floats have none: what
is given for them is -log2 of a density a dimension, in the data's own units (`depth.PixelFormat.bits_offset`), which may be
negative, and which no number of another unit or of integers can be compared with.

Two things are random in such a figure: which images were scored and which noise they met. With R draws of noise for
each of N images, the mean over draws has the variance of the images (and what noise is left in it) over N, which gives
the interval; the part due to noise alone is the mean within-image variance over N R, given beside it when R > 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.codec.format import EIGHT, PixelFormat
from sfumato.diffusion import Bound, Denoiser, Noise, Variance, bits_per_dim, prior_term, training_loss, vlb
from sfumato.diffusion.decoder import decoder_for
from sfumato.diffusion.flow import Flow, variational_bits
from sfumato.diffusion.noise import Purpose, normal, uniform
from sfumato.errors import UserError

__all__ = ["Bits", "Estimate", "estimate", "flow_bits", "sampled_bits", "vlb_bits"]

Progress = Callable[[int, int], None]
_Z = 1.959963984540054  # the 97.5 % point of N(0, 1)


@dataclass(frozen=True)
class Estimate:
    """A mean with a 95 % interval.

    Attributes:
        mean: in bits a dimension.
        half_width: of the interval over images (and the noise they met): mean +- half_width.
        noise_half_width: what half_width would be if only the noise were drawn anew; None with one draw an image.
    """

    mean: float
    half_width: float
    noise_half_width: float | None = None


@dataclass(frozen=True)
class Bits:
    """What an image costs, and where.

    Attributes:
        kind: vlb, sampled or flow.
        total: the figure: an upper bound on -log2 p(x_0) a dimension, p a density where the data are floats.
        prior: L_T (None for flow).
        rate: L_T and every L_s, what is sent before the last step (None for flow).
        distortion: L_0 (None for flow).
        images: N.
        repeats: R, draws of noise an image.
        steps: of the chain; 0 for flow.
        curve: (t, bits, rmse) for each time of the grid, the noisiest first: the term of the step that leaves t, and
            the root mean squared error of x0^ there, in the data's units, 0-255 for bytes (nan where sampled); () for
            flow.
    """

    kind: str
    total: Estimate
    prior: Estimate | None
    rate: Estimate | None
    distortion: Estimate | None
    images: int
    repeats: int
    steps: int
    curve: tuple[tuple[float, float, float], ...]

    @property
    def progressive(self) -> list[tuple[float, float]]:
        """(bits received, rmse of the image as then decoded): the rate-distortion curve of DDPM Fig. 5."""
        points, received = [], 0.0 if self.prior is None else self.prior.mean
        for _, bits, rmse in self.curve:
            points.append((received, rmse))
            received += bits
        return points


def estimate(values: Tensor) -> Estimate:
    """Return the mean of (N, R) values with its interval over N, and the part of it that R explains.

    Args:
        values: (N, R) bits a dimension: N images, R draws of noise each.
    """
    values = values.double()
    num, repeats = values.shape
    half = _Z * float(values.mean(1).std()) / math.sqrt(num) if num > 1 else math.inf
    noise = _Z * float(values.var(1).mean().sqrt()) / math.sqrt(num * repeats) if repeats > 1 else None
    return Estimate(float(values.mean()), half, noise)


def _batches(
    images: Tensor, conditions: Tensor | None, batch: int, device: torch.device | str, depth: PixelFormat
) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
    """Yield (index, x_0, condition) of images of a depth.

    Raises:
        UserError: no image, or images of another depth.
    """
    if len(images) == 0:
        raise UserError("no image to score: the held-out part is empty; set data.held_out")
    if images.dtype != depth.tensor_dtype:
        bins = f"{depth.levels}-bin likelihood" if depth.levels else "density as floats"
        raise UserError(f"images of {images.dtype} have no {bins}: give {depth.kind}-bit ones, or their own depth")
    for index in torch.split(torch.arange(len(images)), batch):
        condition = None if conditions is None else conditions[index].to(device)
        yield index.to(device), depth.to_model(images[index].to(device)), condition


def vlb_bits(
    denoiser: Denoiser,
    images: Tensor,
    times: Tensor,
    variance: Variance,
    seed: int = 0,
    repeats: int = 1,
    batch: int = 64,
    device: torch.device | str = "cpu",
    conditions: Tensor | None = None,
    on_progress: Progress | None = None,
    depth: PixelFormat = EIGHT,
) -> Bits:
    """Score images by the whole bound.

    Args:
        denoiser: the model.
        images: (N, C, H, W), values of the depth.
        times: (K + 1,) decreasing to 0: the chain whose bound it is.
        variance: of the reverse step.
        seed: of the noise, by address (seed, image, step).
        repeats: draws of noise an image.
        batch: images at a time; it does not change the result.
        device: where to compute.
        conditions: (N, A), what the model is told of each image; None for nothing.
        on_progress: called with (images done, images in all).
        depth: what the images' values are.

    Raises:
        UserError: no image, or images of another depth.
    """
    total, prior, decoder = _Table(len(images), repeats), _Table(len(images), repeats), _Table(len(images), repeats)
    terms = torch.zeros(len(times) - 1, dtype=torch.float64)
    errors = torch.zeros_like(terms)
    for index, x_0, condition in _batches(images, conditions, batch, device, depth):
        for r in range(repeats):
            noise = Noise(seed + r, index, tuple(x_0.shape[1:]))
            one = vlb(denoiser, x_0, times, noise, variance, condition, decoder_for(depth.levels))
            total.put(index, r, one.total + depth.bits_offset)
            prior.put(index, r, one.prior)
            decoder.put(index, r, one.decoder + depth.bits_offset)
            terms += torch.cat([one.steps, one.decoder[:, None] + depth.bits_offset], 1).double().sum(0).cpu()
            errors += one.mse.double().sum(0).cpu()
        if on_progress is not None:
            on_progress(int(index[-1]) + 1, len(images))
    count = len(images) * repeats
    rmse = depth.scale * (errors / count).sqrt()
    curve = tuple(zip(times[:-1].tolist(), (terms / count).tolist(), rmse.tolist(), strict=True))
    return _bits("vlb", total, prior, decoder, len(times) - 1, curve)


@torch.no_grad()
def sampled_bits(
    denoiser: Denoiser,
    images: Tensor,
    variance: Variance,
    terms: int = 16,
    seed: int = 0,
    repeats: int = 1,
    batch: int = 64,
    device: torch.device | str = "cpu",
    conditions: Tensor | None = None,
    on_progress: Progress | None = None,
    depth: PixelFormat = EIGHT,
) -> Bits:
    """Score images by a few terms of the full chain's bound each: L_T and L_0 always, the others sampled.

    The terms grow towards the data about as 1 / t, so step i of 2..T is drawn with probability p_i, nine parts in ten
    of it in proportion to 1 / i and one part even, in `terms` strata of equal probability, by address:

        L ~ L_T + L_0 + mean over the terms drawn of L_i / p_i,       exact in the mean.

    Args and raises: as `vlb_bits`, with `terms` the number of sampled terms an image, at most T - 1.
    """
    num_steps = denoiser.schedule.num_steps
    terms, bound = min(terms, num_steps - 1), Bound(variance, decoder_for(depth.levels))
    total, prior, decoder = _Table(len(images), repeats), _Table(len(images), repeats), _Table(len(images), repeats)
    seen = []
    for index, x_0, condition in _batches(images, conditions, batch, device, depth):
        first = bits_per_dim(prior_term(x_0, denoiser.schedule(1.0))).double()
        for r in range(repeats):
            steps, weights = _stratified(uniform(seed + r, Purpose.HELD_OUT_TIME, index, (terms,)), num_steps)
            losses = []
            for k in range(terms + 1):
                eps = normal(seed + r, Purpose.HELD_OUT_NOISE, index, tuple(x_0.shape[1:]), step=k)
                loss = training_loss(bound, denoiser, x_0, steps[:, k] / num_steps, eps, condition).loss.double()
                losses.append(loss / (num_steps * math.log(2)))
            losses[-1] += depth.bits_offset
            table = torch.stack(losses, 1)
            inner = (weights * table[:, :-1]).mean(1) if terms else 0 * first
            total.put(index, r, first + inner + table[:, -1])
            prior.put(index, r, first)
            decoder.put(index, r, table[:, -1])
            seen.append(torch.stack([steps / num_steps, table], -1).flatten(0, 1).cpu())
        if on_progress is not None:
            on_progress(int(index[-1]) + 1, len(images))
    return _bits("sampled", total, prior, decoder, num_steps, _curve(torch.cat(seen)))


def _stratified(u: Tensor, num_steps: int) -> tuple[Tensor, Tensor]:
    """Draw steps of 2..T, one from each of K strata of equal probability, and append step 1.

    Args:
        u: (B, K) in [0, 1).
        num_steps: T.

    Returns:
        The steps (B, K + 1) float64, and 1 / p of those drawn, (B, K).
    """
    count, rest = u.shape[1], num_steps - 1
    falling = 1 / torch.arange(2, num_steps + 1, dtype=torch.float64, device=u.device)
    p = 0.9 * falling / falling.sum() + 0.1 / max(1, rest)
    place = (torch.arange(count, device=u.device) + u) / max(1, count)
    drawn = torch.searchsorted(p.cumsum(0), place, right=True).clamp(max=max(0, rest - 1))
    last = torch.ones(len(u), 1, dtype=torch.float64, device=u.device)
    return torch.cat([2.0 + drawn, last], 1), 1 / p[drawn] if count else u


def flow_bits(
    denoiser: Denoiser,
    images: Tensor,
    variance: Variance,
    seed: int = 0,
    probes: int = 1,
    rtol: float = 1e-3,
    repeats: int = 1,
    batch: int = 64,
    device: torch.device | str = "cpu",
    conditions: Tensor | None = None,
    on_progress: Progress | None = None,
    depth: PixelFormat = EIGHT,
) -> Bits:
    """Score images by the probability-flow density, dequantised by the chain's own first step.

    Args and raises: as `vlb_bits`, with `probes` random directions for the divergence and `rtol` the tolerance.
    """
    flow, total = Flow(denoiser, rtol, rtol), _Table(len(images), repeats)
    for index, x_0, condition in _batches(images, conditions, batch, device, depth):
        for r in range(repeats):
            noise = Noise(seed + r, index, tuple(x_0.shape[1:]))
            signs = torch.stack([noise.step(1 + p).sign() for p in range(probes)])
            bits = variational_bits(flow, x_0, noise.step(0), signs, variance, condition, decoder_for(depth.levels))
            total.put(index, r, bits + depth.bits_offset)
        if on_progress is not None:
            on_progress(int(index[-1]) + 1, len(images))
    return Bits("flow", estimate(total.values), None, None, None, len(images), repeats, 0, ())


class _Table:
    """(N, R) figures that come batch by batch, repeat by repeat."""

    def __init__(self, num: int, repeats: int) -> None:
        self.values = torch.zeros(num, repeats, dtype=torch.float64)

    def put(self, index: Tensor, repeat: int, values: Tensor) -> None:
        """Enter one figure for each image of a batch."""
        self.values[index.cpu(), repeat] = values.double().cpu()


def _bits(
    kind: str, total: _Table, prior: _Table, decoder: _Table, steps: int, curve: tuple[tuple[float, float, float], ...]
) -> Bits:
    """Turn the tables of a bound into figures with intervals."""
    num, repeats = total.values.shape
    rate = total.values - decoder.values
    return Bits(
        kind=kind,
        total=estimate(total.values),
        prior=estimate(prior.values),
        rate=estimate(rate),
        distortion=estimate(decoder.values),
        images=num,
        repeats=repeats,
        steps=steps,
        curve=curve,
    )


def _curve(seen: Tensor, buckets: int = 20) -> tuple[tuple[float, float, float], ...]:
    """(t, bits of one term, nan) averaged over stretches of t, the noisiest first; `seen` is (n, 2) of t and bits."""
    place = (seen[:, 0] * buckets).ceil().long().clamp(1, buckets) - 1
    points = []
    for k in reversed(range(buckets)):
        here = seen[place == k]
        if len(here):
            points.append((float(here[:, 0].mean()), float(here[:, 1].mean()), math.nan))
    return tuple(points)
