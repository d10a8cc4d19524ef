"""Addressed noise: the published vectors, an independent Philox, moments, independence, what an address promises."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from sfumato.diffusion.noise import Noise, Purpose, normal, permutation, philox, uniform, words
from sfumato.verify.process import KNOWN


def plain_philox(counter: tuple[int, ...], key: tuple[int, int]) -> tuple[int, ...]:
    """The same bijection in Python's unbounded integers, written from the paper's description."""
    a, b, c, d = counter
    k, m = key
    for _ in range(10):
        left, right = 0xD2511F53 * a, 0xCD9E8D57 * c
        a, b, c, d = (right >> 32) ^ b ^ k, right % 2**32, (left >> 32) ^ d ^ m, left % 2**32
        k, m = (k + 0x9E3779B9) % 2**32, (m + 0xBB67AE85) % 2**32
    return a, b, c, d


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN)
def test_known_answer_vectors(counter, key, expected, device) -> None:
    got = philox(tuple(torch.tensor(word, device=device) for word in counter), key)
    assert tuple(int(word) for word in got) == expected
    assert plain_philox(counter, key) == expected


def test_words_follow_the_stated_layout(device) -> None:
    seed, index, step = 0x1234567_89ABCDEF, 0xABCD_12345678, 77
    got = words(seed, Purpose.STEP, torch.tensor([index], device=device), 7, step)[0].tolist()
    key = (0x89ABCDEF, 0x1234567)
    expected: list[int] = []
    for block in range(2):
        expected += plain_philox((block, 0x12345678, step, (1 << 24) | 0xABCD), key)
    assert got == expected[:7]


@pytest.mark.parametrize("shape", [(), (1,), (3,), (4,), (5,), (3, 7, 5)])
def test_an_address_gives_the_same_numbers_in_any_batch(shape) -> None:
    index = torch.tensor([5, 0, 123, 2**40])
    together = normal(3, Purpose.PRIOR, index, shape, step=9)
    assert together.shape == (4, *shape)
    for row, i in zip(together, index, strict=True):
        assert torch.equal(row, normal(3, Purpose.PRIOR, i[None], shape, step=9)[0])
    assert torch.equal(uniform(3, Purpose.FLIP, index, shape)[2], uniform(3, Purpose.FLIP, index[2:3], shape)[0])


def test_every_part_of_an_address_matters() -> None:
    base = {"seed": 1, "purpose": Purpose.STEP, "index": 4, "step": 2}
    variants = [base, {**base, "seed": 2}, {**base, "seed": 1 + 2**32}, {**base, "purpose": Purpose.PRIOR}]
    variants += [{**base, "index": 5}, {**base, "index": 4 + 2**32}, {**base, "step": 3}]
    drawn = [
        words(int(v["seed"]), Purpose(v["purpose"]), torch.tensor([v["index"]]), 8, int(v["step"])) for v in variants
    ]
    assert len({tuple(d[0].tolist()) for d in drawn}) == len(variants)


def test_normal_moments_and_distribution(device, dtype) -> None:
    z = normal(0, Purpose.TRAIN_NOISE, torch.arange(500, device=device), (3, 20, 20), dtype=dtype).flatten().cpu()
    n = len(z)
    assert z.dtype == dtype
    assert abs(z.mean()) < 4 / math.sqrt(n)
    assert abs(z.square().mean() - 1) < 4 * math.sqrt(2 / n)
    assert abs(z.pow(3).mean()) < 4 * math.sqrt(15 / n)
    assert abs(z.pow(4).mean() - 3) < 4 * math.sqrt(96 / n)
    assert stats.kstest(z.numpy(), "norm").pvalue > 1e-3


def test_uniform_is_uniform_and_below_one() -> None:
    u = uniform(11, Purpose.TRAIN_TIME, torch.arange(200_000))
    assert u.dtype == torch.float64
    assert 0 <= float(u.min()) < float(u.max()) < 1
    counts = torch.histc(u, 100, 0, 1)
    assert stats.chisquare(counts.numpy()).pvalue > 1e-3


def test_neighbouring_addresses_are_independent() -> None:
    shape, n = (2500,), 40
    index = torch.arange(n)
    drawn = [normal(5, Purpose.STEP, index, shape, step=s) for s in (0, 1)]
    drawn += [normal(5, Purpose.PRIOR, index, shape), normal(6, Purpose.STEP, index, shape)]
    drawn += [normal(5, Purpose.STEP, index + 1, shape)]
    bound = 4.5 / math.sqrt(n * 2500)
    for i, a in enumerate(drawn):
        for b in drawn[:i]:
            assert abs((a * b).mean()) < bound
    z = drawn[0]
    for lag in (1, 2, 3, 4, 8):  # neighbours inside an example: within and across the blocks of four
        assert abs((z[:, lag:] * z[:, :-lag]).mean()) < bound * 1.1
        squares = (z[:, lag:].square() - 1) * (z[:, :-lag].square() - 1)
        assert abs(squares.mean()) < 2 * bound * 1.1


def test_precision_does_not_change_the_draw() -> None:
    index = torch.arange(30)
    single = normal(2, Purpose.PRIOR, index, (50,))
    double = normal(2, Purpose.PRIOR, index, (50,), dtype=torch.float64)
    assert (single - double).abs().max() < 1e-5


def test_box_muller_in_numpy_gives_the_same_normals() -> None:
    w = words(2, Purpose.PRIOR, torch.arange(3), 8).double().numpy()
    import numpy as np

    u_1, u_2 = (w[:, 0::2] + 0.5) / 2**32, (w[:, 1::2] + 0.5) / 2**32
    r = np.sqrt(-2 * np.log(u_1))
    expected = np.stack([r * np.cos(2 * np.pi * u_2), r * np.sin(2 * np.pi * u_2)], -1).reshape(3, 8)
    got = normal(2, Purpose.PRIOR, torch.arange(3), (8,), dtype=torch.float64).numpy()
    assert np.abs(got - expected).max() < 1e-12


@pytest.mark.parametrize("count", [1, 2, 100])
def test_permutation_is_one_and_changes_with_its_address(count) -> None:
    orders = [permutation(seed, Purpose.ORDER, count, step=epoch) for seed in (0, 1) for epoch in (0, 1)]
    for order in orders:
        assert sorted(order.tolist()) == list(range(count))
    if count == 100:
        assert len({tuple(order.tolist()) for order in orders}) == 4


def test_permutation_is_uniform() -> None:
    counts: dict[tuple[int, ...], int] = {}
    for epoch in range(2400):
        order = tuple(permutation(7, Purpose.ORDER, 4, step=epoch).tolist())
        counts[order] = counts.get(order, 0) + 1
    assert len(counts) == 24
    assert stats.chisquare(list(counts.values())).pvalue > 1e-3


def test_noise_value_draws_by_address() -> None:
    noise = Noise(8, torch.tensor([3, 4]), (2, 3, 3))
    assert torch.equal(noise.prior(), normal(8, Purpose.PRIOR, torch.tensor([3, 4]), (2, 3, 3)))
    assert torch.equal(noise.step(6), normal(8, Purpose.STEP, torch.tensor([3, 4]), (2, 3, 3), step=6))


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_half_precision_is_rounded_from_single(half: torch.dtype) -> None:
    """float16 holds no 32-bit word, and 1 - u of a large one would be 0: the normals are made in float32."""
    index = torch.arange(50)
    z = normal(4, Purpose.PRIOR, index, (3, 7), dtype=half)
    assert z.dtype == half
    assert torch.equal(z, normal(4, Purpose.PRIOR, index, (3, 7)).to(half))
    assert bool(Noise(0, index, (3, 7), half).step(2).isfinite().all())


@pytest.mark.parametrize("index", [[-1], [3, 2**56], [2**62, 0], [-(2**63)]])
def test_indices_that_would_share_a_key_are_refused(index: list[int]) -> None:
    with pytest.raises(ValueError, match="out of range: number the examples from 0"):
        uniform(0, Purpose.FLIP, torch.tensor(index))
    assert words(0, Purpose.FLIP, torch.tensor([2**56 - 1]), 4).shape == (1, 4)


def test_indices_are_integers() -> None:
    with pytest.raises(ValueError, match="number the examples by integers"):
        Noise(0, torch.tensor([0.5]), (2,)).prior()


def test_no_examples_are_an_empty_batch() -> None:
    none = torch.arange(0)
    assert normal(0, Purpose.PRIOR, none, (3, 5)).shape == (0, 3, 5)
    assert uniform(0, Purpose.FLIP, none, (2,)).shape == (0, 2)
    assert normal(0, Purpose.PRIOR, torch.arange(2), (3, 0)).shape == (2, 3, 0)
    assert permutation(0, Purpose.ORDER, 0).tolist() == []


@pytest.mark.parametrize(("seed", "step"), [(-1, 0), (2**64, 0), (0, -1), (0, 2**32)])
def test_addresses_out_of_range_are_refused(seed, step) -> None:
    with pytest.raises(ValueError, match="out of range"):
        words(seed, Purpose.STEP, torch.arange(2), 4, step)
