from __future__ import annotations

import pytest
import torch

from sfumato.evaluate import sliced_wasserstein
from sfumato.evaluate.metrics.sliced import directions

from .targets import normal


def test_directions_are_unit_vectors_of_a_key_and_evenly_distributed() -> None:
    u = directions(3, 4000, 5)
    torch.testing.assert_close(u.square().sum(1), torch.ones(4000, dtype=torch.float64))
    torch.testing.assert_close(u.T @ u / 4000, torch.eye(5, dtype=torch.float64) / 5, atol=0.01, rtol=0)
    assert torch.equal(u[:7], directions(3, 7, 5))
    assert not torch.equal(u, directions(4, 4000, 5))


def test_a_shift_is_seen_from_every_direction() -> None:
    """Carrying a whole set by s costs (u . s)^2 along u."""
    x, shift = normal(50, 6), normal(6, seed=1)
    expected = (directions(0, 512, 6) @ shift).square().mean().sqrt()
    assert sliced_wasserstein(x, x + shift).value == pytest.approx(float(expected), rel=1e-10)


def test_in_one_dimension_it_is_a_matter_of_sorting() -> None:
    x, y = normal(40, 1), 2 * normal(40, 1, seed=1) + 1
    expected = (x.sort(0).values - y.sort(0).values).square().mean().sqrt()
    assert sliced_wasserstein(x, y, 4).value == pytest.approx(float(expected), rel=1e-12)


def test_unequal_numbers_are_those_of_equally_many_copies() -> None:
    x, y = normal(6, 1), normal(9, 1, seed=1)
    expected = (x.repeat(9, 1).sort(0).values - y.repeat(6, 1).sort(0).values).square().mean().sqrt()
    assert sliced_wasserstein(x, y, 4).value == pytest.approx(float(expected), rel=1e-12)
    assert sliced_wasserstein(y, x, 4).value == pytest.approx(float(expected), rel=1e-12)


def test_gaussians_in_one_dimension() -> None:
    """W_2^2( N(m, s^2), N(n, t^2) ) = (m - n)^2 + (s - t)^2."""
    x, y = normal(20000, 1), 3 * normal(20000, 1, seed=1) + 1.5
    assert sliced_wasserstein(x, y, 2).value ** 2 == pytest.approx(1.5**2 + 2**2, rel=0.02)


@pytest.mark.parametrize("counts", [(800, 800), (800, 1200)])
def test_influence_is_the_cost_of_one_more_image(counts: tuple[int, int]) -> None:
    """One image counted twice: the change, times how many there are, is its influence."""
    sets = [normal(counts[0], 2), 1.5 * normal(counts[1], 2, seed=1) + 0.5]
    plain = sliced_wasserstein(*sets, 32)
    for which in (0, 1):
        psi = plain.influences[which]
        changes = []
        for image in range(0, 800, 40):
            more = list(sets)
            more[which] = torch.cat((sets[which], sets[which][image : image + 1]))
            changes.append((sliced_wasserstein(*more, 32).value - plain.value) * len(more[which]))
        expected = (psi - psi.mean())[0:800:40]
        torch.testing.assert_close(torch.tensor(changes).double(), expected, atol=0.05 * float(psi.std()), rtol=0.02)
