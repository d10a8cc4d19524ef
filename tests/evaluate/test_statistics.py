from __future__ import annotations

import numpy as np
import pytest
import torch

from sfumato.errors import UserError
from sfumato.evaluate import Statistics


def features(count: int, dim: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def same(a: Statistics, b: Statistics) -> bool:
    return a.count == b.count and torch.equal(a.total, b.total) and torch.equal(a.moment, b.moment)


def test_mean_and_covariance_are_numpys() -> None:
    x = features(50, 7) + 3
    found = Statistics.of(x)
    np.testing.assert_allclose(found.mean, np.mean(x.numpy(), 0), rtol=1e-12)
    np.testing.assert_allclose(found.covariance, np.cov(x.numpy(), rowvar=False), rtol=1e-10, atol=1e-12)


def test_merging_is_exact_in_any_order_and_grouping() -> None:
    # features that are multiples of 1/16, so that every sum is exact and equality is to the bit
    x = (features(60, 5) * 16).round() / 16
    a, b, c = (Statistics.of(part) for part in x.split([11, 30, 19]))
    whole = Statistics.of(x)
    assert same((a + b) + c, whole)
    assert same(a + (b + c), whole)
    assert same((c + a) + b, whole)
    assert same(Statistics.gather(iter(x.float().split(7))), whole)


def test_a_mean_far_above_the_deviation_costs_few_digits() -> None:
    x = features(500, 4)
    far = Statistics.of(x + 1000)
    torch.testing.assert_close(far.covariance, torch.tensor(np.cov(x.numpy(), rowvar=False)), rtol=1e-8, atol=1e-8)


def test_from_moments_gives_the_moments_back() -> None:
    known = Statistics.of(features(30, 6))
    found = Statistics.from_moments(30, known.mean, known.covariance)
    torch.testing.assert_close(found.mean, known.mean)
    torch.testing.assert_close(found.covariance, known.covariance)


def test_shrinkage_is_of_full_rank_keeps_the_trace_and_comes_nearer() -> None:
    truth = torch.diag(torch.linspace(0.5, 2, 40, dtype=torch.float64))
    few = Statistics.of(features(15, 40) * truth.diagonal().sqrt())
    shrunk, rho = few.shrunk()
    assert 0 < rho < 1
    assert torch.linalg.eigvalsh(few.covariance)[24] < 1e-12, "15 images leave 26 directions without spread"
    assert torch.linalg.eigvalsh(shrunk)[0] > 0.01
    torch.testing.assert_close(shrunk.trace(), few.covariance.trace())
    assert (shrunk - truth).norm() < 0.7 * (few.covariance - truth).norm()


def test_shrinkage_fades_with_many_images_of_an_uneven_spread() -> None:
    uneven = features(20000, 5) * torch.tensor([0.1, 0.5, 1, 2, 4], dtype=torch.float64)
    assert Statistics.of(uneven).shrunk()[1] < 1e-3


def test_features_that_are_not_finite_are_refused_by_number() -> None:
    x = features(10, 3)
    x[6, 1] = torch.nan
    with pytest.raises(UserError, match="inception gives features that are not finite for image 6"):
        Statistics.of(x, "inception")


def test_too_few_or_unlike_features_are_refused() -> None:
    with pytest.raises(UserError, match="no features"):
        Statistics.gather(iter([]))
    with pytest.raises(UserError, match="1 image has no spread"):
        _ = Statistics.of(features(1, 3)).covariance
    with pytest.raises(UserError, match="of 3 and of 4 numbers"):
        Statistics.of(features(5, 3)) + Statistics.of(features(5, 4))
