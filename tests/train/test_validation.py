"""The lowest held-out loss, overfitting reported once and only when sure, and their state in checkpoints."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from sfumato.data import Dataset
from sfumato.diffusion import VARIANCES, Bound, Noised, marginal, sample_timesteps
from sfumato.diffusion.noise import Purpose, normal, uniform
from sfumato.train.trainer import Trainer
from sfumato.train.validation import Z_SCORE, Best

from .conftest import tiny

BASE = torch.rand(200, generator=torch.Generator().manual_seed(0)).double()
NOISE = 0.01 * torch.randn(200, generator=torch.Generator().manual_seed(1)).double()


@pytest.fixture
def best() -> Best:
    best, warning = Best().update(BASE, 0.5, 10)
    assert warning is None
    assert best.images == 10
    return best


def test_a_lower_loss_is_the_best_and_a_higher_one_is_not(best: Best) -> None:
    best, _ = best.update(BASE - 0.1, 0.4, 20)
    assert best.images == 20
    best, _ = best.update(BASE, 0.45, 30)
    assert best.images == 20


def test_overfitting_is_reported_once(best: Best) -> None:
    best, warning = best.update(BASE + 0.05 + NOISE, 0.3, 20)
    assert warning is not None
    assert "overfitting" in warning
    assert "weights/best.safetensors" in warning
    assert "\n" not in warning
    assert best.update(BASE + 0.1 + NOISE, 0.2, 30)[1] is None


@pytest.mark.parametrize(
    ("losses", "train"),
    [
        (BASE + NOISE - NOISE.mean() + 1e-5, 0.3),  # a rise within its own noise
        (BASE + 0.05 + NOISE, 0.6),  # the training loss rises too: that is divergence, not memorisation
    ],
)
def test_it_is_not_reported_without_cause(best: Best, losses: torch.Tensor, train: float) -> None:
    assert best.update(losses, train, 20)[1] is None


def test_chance_alone_seldom_warns(best: Best) -> None:
    """Under pure noise the paired z is a standard normal: three of them are met once in 740."""
    generator = torch.Generator().manual_seed(2)
    tries = [best.update(BASE + 0.01 * torch.randn(200, generator=generator), 0.4, 20) for _ in range(500)]
    assert sum(warning is not None for _, warning in tries) <= 6
    assert Z_SCORE == 3.0


def test_the_state_passes_through_a_checkpoint(best: Best) -> None:
    again = Best.from_state(best.state())
    assert torch.equal(again.held_out, best.held_out)
    assert (again.train, again.images, again.warned) == (0.5, 10, False)
    assert Best.from_state({}).images == -1
    warned = best.update(BASE + 0.05 + NOISE, 0.3, 20)[0]
    assert Best.from_state(warned.state()).warned


def test_the_losses_are_those_of_given_times_and_noise(digits: Dataset) -> None:
    """By hand: t of image j from the j-th of n equal parts, eps by its number, the bound in bits; training images too,
    with the same times and noise."""
    trainer, n = Trainer(tiny(train__held_out_images="12"), digits), torch.arange(12)
    trainer.step()
    model, found = trainer.model(), trainer.held_out()
    assert found is not None
    t = sample_timesteps((n + uniform(0, Purpose.HELD_OUT_TIME, n)) / 12, 50)
    eps, bound = normal(0, Purpose.HELD_OUT_NOISE, n, (1, 8, 8)), Bound(VARIANCES["small"], model.codec.decoder)

    def losses(rows: NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor]:
        values, condition = digits.rows(torch.from_numpy(rows[:12]))
        x_0 = trainer.encode(values)
        x_t = marginal(x_0, model.schedule(t)).sample(eps)
        with torch.no_grad():
            prediction, noised = model.denoiser(x_t, t, condition), Noised(x_0, eps, x_t, t, model.schedule)
        return trainer.objective.losses(prediction, noised), bound.losses(prediction, noised) / math.log(2)

    held_out, bits = losses(digits.held_out)
    torch.testing.assert_close(found.held_out.loss, held_out, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found.bound.loss, bits, rtol=1e-4, atol=1e-6)
    assert torch.equal(found.held_out.t, t)
    assert found.train == pytest.approx(float(losses(digits.train)[0].mean()), rel=1e-4)
