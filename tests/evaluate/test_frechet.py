from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from sfumato.errors import UserError
from sfumato.evaluate import Statistics, frechet_distance, frechet_of_statistics

from .conftest import pytorch_fid
from .targets import normal


def given(mean: Tensor, covariance: Tensor) -> Statistics:
    return Statistics(1000, mean.double(), covariance.double())


def rotation(dim: int, seed: int) -> Tensor:
    return torch.linalg.qr(normal(dim, dim, seed=seed))[0]


def test_axis_aligned_gaussians() -> None:
    mean, deviations = normal(2, 8, seed=1), normal(2, 8, seed=2).abs() + 0.1
    a, b = (given(m, torch.diag(s.square())) for m, s in zip(mean, deviations, strict=True))
    expected = (mean[0] - mean[1]).square().sum() + (deviations[0] - deviations[1]).square().sum()
    assert frechet_of_statistics(a, b) == pytest.approx(float(expected), rel=1e-10)


def test_turning_both_changes_nothing() -> None:
    q, s_1, s_2 = rotation(6, 3), torch.diag(normal(6, seed=4).exp()), torch.diag(normal(6, seed=5).exp())
    plain = frechet_of_statistics(given(torch.zeros(6), s_1), given(torch.ones(6), s_2))
    turned = frechet_of_statistics(
        given(q @ torch.zeros(6).double(), q @ s_1 @ q.T), given(q @ torch.ones(6).double(), q @ s_2 @ q.T)
    )
    assert turned == pytest.approx(plain, rel=1e-10)


def test_lines_in_space() -> None:
    """Covariances a a^T and b b^T of rank one: tr (S_1 S_2)^{1/2} = |a . b|."""
    a, b = normal(2, 300, seed=6)
    expected = a.square().sum() + b.square().sum() - 2 * (a @ b).abs()
    zero = torch.zeros(300)
    found = frechet_of_statistics(given(zero, torch.outer(a, a)), given(zero, torch.outer(b, b)))
    assert found == pytest.approx(float(expected), rel=1e-9)


def test_planes_that_share_nothing() -> None:
    """Covariances with disjoint supports: no mass of one helps the other, the traces add."""
    s_1, s_2 = torch.zeros(10, 10), torch.zeros(10, 10)
    s_1[:4, :4], s_2[6:, 6:] = torch.eye(4) * 2, torch.eye(4) * 3
    assert frechet_of_statistics(given(torch.zeros(10), s_1), given(torch.zeros(10), s_2)) == pytest.approx(20)


def mixed(count: int, dim: int, seed: int) -> Tensor:
    return normal(count, dim, seed=seed) @ normal(dim, dim, seed=seed + 100) + normal(dim, seed=seed + 200)


def test_it_is_the_formula_with_scipys_root() -> None:
    scipy = pytest.importorskip("scipy")
    x, y = mixed(200, 30, 1), mixed(150, 30, 2)
    s_1, s_2 = (np.cov(z.numpy(), rowvar=False) for z in (x, y))
    root = scipy.linalg.sqrtm(s_1 @ s_2).real
    expected = ((x.mean(0) - y.mean(0)) ** 2).sum().item() + np.trace(s_1 + s_2 - 2 * root)
    assert frechet_distance(x, y).value == pytest.approx(expected, rel=1e-6)


def test_it_is_pytorch_fids() -> None:
    fid = pytorch_fid("fid_score")
    x, y = mixed(400, 24, 3), mixed(300, 24, 4)
    moments = [f(z.numpy()) for z in (x, y) for f in (lambda a: a.mean(0), lambda a: np.cov(a, rowvar=False))]
    try:
        expected = fid.calculate_frechet_distance(*moments)
    except TypeError as error:  # it calls scipy's sqrtm with an argument that newer ones don't have
        pytest.skip(f"pytorch-fid doesn't run here: {error}")
    assert frechet_distance(x, y).value == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("n", "m"), [(60, 80), (12, 15), (12, 80), (80, 12)])
def test_features_and_their_statistics_give_one_number_whatever_the_ranks(n: int, m: int) -> None:
    x, y = mixed(n, 20, 5), mixed(m, 20, 6)
    for shrink in (False, True):
        expected = frechet_of_statistics(Statistics.of(x), Statistics.of(y), shrink)
        assert frechet_distance(x, y, shrink).value == pytest.approx(expected, rel=1e-6)
        assert frechet_distance(y, x, shrink).value == pytest.approx(expected, rel=1e-6)


def test_a_set_is_at_no_distance_from_itself_and_constant_sets_at_their_means() -> None:
    x = mixed(10, 30, 7)
    assert frechet_distance(x, x).value == pytest.approx(0, abs=1e-9 * float(x.square().sum()))
    assert frechet_distance(torch.zeros(5, 3), torch.ones(6, 3)).value == pytest.approx(3)
    constant = Statistics.of(torch.zeros(5, 3))
    assert frechet_of_statistics(constant, Statistics.of(torch.ones(6, 3))) == pytest.approx(3)


def weighted(x: Tensor, weights: Tensor) -> Statistics:
    """The statistics of images that count for more or less."""
    mean = weights @ x
    y = x - mean
    return Statistics(len(x), mean, (weights[:, None] * y).T @ y * len(x) / (len(x) - 1))


@pytest.mark.parametrize("which", [0, 1])
def test_influence_is_the_derivative_by_an_images_weight(which: int) -> None:
    sets = [mixed(40, 6, 8), mixed(50, 6, 9)]
    psi = frechet_distance(*sets).influences[which]
    x, other = sets[which], Statistics.of(sets[1 - which])
    for image in (0, 7, 31):
        step, one = 1e-5, torch.zeros(len(x), dtype=torch.float64)
        one[image] = 1
        plain = torch.full_like(one, 1 / len(x))
        up, down = (frechet_of_statistics(weighted(x, (1 - e) * plain + e * one), other) for e in (step, -step))
        assert (up - down) / (2 * step) == pytest.approx(float(psi[image] - psi.mean()), rel=1e-5, abs=1e-5)


# Statistics


@pytest.mark.parametrize("mean", [3, 1000])
def test_mean_and_covariance_are_numpys(mean: float) -> None:
    x = normal(50, 7) + mean
    found = Statistics.of(x)
    np.testing.assert_allclose(found.mean, np.mean(x.numpy(), 0), rtol=1e-12)
    np.testing.assert_allclose(found.covariance, np.cov(x.numpy(), rowvar=False), rtol=1e-8, atol=1e-10)


def test_shrinkage_is_of_full_rank_keeps_the_trace_and_comes_nearer() -> None:
    truth = torch.diag(torch.linspace(0.5, 2, 40, dtype=torch.float64))
    few = Statistics.of(normal(15, 40) * truth.diagonal().sqrt())
    shrunk, rho = few.shrunk()
    assert 0 < rho < 1
    assert torch.linalg.eigvalsh(few.covariance)[24] < 1e-12, "15 images leave 26 directions without variance"
    assert torch.linalg.eigvalsh(shrunk)[0] > 0.01
    torch.testing.assert_close(shrunk.trace(), few.covariance.trace())
    assert (shrunk - truth).norm() < 0.7 * (few.covariance - truth).norm()


def test_shrinkage_fades_with_many_images_of_an_uneven_variance() -> None:
    uneven = normal(20000, 5) * torch.tensor([0.1, 0.5, 1, 2, 4], dtype=torch.float64)
    assert Statistics.of(uneven).shrunk()[1] < 1e-3


def test_features_that_are_not_finite_are_refused_by_number() -> None:
    x = normal(10, 3)
    x[6, 1] = torch.nan
    with pytest.raises(UserError, match="gives features that are not finite for image 6"):
        frechet_distance(x, normal(10, 3))
