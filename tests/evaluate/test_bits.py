"""Bits a dimension: the estimates agree with one another and with the truth, and their intervals cover."""

from __future__ import annotations

import math

import pytest
import torch

from sfumato.codec.format import SIXTEEN, PixelFormat
from sfumato.diffusion import Cosine, GaussianOracle, Optimal, Small, trailing
from sfumato.errors import UserError
from sfumato.evaluate.bits import estimate, flow_bits, sampled_bits, vlb_bits

SCHEDULE, SHAPE, STD = Cosine(num_steps=50), (1, 3, 4), 0.25


def bytes_of_a_gaussian(num: int, seed: int) -> torch.Tensor:
    raw = STD * torch.randn(num, *SHAPE, generator=torch.Generator().manual_seed(seed))
    return ((raw + 1) * 127.5).round().clamp(0, 255).byte()


ORACLE = GaussianOracle(SCHEDULE, torch.zeros(SHAPE), torch.full(SHAPE, STD**2))
BEST = Optimal(ORACLE.posterior_variance)
TRUTH = math.log2(127.5 * STD) + 0.5 * math.log2(2 * math.pi * math.e)  # entropy of the rounded Gaussian, fine bins


@pytest.mark.parametrize("kind", ["vlb", "sampled", "flow"])
def test_the_oracles_bits_are_the_entropy(kind: str) -> None:
    images = bytes_of_a_gaussian(300, 1)
    if kind == "vlb":
        bits = vlb_bits(ORACLE, images, trailing(50, ORACLE.schedule), BEST)
        assert bits.total.mean == pytest.approx(bits.rate.mean + bits.distortion.mean)
    elif kind == "sampled":
        bits = sampled_bits(ORACLE, images, BEST, terms=8)
    else:
        bits = flow_bits(ORACLE, images, BEST, rtol=1e-4)
    assert abs(bits.total.mean - TRUTH) < 1.5 * bits.total.half_width + 0.01
    assert 0 < bits.total.half_width < (0.25 if kind == "sampled" else 0.1)


def test_sampled_terms_have_the_mean_of_the_whole_bound() -> None:
    images = bytes_of_a_gaussian(200, 2)
    whole = vlb_bits(ORACLE, images, trailing(50, ORACLE.schedule), Small(), repeats=3)
    few = sampled_bits(ORACLE, images, Small(), terms=7, repeats=6)
    spread = math.hypot(whole.total.noise_half_width, few.total.noise_half_width)
    assert abs(whole.total.mean - few.total.mean) < 2 * spread


@pytest.mark.parametrize("measure", [vlb_bits, sampled_bits, flow_bits])
def test_the_batch_does_not_matter(measure) -> None:
    images = bytes_of_a_gaussian(7, 3)
    given = (trailing(10, ORACLE.schedule), BEST) if measure is vlb_bits else (BEST,)
    results = [measure(ORACLE, images, *given, repeats=2, batch=b) for b in (2, 7)]
    assert results[0].total.mean == pytest.approx(results[1].total.mean, abs=1e-5)
    assert results[0].total.half_width == pytest.approx(results[1].total.half_width, rel=1e-3)


@pytest.mark.parametrize("measure", [vlb_bits, sampled_bits, flow_bits])
def test_each_image_is_scored_given_its_own_condition(measure) -> None:
    """Where images of two kinds have means apart, telling which is which is worth the bits of Gaussians apart."""
    means = torch.tensor([-26, 26]) / 127.5  # whole steps of a byte, within the range

    class Knowing:
        schedule = SCHEDULE

        def __call__(self, x_t, t, condition=None):
            mean = means[condition[:, 0].long()].reshape(-1, 1, 1, 1)
            level = SCHEDULE(torch.as_tensor(t, dtype=torch.float64).expand(len(x_t))).like(x_t)
            inner = ORACLE(x_t - level.alpha * mean, t)
            return inner.with_x0(inner.x0 + mean, x_t, SCHEDULE(t))

    kinds = torch.arange(40) % 2
    centred = bytes_of_a_gaussian(40, 7).float()
    images = (centred + 127.5 * means[kinds].reshape(-1, 1, 1, 1)).round().clamp(0, 255).byte()
    given = (trailing(50, SCHEDULE), BEST) if measure is vlb_bits else (BEST,)
    scores = [measure(Knowing(), images, *given, batch=b, conditions=kinds[:, None].float()) for b in (40, 7)]
    plain = measure(ORACLE, centred.byte(), *given)
    for bits in scores:
        assert bits.total.mean == pytest.approx(plain.total.mean, abs=0.02)
    wrong = measure(Knowing(), images, *given, conditions=1 - kinds[:, None].float())
    # 52 bytes are 1.6 standard deviations: 1.6^2 / (2 ln 2)
    assert wrong.total.mean == pytest.approx(plain.total.mean + (52 / 127.5 / STD) ** 2 / (2 * math.log(2)), abs=0.2)


def test_the_progressive_curve_starts_blind_and_ends_sharp() -> None:
    bits = vlb_bits(ORACLE, bytes_of_a_gaussian(100, 4), trailing(50, ORACLE.schedule), BEST)
    received, rmse = zip(*bits.progressive, strict=True)
    assert list(received) == sorted(received)
    assert rmse[0] == pytest.approx(127.5 * STD, rel=0.1)
    spread = float(ORACLE.posterior_variance(SCHEDULE(1 / 50)).mean())  # what is unknown of x_0 at the last time
    assert rmse[-1] == pytest.approx(127.5 * spread**0.5, rel=0.1)
    assert received[-1] == pytest.approx(bits.rate.mean, rel=1e-4)


def test_the_interval_covers_as_often_as_it_says() -> None:
    generator, hits = torch.Generator().manual_seed(0), 0
    for _ in range(400):
        values = 3 + torch.randn(30, 1, generator=generator) + 0.5 * torch.randn(30, 4, generator=generator)
        got = estimate(values)
        hits += abs(got.mean - 3) < got.half_width
        assert got.noise_half_width == pytest.approx(1.96 * 0.5 / math.sqrt(120), rel=0.35)
    assert 0.91 < hits / 400 < 0.98


def test_bad_input_is_one_line() -> None:
    with pytest.raises(UserError, match="held-out part is empty"):
        vlb_bits(ORACLE, bytes_of_a_gaussian(0, 0), trailing(5, ORACLE.schedule), BEST)
    with pytest.raises(UserError, match="no 256-bin likelihood"):
        vlb_bits(ORACLE, torch.zeros(2, *SHAPE), trailing(5, ORACLE.schedule), BEST)


@pytest.mark.parametrize("kind", ["vlb", "sampled", "flow"])
@pytest.mark.parametrize("depth", [SIXTEEN, PixelFormat("float", -300.0, 100.0)], ids=lambda depth: depth.kind)
def test_other_depths_have_the_entropy_of_their_own_units(kind: str, depth: PixelFormat) -> None:
    """Values v = low + scale (x + 1) of a Gaussian x: h(v) = log2(scale std) + log2(2 pi e) / 2, of 16 bits by bins."""
    x = STD * torch.randn(300, *SHAPE, generator=torch.Generator().manual_seed(1))
    images = depth.from_model(x)
    truth = math.log2(depth.scale * STD) + 0.5 * math.log2(2 * math.pi * math.e)
    if kind == "vlb":
        bits = vlb_bits(ORACLE, images, trailing(50, ORACLE.schedule), BEST, depth=depth)
        assert bits.total.mean == pytest.approx(bits.rate.mean + bits.distortion.mean)
        assert bits.curve[-1][1] == pytest.approx(bits.distortion.mean, rel=1e-5)
        assert max(rmse for _, _, rmse in bits.curve) == pytest.approx(depth.scale * STD, rel=0.1)
    elif kind == "sampled":
        bits = sampled_bits(ORACLE, images, BEST, terms=8, depth=depth)
    else:
        bits = flow_bits(ORACLE, images, BEST, rtol=1e-4, depth=depth)
    assert abs(bits.total.mean - truth) < 1.5 * bits.total.half_width + 0.01


def test_images_of_another_depth_are_refused() -> None:
    images = SIXTEEN.from_model(torch.zeros(2, *SHAPE))
    with pytest.raises(UserError, match="no 256-bin likelihood"):
        vlb_bits(ORACLE, images, trailing(5, ORACLE.schedule), BEST)
    with pytest.raises(UserError, match="no density as floats"):
        flow_bits(ORACLE, images, BEST, depth=PixelFormat("float", 0.0, 1.0))
