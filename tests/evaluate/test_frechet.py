from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from sfumato.evaluate import frechet_distance
from sfumato.evaluate.metrics.frechet import shrunk

from .conftest import pytorch_fid
from .targets import normal


def points(mean: Tensor, root: Tensor) -> Tensor:
    """Features with exactly this mean (D,) and the covariance root root^T: a pair about the mean for each column."""
    steps = (root.double() * ((2 * root.shape[1] - 1) / 2) ** 0.5).T
    return mean.double() + torch.cat((steps, -steps))


def rotation(dim: int, seed: int) -> Tensor:
    return torch.linalg.qr(normal(dim, dim, seed=seed))[0]


def mixed(count: int, dim: int, seed: int) -> Tensor:
    return normal(count, dim, seed=seed) @ normal(dim, dim, seed=seed + 100) + normal(dim, seed=seed + 200)


def distance(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> float:
    """Of sets with means and roots."""
    return frechet_distance(points(*first), points(*second)).value


def test_lines_in_space() -> None:
    """Covariances a a^T and b b^T of rank one: tr (S_1 S_2)^{1/2} = |a . b|."""
    a, b = normal(2, 300, seed=6)
    expected = a.square().sum() + b.square().sum() - 2 * (a @ b).abs()
    zero = torch.zeros(300)
    assert distance((zero, a[:, None]), (zero, b[:, None])) == pytest.approx(float(expected), rel=1e-9)


def test_planes_that_share_nothing() -> None:
    """Covariances with disjoint supports: no mass of one helps the other, the traces add."""
    r_1, r_2, zero = torch.zeros(10, 4), torch.zeros(10, 4), torch.zeros(10)
    r_1[:4], r_2[6:] = torch.eye(4) * 2**0.5, torch.eye(4) * 3**0.5
    assert distance((zero, r_1), (zero, r_2)) == pytest.approx(20)


def formula(x: Tensor, y: Tensor, shrink: bool = False) -> float:
    """The definition, the root by the eigenvalues of the product."""
    covariances = [torch.tensor(np.cov(z.numpy(), rowvar=False)) for z in (x, y)]
    s_1, s_2 = (shrunk(s, len(z))[0] if shrink else s for s, z in zip(covariances, (x, y), strict=True))
    cross = torch.linalg.eigvals(s_1 @ s_2).real.clamp(min=0).sqrt().sum()
    return float((x.mean(0) - y.mean(0)).square().sum() + s_1.trace() + s_2.trace() - 2 * cross)


def test_it_is_the_formula_with_scipys_root() -> None:
    scipy = pytest.importorskip("scipy")
    x, y = mixed(200, 30, 1), mixed(150, 30, 2)
    s_1, s_2 = (np.cov(z.numpy(), rowvar=False) for z in (x, y))
    root = scipy.linalg.sqrtm(s_1 @ s_2).real
    expected = ((x.mean(0) - y.mean(0)) ** 2).sum().item() + np.trace(s_1 + s_2 - 2 * root)
    assert frechet_distance(x, y).value == pytest.approx(expected, rel=1e-6)
    assert formula(x, y) == pytest.approx(expected, rel=1e-6)


def test_it_is_pytorch_fids() -> None:
    fid = pytorch_fid("fid_score")
    x, y = mixed(400, 24, 3), mixed(300, 24, 4)
    moments = [f(z.numpy()) for z in (x, y) for f in (lambda a: a.mean(0), lambda a: np.cov(a, rowvar=False))]
    try:
        expected = fid.calculate_frechet_distance(*moments)
    except TypeError as error:  # it calls scipy's sqrtm with an argument that newer ones don't have
        pytest.skip(f"pytorch-fid doesn't run here: {error}")
    assert frechet_distance(x, y).value == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("shrink", [False, True])
@pytest.mark.parametrize(("n", "m"), [(60, 80), (12, 15), (12, 80), (80, 12)])
def test_the_number_is_the_formulas_whatever_the_ranks(n: int, m: int, shrink: bool) -> None:
    x, y = mixed(n, 20, 5), mixed(m, 20, 6)
    expected = pytest.approx(formula(x, y, shrink), rel=1e-6)
    assert frechet_distance(x, y, shrink).value == expected
    assert frechet_distance(y, x, shrink).value == expected


def test_a_set_is_at_no_distance_from_itself_and_constant_sets_at_their_means() -> None:
    x = mixed(10, 30, 7)
    assert frechet_distance(x, x).value == pytest.approx(0, abs=1e-9 * float(x.square().sum()))
    for count in (2, 5):  # fewer than the features, and more
        assert frechet_distance(torch.zeros(count, 3), torch.ones(6, 3)).value == pytest.approx(3)


@pytest.mark.parametrize("which", [0, 1])
def test_influence_is_the_derivative_by_an_images_weight(which: int) -> None:
    sets = [mixed(40, 6, 8), mixed(50, 6, 9)]
    psi = frechet_distance(*sets).influences[which]
    x, other = sets[which], sets[1 - which]

    def weighted(weights: Tensor) -> float:
        """The distance of a set whose images count for more or less."""
        y = x - weights @ x
        root = torch.linalg.cholesky((weights[:, None] * y).T @ y * len(x) / (len(x) - 1))
        return frechet_distance(points(weights @ x, root), other).value

    for image in (0, 7, 31):
        step, one = 1e-5, torch.zeros(len(x), dtype=torch.float64)
        one[image] = 1
        plain = torch.full_like(one, 1 / len(x))
        up, down = (weighted((1 - e) * plain + e * one) for e in (step, -step))
        assert (up - down) / (2 * step) == pytest.approx(float(psi[image] - psi.mean()), rel=1e-5, abs=1e-5)


def test_shrinkage_is_of_full_rank_keeps_the_trace_and_comes_nearer() -> None:
    truth = torch.diag(torch.linspace(0.5, 2, 40, dtype=torch.float64))
    few = torch.tensor(np.cov((normal(15, 40) * truth.diagonal().sqrt()).numpy(), rowvar=False))
    found, rho = shrunk(few, 15)
    assert 0 < rho < 1
    assert torch.linalg.eigvalsh(few)[24] < 1e-12, "15 images leave 26 directions without variance"
    assert torch.linalg.eigvalsh(found)[0] > 0.01
    torch.testing.assert_close(found.trace(), few.trace())
    assert (found - truth).norm() < 0.7 * (few - truth).norm()
    uneven = normal(20000, 5) * torch.tensor([0.1, 0.5, 1, 2, 4], dtype=torch.float64)
    assert shrunk(torch.tensor(np.cov(uneven.numpy(), rowvar=False)), 20000)[1] < 1e-3, "it fades with many images"


@pytest.mark.parametrize(("count", "amount"), [(100, (14 / 3 + 36) / (2 * (101 - 2 / 3))), (10, 1.0)])
def test_the_amount_of_shrinkage_is_equation_23(count: int, amount: float) -> None:
    """By hand for the covariance diag(1, 2, 3): D = 3, tr S = 6, tr S^2 = 14; at most all of it."""
    covariance = torch.diag(torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64))
    found, rho = shrunk(covariance, count)
    assert rho == pytest.approx(amount, rel=1e-12)
    torch.testing.assert_close(found, (1 - amount) * covariance + amount * 2 * torch.eye(3, dtype=torch.float64))


def test_a_mean_far_above_the_deviation_costs_few_digits() -> None:
    x, y = mixed(500, 4, 1), mixed(400, 4, 2)
    assert frechet_distance(x + 1e4, y + 1e4).value == pytest.approx(frechet_distance(x, y).value, rel=1e-8)
