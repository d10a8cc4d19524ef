r"""Bits a dimension of held-out images, with confidence intervals.

Three estimates of the code length of images under a model, all by the denoiser that samples:

    WholeBound     the bound on a grid: L_T, every L_s and L_0 (DDPM Eq. 5), one evaluation a step for each image
    SampledBound   the same bound from a few of its terms an image: unbiased, and more images for the same time
    FlowDensity    the probability-flow density at t_0 = 1/T and the decoder below it (`diffusion.flow`)

Integers are the middles of bins and have probabilities. Floats have only a density: their figure is -log2 of it a
dimension, in the data's own units (`Codec.bits_offset`). It may be negative and can't be compared with figures of
integers or of other units.

The scored images and their noise are random. With R draws of noise for each of N images, the mean over
draws has the variance of the images (and what noise is left in it) over N, which gives the interval; the part due to
noise alone is the mean within-image variance over N R. `Bits` keeps the tables of single terms for that.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from sfumato.codec.protocol import Codec
from sfumato.diffusion import Bound, Denoiser, Noise, Variance, bits_per_dim, prior_term, training_loss, vlb
from sfumato.diffusion.condition import Condition
from sfumato.diffusion.flow import Flow, variational_bits
from sfumato.diffusion.noise import Purpose, normal, uniform
from sfumato.errors import UserError

Z = NormalDist().inv_cdf(0.975)
BUCKETS = 20
"""Number of intervals of t over which a curve of sampled terms is averaged."""
Tables = dict[str, Tensor]


@dataclass(frozen=True)
class Estimate:
    """A mean in bits a dimension with its 95 % interval, mean +- half_width, over images and their noise;
    `noise_half_width` is for the noise alone, None with one draw an image."""

    mean: float
    half_width: float
    noise_half_width: float | None = None

    def to_dict(self) -> dict[str, float | None]:
        """Return plain values, the interval's ends among them."""
        return {**asdict(self), "low": self.mean - self.half_width, "high": self.mean + self.half_width}


def estimate(values: Tensor) -> Estimate:
    """Return the mean of (N, R) values, N images with R draws of noise each, and its interval."""
    values = values.double()
    num, repeats = values.shape
    half = Z * float(values.mean(1).std()) / math.sqrt(num) if num > 1 else math.inf
    noise = Z * float(values.var(1).mean().sqrt()) / math.sqrt(num * repeats) if repeats > 1 else None
    return Estimate(float(values.mean()), half, noise)


@dataclass(frozen=True, eq=False)
class Bits:
    """The bits of images, by term of the bound.

    `tables`, of N images and R draws of noise, float64, has `total`, (N, R), the upper bound on -log2 p(x_0) a
    dimension, p a density where the data are floats; except for flow also `prior`, (N, R), L_T, `terms`, (N, R, K),
    those of the bound that were evaluated, the last L_0, and `times`, (N, R, K), that they step down from; for the
    whole bound `mse`, (N, R, K), the mean squared error of x0^ there, in the data's units.
    """

    tables: Tables

    def __repr__(self) -> str:
        return f"Bits({self.total.mean:.4g} per dimension, {self.images:,} images, {self.repeats} draws)"

    @classmethod
    def cat(cls, shards: Sequence[Tables]) -> Bits:
        """Return the bits of all the shards' images together."""
        return cls({name: torch.cat([tables[name] for tables in shards]) for name in shards[0]})

    @property
    def images(self) -> int:
        """N."""
        return self.tables["total"].shape[0]

    @property
    def repeats(self) -> int:
        """R, draws of noise an image."""
        return self.tables["total"].shape[1]

    @property
    def total(self) -> Estimate:
        """The figure."""
        return estimate(self.tables["total"])

    @property
    def parts(self) -> dict[str, Estimate]:
        """`prior`, L_T, `rate`, L_T and every L_s, the bits before the last step, and `distortion`, L_0; {} for a
        flow."""
        if "terms" not in self.tables:
            return {}
        total, prior, last = self.tables["total"], self.tables["prior"], self.tables["terms"][..., -1]
        return {"prior": estimate(prior), "rate": estimate(total - last), "distortion": estimate(last)}

    @property
    def curve(self) -> tuple[tuple[float, float, float], ...]:
        """(t, bits, rmse) for each time of the grid, the noisiest first: the mean term of the step that leaves t, and
        the root mean squared error of x0^ there, in the data's units. Sampled terms are averaged over stretches of t,
        without an error (nan); there is no curve of a flow.
        """
        if "terms" not in self.tables:
            return ()
        times, terms = self.tables["times"].flatten(), self.tables["terms"].flatten()
        whole = "mse" in self.tables
        mse = self.tables["mse"].flatten() if whole else torch.full_like(terms, math.nan)
        values, which = torch.unique(times if whole else (times * BUCKETS - 1e-9).ceil(), return_inverse=True)
        sums = torch.zeros(len(values), 3, dtype=torch.float64)
        means = sums.index_add_(0, which, torch.stack([times, terms, mse], 1)) / torch.bincount(which)[:, None]
        return tuple((t, bits, math.sqrt(error)) for t, bits, error in means.flip(0).tolist())

    @property
    def progressive(self) -> list[tuple[float, float]]:
        """(bits received, rmse of the image as then decoded): the rate-distortion curve of DDPM Fig. 5, of a bound."""
        points, received = [], self.parts["prior"].mean
        for _, bits, rmse in self.curve:
            points.append((received, rmse))
            received += bits
        return points

    def to_dict(self) -> dict[str, Any]:
        """Return every figure as plain values."""
        figures = dict.fromkeys(("prior", "rate", "distortion")) | {"total": self.total} | self.parts
        table: dict[str, Any] = {name: figure and figure.to_dict() for name, figure in figures.items()}
        table["curve"] = [{"t": t, "bits": cost, "rmse": rmse} for t, cost, rmse in self.curve]
        if "mse" in self.tables:
            table["progressive"] = [{"bits": cost, "rmse": rmse} for cost, rmse in self.progressive]
        return {"images": self.images, "repeats": self.repeats, **table}


class Batch(NamedTuple):
    """Images x_0 (B, C, H, W) with one draw of noise, their indices and conditions."""

    x_0: Tensor
    noise: Noise
    condition: Condition | None
    codec: Codec


class Estimator(Protocol):
    """A method of scoring images; implementations are frozen values."""

    def tables(self, denoiser: Denoiser, batch: Batch) -> Tables:
        """Return the tables of one draw of noise, (B,) and (B, K), as `Bits` has them."""


@dataclass(frozen=True, eq=False)
class WholeBound:
    """Every term of the bound of the chain with times (K + 1,) decreasing to 0."""

    times: Tensor
    variance: Variance

    def tables(self, denoiser: Denoiser, batch: Batch) -> Tables:
        """Evaluate every term, from the noisiest."""
        x_0, noise, condition, codec = batch
        bound = vlb(denoiser, x_0, self.times, noise, self.variance, condition, codec.decoder)
        return {
            "total": bound.total + codec.bits_offset,
            "prior": bound.prior,
            "terms": torch.cat([bound.steps, bound.decoder[:, None] + codec.bits_offset], 1),
            "times": self.times[:-1].expand(len(x_0), -1),
            "mse": codec.scale**2 * bound.mse,
        }


@dataclass(frozen=True)
class SampledBound:
    """A few terms of the full chain's bound for each image: L_T and L_0 always, the others sampled.

    The terms grow towards the data about as 1 / t, so step i of 2..T is drawn with probability p_i, nine tenths of it
    proportional to 1 / i and one tenth uniform, in `terms` strata of equal probability:

        L ~ L_T + L_0 + mean over the terms drawn of L_i / p_i,       exact in the mean.
    """

    variance: Variance
    terms: int = 16

    @torch.no_grad()
    def tables(self, denoiser: Denoiser, batch: Batch) -> Tables:
        """Score the last step and the sampled ones."""
        x_0, noise, condition, codec = batch
        num_steps, bound = denoiser.schedule.num_steps, Bound(self.variance, codec.decoder)
        count = min(self.terms, num_steps - 1)
        steps, weights = _stratified(uniform(noise.seed, Purpose.HELD_OUT_TIME, noise.index, (count,)), num_steps)
        losses = []
        for k in range(count + 1):
            eps = normal(noise.seed, Purpose.HELD_OUT_NOISE, noise.index, noise.shape, step=k)
            loss = training_loss(bound, denoiser, x_0, steps[:, k] / num_steps, eps, condition).loss
            losses.append(loss.to(steps.device).double() / (num_steps * math.log(2)))
        losses[-1] += codec.bits_offset
        prior = bits_per_dim(prior_term(x_0, denoiser.schedule(1.0))).to(steps.device).double()
        terms = torch.stack(losses, 1)
        inner = (weights * terms[:, :-1]).mean(1) if count else 0 * prior
        return {"total": prior + inner + terms[:, -1], "prior": prior, "terms": terms, "times": steps / num_steps}


def _stratified(u: Tensor, num_steps: int) -> tuple[Tensor, Tensor]:
    """Draw steps of 2..T, one from each of K strata of equal probability, by u (B, K), and append step 1.

    Returns the steps (B, K + 1) float64, and 1 / p of those drawn, (B, K).
    """
    count, rest = u.shape[1], num_steps - 1
    falling = 1 / torch.arange(2, num_steps + 1, dtype=torch.float64, device=u.device)
    p = 0.9 * falling / falling.sum() + 0.1 / max(1, rest)
    quantile = (torch.arange(count, device=u.device) + u) / max(1, count)
    drawn = torch.searchsorted(p.cumsum(0), quantile, right=True).clamp(max=max(0, rest - 1))
    last = torch.ones(len(u), 1, dtype=torch.float64, device=u.device)
    return torch.cat([2.0 + drawn, last], 1), 1 / p[drawn] if count else u


@dataclass(frozen=True)
class FlowDensity:
    """The probability-flow density, dequantised by the chain's own first step, with one random direction for the
    divergence and a solver of tolerance `rtol`, relative and absolute."""

    variance: Variance
    rtol: float = 1e-3

    def tables(self, denoiser: Denoiser, batch: Batch) -> Tables:
        """Solve the flow."""
        x_0, noise, condition, codec = batch
        if x_0.device.type == "mps":
            raise UserError("the flow is solved in float64, which mps does not have: give --device cpu")
        flow, signs = Flow(denoiser, self.rtol, self.rtol), noise.step(1).sign()[None]
        bits = variational_bits(flow, x_0, noise.step(0), signs, self.variance, condition, codec.decoder)
        return {"total": bits + codec.bits_offset}


def measure_bits(
    denoiser: Denoiser,
    codec: Codec,
    images: Tensor,
    estimator: Estimator,
    seed: int = 0,
    repeats: int = 1,
    batch: int = 64,
    device: torch.device | str = "cpu",
    condition: Condition | None = None,
) -> Bits:
    """Score images (N, C, H, W), stored values of a codec.

    Args:
        seed: of the first draw of noise; the others add 1, 2, ...
        repeats: draws of noise an image.
        batch: images at a time; it does not change the result.
        condition: of each image; None for nothing.

    Raises:
        UserError: no image, or values of another format.
    """
    if len(images) == 0:
        raise UserError("no image to score: the held-out part is empty; set data.held_out")
    if images.dtype != codec.format.tensor_dtype:
        raise UserError(f"images of {images.dtype} can't be scored by a model of {codec.format.words} images")
    shards: list[Tables] = []
    for index in torch.split(torch.arange(len(images)), batch):
        x_0 = codec.encode(images[index].to(device))
        rows = None if condition is None else condition.take(index).to(device)
        noises = [Noise(seed + r, index.to(device), tuple(x_0.shape[1:])) for r in range(repeats)]
        draws = [estimator.tables(denoiser, Batch(x_0, noise, rows, codec)) for noise in noises]
        shards.append({name: torch.stack([draw[name].cpu().double() for draw in draws], 1) for name in draws[0]})
    return Bits.cat(shards)
