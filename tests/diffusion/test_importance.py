"""Importance sampling by loss history: unbiased, least variance, warm-up."""

from __future__ import annotations

import pytest
import torch

from sfumato.diffusion import Terms
from sfumato.diffusion.objective import LossHistory

T = 8
SCALE = torch.tensor([100.0, 10, 3, 1, 0.5, 0.2, 0.1, 0.05], dtype=torch.float64)


def trained(rounds: int) -> LossHistory:
    history, t = LossHistory.empty(T), (torch.arange(T) + 1).double() / T
    for k in range(rounds):
        history = history.update(Terms(SCALE * (1 + 0.1 * (-1) ** k), t))
    return history


@pytest.mark.parametrize("rounds", [0, 9])
def test_uniform_until_every_time_was_seen_ten_times(rounds: int) -> None:
    assert torch.allclose(trained(rounds).probabilities, torch.full((T,), 1 / T).double())


def test_probabilities_are_iddpm_equation_18() -> None:
    root = (SCALE**2 * (1 + 0.01)).sqrt()  # mean of (1.1^2 + 0.9^2) / 2
    expected = 0.999 * root / root.sum() + 0.001 / T
    assert torch.allclose(trained(10).probabilities, expected)
    assert torch.allclose(trained(33).probabilities.sum(), torch.ones(()).double())


def test_only_the_last_ten_count() -> None:
    history, t = trained(10), (torch.arange(T) + 1).double() / T
    for _ in range(10):
        history = history.update(Terms(torch.ones(T), t))
    assert torch.allclose(history.probabilities, torch.full((T,), 1 / T).double())


def test_weighted_losses_keep_the_mean_and_lose_variance() -> None:
    history = trained(20)
    u = (torch.arange(200_000).double() + 0.5) / 200_000
    t, weights = history.draw(u)
    loss = SCALE[(t * T).round().long() - 1]
    assert float((weights * loss).mean()) == pytest.approx(float(SCALE.mean()), rel=1e-3)
    assert float((weights * loss).var()) < 0.01 * float(SCALE.var())
    uniform_t, ones = LossHistory.empty(T).draw(u)
    assert torch.allclose(ones, torch.ones_like(ones))
    assert (uniform_t * T).round().long().bincount().tolist() == [0] + [25_000] * T


def test_a_step_met_twice_in_a_batch_counts_twice_and_nan_not_at_all() -> None:
    t = torch.tensor([1.0, 1.0, 0.5, 0.5]).double()
    history = LossHistory.empty(T).update(Terms(torch.tensor([1.0, 2.0, torch.nan, torch.inf]), t))
    assert history.seen.tolist() == [0, 0, 0, 0, 0, 0, 0, 2]
    assert sorted(history.losses[7].tolist())[-2:] == [1.0, 2.0]
    assert bool(history.losses.isfinite().all())
    assert int(LossHistory.empty(T).seen.sum()) == 0
