"""Bits a dimension: the estimates agree with one another and with the truth, and their intervals cover."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from sfumato.codec.format import SIXTEEN, PixelFormat
from sfumato.codec.pixels import Pixels, to_bytes
from sfumato.conditions.table import Attributes
from sfumato.diffusion import Noise, Optimal, Prediction, Small, Variance, trailing
from sfumato.diffusion.condition import Condition
from sfumato.diffusion.denoiser import Wrapped
from sfumato.diffusion.flow import Flow
from sfumato.diffusion.noise import Purpose, normal
from sfumato.errors import UserError
from sfumato.evaluate import bits
from sfumato.evaluate.bits import (
    Batch,
    Bits,
    Estimator,
    FlowDensity,
    SampledBound,
    WholeBound,
    _stratified,
    estimate,
    measure_bits,
)

from .targets import CODEC, ORACLE, SCHEDULE, SHAPE, STD, gaussian_bytes

BEST = Optimal(ORACLE.posterior_variance)
METHODS = pytest.mark.parametrize("method", ["vlb", "sampled", "flow"])


def estimator(method: str, variance: Variance = BEST, steps: int = 50) -> Estimator:
    if method == "vlb":
        return WholeBound(trailing(steps, SCHEDULE), variance)
    return SampledBound(variance, terms=8) if method == "sampled" else FlowDensity(variance, rtol=1e-4)


def scored(images: torch.Tensor, how: Estimator, **options: Any) -> Bits:
    return measure_bits(ORACLE, CODEC, images, how, **options)


@METHODS
@pytest.mark.parametrize(
    "format", [CODEC.format, SIXTEEN, PixelFormat("float", -300.0, 100.0)], ids=lambda format: format.kind
)
def test_the_oracles_bits_are_the_entropy_in_the_datas_own_units(method: str, format: PixelFormat) -> None:
    """Values v = low + scale (x + 1) of a Gaussian x: h(v) = log2(scale std) + log2(2 pi e) / 2."""
    x = STD * torch.randn(300, *SHAPE, generator=torch.Generator().manual_seed(1))
    codec = Pixels(format, SHAPE)
    bits = measure_bits(ORACLE, codec, codec.decode(x), estimator(method))
    truth = math.log2(format.scale * STD) + 0.5 * math.log2(2 * math.pi * math.e)
    assert abs(bits.total.mean - truth) < 1.5 * bits.total.half_width + 0.01
    assert 0 < bits.total.half_width < (0.25 if method == "sampled" else 0.1)
    assert (bits.images, bits.repeats) == (300, 1)
    if method == "vlb":
        rate, last = bits.parts["rate"].mean, bits.parts["distortion"].mean
        assert bits.total.mean == pytest.approx(rate + last)
        assert bits.curve[-1][1] == pytest.approx(last, rel=1e-5)
        assert max(rmse for _, _, rmse in bits.curve) == pytest.approx(format.scale * STD, rel=0.1)


def test_sampled_terms_have_the_mean_of_the_whole_bound() -> None:
    images = gaussian_bytes(200, 2)
    whole = scored(images, estimator("vlb", Small()), repeats=3).total
    few = scored(images, SampledBound(Small(), terms=7), repeats=6).total
    assert whole.noise_half_width is not None
    assert few.noise_half_width is not None
    assert abs(whole.mean - few.mean) < 2 * math.hypot(whole.noise_half_width, few.noise_half_width)


@METHODS
def test_the_batch_does_not_matter(method: str) -> None:
    small, large = (scored(gaussian_bytes(7, 3), estimator(method, steps=10), repeats=2, batch=b) for b in (2, 7))
    assert small.total.mean == pytest.approx(large.total.mean, abs=1e-5)
    assert small.total.half_width == pytest.approx(large.total.half_width, rel=1e-3)


class Shifted:
    """Two kinds of images whose means are apart, by whole steps of a byte within the range."""

    schedule = SCHEDULE
    means = torch.tensor([-26, 26]) / 127.5

    def __call__(self, x_t, t, condition=None):
        mean = self.means[condition.table[:, 0].long()].reshape(-1, 1, 1, 1)
        level = SCHEDULE(torch.as_tensor(t, dtype=torch.float64).expand(len(x_t))).like(x_t)
        inner = ORACLE(x_t - level.alpha * mean, t)
        return inner.with_x0(inner.x0 + mean, x_t, SCHEDULE(t))


@METHODS
def test_each_image_is_scored_given_its_own_condition(method: str) -> None:
    """Telling which image is of which kind is worth the bits of Gaussians apart."""
    kinds, how = torch.arange(40) % 2, estimator(method)
    centred = gaussian_bytes(40, 7)
    images = (centred + 127.5 * Shifted.means[kinds].reshape(-1, 1, 1, 1)).round().clamp(0, 255).byte()
    plain = scored(centred, how).total.mean

    def told(kinds: torch.Tensor, batch: int) -> float:
        condition = Attributes(kinds[:, None].float())
        return measure_bits(Shifted(), CODEC, images, how, batch=batch, condition=condition).total.mean

    assert [told(kinds, batch) for batch in (40, 7)] == pytest.approx([plain] * 2, abs=0.02)
    # 52 bytes are 1.6 standard deviations: 1.6^2 / (2 ln 2)
    assert told(1 - kinds, 64) == pytest.approx(plain + (52 / 127.5 / STD) ** 2 / (2 * math.log(2)), abs=0.2)


def test_the_progressive_curve_starts_blind_and_ends_sharp() -> None:
    bits = scored(gaussian_bytes(100, 4), estimator("vlb"))
    received, rmse = zip(*bits.progressive, strict=True)
    assert list(received) == sorted(received)
    assert rmse[0] == pytest.approx(127.5 * STD, rel=0.1)
    left = float(ORACLE.posterior_variance(SCHEDULE(1 / 50)).mean())  # what is unknown of x_0 at the last time
    assert rmse[-1] == pytest.approx(127.5 * left**0.5, rel=0.1)
    assert received[-1] == pytest.approx(bits.parts["rate"].mean, rel=1e-4)


@METHODS
def test_shards_put_together_are_the_whole(method: str) -> None:
    """Of the same noise; every figure and the curve."""
    images = gaussian_bytes(9, 5)
    whole = scored(images, estimator(method, steps=10), repeats=2)
    rows = [{name: table[part] for name, table in whole.tables.items()} for part in (slice(0, 2), slice(2, 9))]
    merged = Bits.cat(rows)
    assert str(merged.to_dict()) == str(whole.to_dict()), "which has every figure"
    assert len(merged.curve) == {"vlb": 10, "sampled": 19, "flow": 0}[method], "by chance no term in one stretch"


def test_sampled_terms_are_averaged_over_stretches_of_time() -> None:
    bits = scored(to_bytes(STD * torch.ones(64, *SHAPE)), SampledBound(BEST, terms=40))
    whole = scored(to_bytes(STD * torch.ones(64, *SHAPE)), estimator("vlb"))
    for (t, cost, rmse), stretch in zip(bits.curve, range(19, -1, -1), strict=True):
        assert stretch / 20 < t <= (stretch + 1) / 20
        near = [term for time, term, _ in whole.curve if stretch / 20 < time <= (stretch + 1) / 20 + 1e-9]
        assert min(near) * 0.5 - 0.02 < cost < max(near) * 1.5 + 0.02
        assert math.isnan(rmse)


@dataclass(frozen=True)
class Watched(Wrapped):
    """A denoiser that keeps the noise of what it was asked, for images of 0."""

    seen: list[Tensor]

    def __call__(self, x_t: Tensor, t: Tensor | float, condition: Condition | None = None) -> Prediction:
        self.seen.append(x_t / SCHEDULE(t).like(x_t).sigma)
        return self.denoiser(x_t, t, condition)


def test_every_sampled_term_has_noise_of_its_own() -> None:
    watched, noise = Watched(ORACLE, []), Noise(3, torch.arange(2), SHAPE)
    estimator("sampled").tables(watched, Batch(torch.zeros(2, *SHAPE), noise, None, CODEC))
    assert len(watched.seen) == 9
    for k, eps in enumerate(watched.seen):
        expected = normal(3, Purpose.HELD_OUT_NOISE, torch.arange(2), SHAPE, step=k)
        torch.testing.assert_close(eps, expected, rtol=1e-4, atol=1e-5)


def test_a_flows_directions_are_not_its_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Tensor] = []

    def scored(flow: Flow, x_0: Tensor, eps: Tensor, signs: Tensor, *rest: object) -> Tensor:
        given.extend((eps, signs))
        return torch.zeros(len(x_0))

    monkeypatch.setattr(bits, "variational_bits", scored)
    noise = Noise(3, torch.arange(3), SHAPE)
    estimator("flow").tables(ORACLE, Batch(CODEC.encode(gaussian_bytes(3, 1)), noise, None, CODEC))
    eps, signs = given
    assert torch.equal(eps, noise.step(0))
    assert set(signs.unique().tolist()) == {-1, 1}
    assert 0.2 < float((signs[0] == eps.sign()).double().mean()) < 0.8


def test_sampled_steps_are_one_from_each_stratum() -> None:
    """With as many strata as steps of equal probability would be, every step from noisy to clean is met."""
    u = torch.rand(500, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    steps, weights = _stratified(u, 50)
    p = 0.9 / torch.arange(2, 51).double() / (1 / torch.arange(2, 51).double()).sum() + 0.1 / 49
    torch.testing.assert_close(weights, 1 / p[steps[:, :-1].long() - 2])
    upper = p.cumsum(0)[steps[:, :-1].long() - 2]
    lower = upper - p[steps[:, :-1].long() - 2]
    stratum = torch.arange(8).double() / 8
    assert bool(((upper > stratum) & (lower < stratum + 1 / 8)).all())
    assert (steps[:, -1] == 1).all()


def test_the_interval_covers_as_often_as_it_says() -> None:
    generator, hits = torch.Generator().manual_seed(0), 0
    for _ in range(400):
        values = 3 + torch.randn(30, 1, generator=generator) + 0.5 * torch.randn(30, 4, generator=generator)
        got = estimate(values)
        hits += abs(got.mean - 3) < got.half_width
        assert got.noise_half_width == pytest.approx(1.96 * 0.5 / math.sqrt(120), rel=0.35)
    assert 0.91 < hits / 400 < 0.98
    assert math.isinf(estimate(torch.ones(1, 1)).half_width), "one image has no interval"


@pytest.mark.parametrize(
    ("images", "codec", "message"),
    [
        (gaussian_bytes(0, 0), CODEC, "held-out part is empty"),
        (torch.zeros(2, *SHAPE), CODEC, "float32 can't be scored by a model of 8-bit"),
        (SIXTEEN.from_model(torch.zeros(2, *SHAPE)), CODEC, "uint16 can't be scored"),
        (gaussian_bytes(2, 0), Pixels(PixelFormat("float", 0.0, 1.0), SHAPE), "by a model of floating-point"),
    ],
)
def test_bad_input_is_one_line(images: torch.Tensor, codec: Pixels, message: str) -> None:
    with pytest.raises(UserError, match=message):
        measure_bits(ORACLE, codec, images, estimator("flow"))
