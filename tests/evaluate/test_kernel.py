from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sfumato.evaluate import kid

from .targets import normal


def brute_force(x: Tensor, y: Tensor) -> float:
    """The definition, pair by pair."""

    def k(a: Tensor, b: Tensor) -> float:
        return float((a @ b) / len(a) + 1) ** 3

    n, m = len(x), len(y)
    xx = sum(k(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    yy = sum(k(y[i], y[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    xy = sum(k(x[i], y[j]) for i in range(n) for j in range(m)) / (n * m)
    return xx + yy - 2 * xy


def test_it_is_the_definition() -> None:
    x, y = normal(9, 4), 1.3 * normal(7, 4, seed=1) + 0.2
    assert kid(x, y).value == pytest.approx(brute_force(x, y), rel=1e-12)


def test_blocks_are_averaged() -> None:
    x, y = normal(12, 4), 1.3 * normal(12, 4, seed=1)
    expected = sum(brute_force(x[i : i + 4], y[i : i + 4]) for i in (0, 4, 8)) / 3
    found = kid(x, y, block=4)
    assert found.value == pytest.approx(expected, rel=1e-12)
    assert [len(psi) for psi in found.influences] == [12, 12]


def test_its_mean_is_the_moments_closed_form() -> None:
    """In one dimension MMD^2 = sum over k of C(3, k) (m_k - m'_k)^2; N(0, 1) against N(1, 1): 3 + 3 + 16 = 22."""
    x, y = normal(2000, 60, 1), normal(2000, 60, 1, seed=1) + 1
    values = torch.tensor([kid(a, b).value for a, b in zip(x, y, strict=True)])
    assert abs(float(values.mean()) - 22) < 4 * float(values.std()) / 2000**0.5


def test_it_is_zero_on_average_where_nothing_differs() -> None:
    x = normal(400, 2, 20, 3)
    values = torch.tensor([kid(a, b).value for a, b in x])
    assert abs(float(values.mean())) < 4 * float(values.std()) / 20
    assert float(values.min()) < 0 < float(values.max())
