from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from sfumato.evaluate import neighbours, prdc
from sfumato.evaluate.metrics.prdc import CHANCE
from sfumato.evaluate.neighbours import nearest

from .targets import normal


@pytest.fixture(params=[4, 2048])
def pieces(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Take matrices in small pieces and in one."""
    monkeypatch.setattr(neighbours, "_ROWS", request.param)
    return int(request.param)


def distances(x: Tensor, y: Tensor) -> np.ndarray:
    return np.linalg.norm(x.numpy()[:, None] - y.numpy()[None], axis=2)


@pytest.mark.parametrize("itself", [False, True])
def test_nearest_is_a_sort_and_nobody_is_their_own_neighbour(pieces: int, itself: bool) -> None:
    x, y = normal(11, 3), normal(11 if itself else 13, 3, seed=0 if itself else 1)
    table = distances(x, y) + (np.diag(np.full(11, np.inf)) if itself else 0)
    found, rows = nearest(x, y, 4, itself)
    np.testing.assert_allclose(found, np.sort(table, 1)[:, :4], rtol=1e-10)
    np.testing.assert_array_equal(rows, np.argsort(table, 1)[:, :4])


def test_a_copy_of_bytes_is_at_distance_zero_exactly() -> None:
    base = np.random.default_rng(0).integers(0, 256, (50, 3072), dtype=np.uint8)
    found, rows = nearest(base[[7, 30]], base, 2)
    assert found[:, 0].tolist() == [0.0, 0.0]
    assert rows[:, 0].tolist() == [7, 30]
    exact = np.sqrt(((base[7].astype(int) - base[int(rows[0, 1])].astype(int)) ** 2).sum())
    assert float(found[0, 1]) == exact


def values(real: Tensor, fake: Tensor, k: int = 5) -> dict[str, float]:
    return {name: value.value for name, value in prdc(real, fake, k).items()}


def brute_force(real: Tensor, fake: Tensor, k: int) -> dict[str, float]:
    """Precision, recall, density and coverage by their definitions."""
    within, between, fakes = distances(real, real), distances(real, fake), distances(fake, fake)
    r, f = np.sort(within, 1)[:, k], np.sort(fakes, 1)[:, k]  # place 0 is the image itself
    return {
        "precision": float(np.mean([any(between[i, j] < r[i] for i in range(len(real))) for j in range(len(fake))])),
        "recall": float(np.mean([any(between[i, j] < f[j] for j in range(len(fake))) for i in range(len(real))])),
        "density": sum(between[i, j] < r[i] for i in range(len(real)) for j in range(len(fake))) / (k * len(fake)),
        "coverage": float(np.mean([between[i].min() < r[i] for i in range(len(real))])),
    }


def test_an_image_at_exactly_the_radius_is_outside(pieces: int) -> None:
    """Whole numbers tie: on a line of points 2 apart every ball reaches to the next, and 2 beyond the end is not in."""
    real = torch.arange(0.0, 20.0, 2.0)[:, None]
    fake = torch.tensor([[-2.0], [20.0], [3.0], [7.5]])
    found = values(real, fake, 1)
    assert found == pytest.approx(brute_force(real, fake, 1))
    assert found["precision"] == 0.5
    assert found["density"] == 1.0
    assert found["coverage"] == 0.4


@pytest.mark.parametrize("k", [1, 5])
def test_the_four_measures_are_their_definitions(pieces: int, k: int) -> None:
    real, fake = normal(23, 3), 0.6 * normal(17, 3, seed=1) + 0.4
    found = values(real, fake, k)
    assert found == pytest.approx(brute_force(real, fake, k), abs=1e-12)
    assert 0 < found["recall"] < 1


def test_a_lost_mode_costs_recall_and_coverage_and_not_precision() -> None:
    real = torch.cat((normal(200, 4), normal(200, 4, seed=1) + 20))
    found = values(real, normal(400, 4, seed=2))
    assert found["precision"] > 0.9
    assert 0.4 < found["recall"] <= 0.5
    assert 0.4 < found["coverage"] <= 0.5


def test_far_away_nothing_is_shared_and_a_set_shares_all_with_itself() -> None:
    x = normal(30, 4)
    assert set(values(x, x + 100).values()) == {0.0}
    alike = values(x, x)
    assert alike["precision"] == alike["recall"] == alike["coverage"] == 1


def test_the_other_sets_influence_is_what_its_loss_would_cost() -> None:
    """Coverage without generated image j, the real balls as they are; less most of the variance that is chance."""
    real, fake = normal(40, 2), normal(25, 2, seed=1)
    found = prdc(real, fake, 2)["coverage"]
    radius = np.sort(distances(real, real), 1)[:, 2]
    between = distances(real, fake)
    without = [float(np.mean(np.delete(between, j, 1).min(1) < radius)) for j in range(25)]
    lost = 40 * (found.value - np.array(without))
    psi = found.influences[1].numpy()
    np.testing.assert_allclose(psi / psi.std(), lost / lost.std(), atol=1e-9)
    assert psi.var(ddof=1) == pytest.approx((25 / 40) ** 2 * (lost.var(ddof=1) - CHANCE * lost.mean()))


def test_a_real_images_influence_on_density_is_its_ball_and_what_others_gain_without_it() -> None:
    """By the definition, image by image; the chance of the pairs, density / (k M), is counted once."""
    real, fake, k = normal(60, 3), 0.8 * normal(40, 3, seed=1) + 0.2, 4
    within = distances(real, real)
    order, radius = np.argsort(within, 1)[:, 1 : k + 1], np.sort(within, 1)[:, k]
    inside = distances(real, fake) < radius[:, None]
    balls = inside.sum(1)
    expected = [balls[i] - sum(balls[j] for j in range(60) if i in order[j]) / k for i in range(60)]
    expected = np.array(expected) * 60 / (k * 40)
    found = prdc(real, fake, k)["density"]
    counts, psi = (influence.numpy() for influence in found.influences)
    np.testing.assert_allclose(counts, inside.sum(0) / k)
    np.testing.assert_allclose(psi / psi.std(), expected / expected.std(), atol=1e-9)
    assert psi.var(ddof=1) / 60 + found.value / (k * 40) == pytest.approx(expected.var(ddof=1) / 60)


def test_where_nothing_differs_density_is_one_and_coverage_what_ranks_give() -> None:
    """A real image is missed if all of its k nearest among the others of both sets are real: coverage is 1 - (N - 1) ..
    (N - k) / ((N + M - 1) .. (N + M - k)) on average (Naeem et al. 2020, Eq. 9), whatever the distribution."""
    k, n, m = 3, 30, 20
    x = normal(400, n + m, 2)
    found = [values(z[:n], z[n:], k) for z in x]
    missed = np.prod([(n - i) / (n + m - i) for i in range(1, k + 1)])
    for name, expected in (("coverage", 1 - missed), ("density", 1.0)):
        numbers = np.array([f[name] for f in found])
        assert abs(numbers.mean() - expected) < 4 * numbers.std() / 20, name
