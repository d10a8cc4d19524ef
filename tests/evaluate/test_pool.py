"""Bits of parts put together are bits of the whole."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from sfumato.diffusion import Cosine, GaussianOracle, Optimal, trailing
from sfumato.evaluate.bits import Bits, Estimate, estimate, flow_bits, sampled_bits, vlb_bits
from sfumato.evaluate.pool import from_json, pool, to_json

SHAPE, STD = (1, 3, 4), 0.25
ORACLE = GaussianOracle(Cosine(num_steps=50), torch.zeros(SHAPE), torch.full(SHAPE, STD**2))
BEST = Optimal(ORACLE.posterior_variance)


def part(values: torch.Tensor, curve: tuple[tuple[float, float, float], ...] = (), kind: str = "vlb") -> Bits:
    """Bits whose every figure is made of the (N, R) values."""
    total, prior, rate, rest = (estimate(factor * values) for factor in (1.0, 0.1, 0.6, 0.4))
    return Bits(kind, total, prior, rate, rest, *values.shape, 50, curve)


def close(a: Estimate | None, b: Estimate | None) -> bool:
    assert a is not None
    assert b is not None
    pairs = [(getattr(a, name), getattr(b, name)) for name in vars(a)]
    return all(x is y if y is None else x == pytest.approx(y, rel=1e-9) for x, y in pairs)


@pytest.mark.parametrize("repeats", [1, 3])
@pytest.mark.parametrize("sizes", [(60,), (1, 59), (20, 33, 7), (1,) * 60])
def test_means_and_intervals_are_those_of_the_whole_set(sizes: tuple[int, ...], repeats: int) -> None:
    values = 3 + torch.randn(60, repeats, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    values += torch.arange(60)[:, None] / 30  # parts differ
    merged = pool([part(piece) for piece in torch.split(values, list(sizes))])
    whole = part(values)
    assert merged.images == 60
    for name in ("total", "prior", "rate", "distortion"):
        assert close(getattr(merged, name), getattr(whole, name)), name


def test_one_image_has_no_interval() -> None:
    assert math.isinf(pool([part(torch.ones(1, 1))]).total.half_width)


def test_curves_merge_as_means_weighted_by_images() -> None:
    one = part(torch.ones(1, 1), ((1.0, 0.5, 3.0), (0.5, 2.0, 1.0)))
    three = part(torch.ones(3, 1), ((1.0, 1.5, 7.0), (0.5, 4.0, 1.0)))
    assert pool([one, three]).curve == (
        (1.0, 1.25, pytest.approx(math.sqrt((9 + 3 * 49) / 4))),
        (0.5, 3.5, 1.0),
    )


def test_curves_of_sampled_terms_merge_stretch_by_stretch() -> None:
    raw = ((1 - STD * torch.randn(96, *SHAPE, generator=torch.Generator().manual_seed(0))) * 127.5).round().byte()
    parts = [sampled_bits(ORACLE, piece, BEST, terms=20, seed=k) for k, piece in enumerate(torch.split(raw, 32))]
    whole = sampled_bits(ORACLE, raw, BEST, terms=20, seed=9)
    merged = pool(parts)
    assert len(merged.curve) == len(whole.curve) == 20
    for (t, bits, rmse), (t_whole, bits_whole, _) in zip(merged.curve, whole.curve, strict=True):
        assert t == pytest.approx(t_whole, abs=0.01)
        assert bits == pytest.approx(bits_whole, rel=0.35, abs=0.02)
        assert math.isnan(rmse)


def test_json_keeps_every_digit() -> None:
    images = torch.full((3, *SHAPE), 120, dtype=torch.uint8)
    for bits in (
        vlb_bits(ORACLE, images, trailing(5, ORACLE.schedule), BEST, repeats=2),
        flow_bits(ORACLE, images[:1], BEST),  # an infinite interval, no prior
    ):
        assert from_json(to_json(bits)) == bits
    sampled = sampled_bits(ORACLE, images, BEST, terms=3)  # nan is not equal to itself
    again = from_json(to_json(sampled))
    assert replace(again, curve=()) == replace(sampled, curve=())
    assert str(again.curve) == str(sampled.curve)
