"""Watching the held-out loss: the best pass, overfitting told once and only when sure, its state in checkpoints."""

from __future__ import annotations

import pytest
import torch

from sfumato.train.watch import SURE, Watch

BASE = torch.rand(200, generator=torch.Generator().manual_seed(0)).double()
NOISE = 0.01 * torch.randn(200, generator=torch.Generator().manual_seed(1)).double()


def test_a_lower_loss_is_the_best_and_a_higher_one_is_not() -> None:
    watch, best, warning = Watch.new().look(BASE, 0.5, 10)
    assert best
    assert warning is None
    watch, best, _ = watch.look(BASE - 0.1, 0.4, 20)
    assert best
    assert watch.images == 20
    watch, best, _ = watch.look(BASE, 0.45, 30)
    assert not best
    assert watch.images == 20


def test_overfitting_is_said_once() -> None:
    watch, _, _ = Watch.new().look(BASE, 0.5, 10)
    watch, _, warning = watch.look(BASE + 0.05 + NOISE, 0.3, 20)
    assert warning is not None
    assert "overfitting" in warning
    assert "weights/best.safetensors" in warning
    assert "\n" not in warning
    assert watch.look(BASE + 0.1 + NOISE, 0.2, 30)[2] is None


@pytest.mark.parametrize(
    ("now", "train"),
    [
        (BASE + NOISE - NOISE.mean() + 1e-5, 0.3),  # a rise within its own noise
        (BASE + 0.05 + NOISE, 0.6),  # the training loss rises too: that is divergence, not rote
    ],
)
def test_it_is_not_said_without_cause(now: torch.Tensor, train: float) -> None:
    watch, _, _ = Watch.new().look(BASE, 0.5, 10)
    assert watch.look(now, train, 20)[2] is None


def test_chance_alone_seldom_warns() -> None:
    """Under pure noise the paired z is a standard normal: three of them are met once in 740."""
    generator, warned = torch.Generator().manual_seed(2), 0
    for _ in range(500):
        watch, _, _ = Watch.new().look(BASE, 0.5, 10)
        warned += watch.look(BASE + 0.01 * torch.randn(200, generator=generator), 0.4, 20)[2] is not None
    assert warned <= 6
    assert SURE == 3.0


def test_the_state_passes_through_a_checkpoint() -> None:
    watch, _, _ = Watch.new().look(BASE, 0.5, 10)
    again = Watch.from_state(watch.state())
    assert torch.equal(again.held_out, watch.held_out)
    assert (again.train, again.images, again.warned) == (0.5, 10, False)
    assert Watch.from_state({}).images == -1
