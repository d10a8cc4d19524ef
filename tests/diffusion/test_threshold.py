"""Dynamic thresholding against numpy's percentile, image by image."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from sfumato.diffusion import Clipped, Cosine, Prediction, Thresholded

from .common import images

SCHEDULE = Cosine()
T = 0.4


@dataclass(frozen=True)
class Says:
    """Predicts x0 = factor times its input, whatever that is."""

    factor: float
    schedule: Cosine = SCHEDULE

    def __call__(self, x_t: torch.Tensor, t: torch.Tensor | float, condition: object = None) -> Prediction:
        raw = Prediction(x_t, x_t, torch.full_like(x_t, 0.25))
        return raw.with_x0(self.factor * x_t, x_t, self.schedule(t))


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 1, 2), (1,), (7, 5)])
@pytest.mark.parametrize("percentile", [0.1, 0.5, 0.9, 0.995, 1.0])
@pytest.mark.parametrize("ceiling", [math.inf, 2.5])
def test_it_is_the_papers(shape: tuple[int, ...], percentile: float, ceiling: float) -> None:
    x_t = images(6, shape, seed=2)
    got = Thresholded(Says(2.0), percentile, ceiling)(x_t, T)
    for x, one in zip(2.0 * x_t.numpy(), got.x0.numpy(), strict=True):
        s = min(max(1.0, np.quantile(np.abs(x), percentile)), ceiling)
        assert np.allclose(one, np.clip(x, -s, s) / s, atol=1e-12)
    level = SCHEDULE(T)
    assert torch.allclose(level.alpha * got.x0 + level.sigma * got.eps, x_t, atol=1e-12)
    assert float(got.x0.abs().max()) <= 1.0
    assert got.fraction is not None
    assert float(got.fraction.unique()) == 0.25


def test_inside_the_range_it_changes_nothing() -> None:
    x_t = images(4, (3, 8, 8), seed=3).clamp(-1, 1)
    plain, got = Says(1.0)(x_t, T), Thresholded(Says(1.0))(x_t, T)
    assert torch.equal(got.x0, plain.x0)
    assert torch.allclose(got.eps, plain.eps, atol=1e-12)


def test_a_ceiling_of_one_is_clipping() -> None:
    x_t = images(4, (3, 8, 8), seed=4)
    assert torch.equal(Thresholded(Says(3.0), ceiling=1.0)(x_t, T).x0, Clipped(Says(3.0))(x_t, T).x0)


def test_images_do_not_share_their_scale() -> None:
    x_t = images(2, (3, 8, 8), seed=5) * torch.tensor([0.1, 9.0])[:, None, None, None]
    got = Thresholded(Says(1.0))(x_t, T)
    assert torch.equal(got.x0[0], x_t[0])
    assert not torch.allclose(got.x0[1], x_t[1].clamp(-1, 1), atol=0.1)


def test_half_precision_and_large_images() -> None:
    x_t = images(1, (3, 64, 64)).bfloat16()
    got = Thresholded(Says(2.0))(x_t, T).x0
    assert got.dtype == torch.bfloat16
    assert float((got.double() - Thresholded(Says(2.0))(x_t.double(), T).x0).abs().max()) < 0.02


def test_mistakes_are_refused() -> None:
    for percentile in (0.0, 1.01, 99.5, math.nan):
        with pytest.raises(ValueError, match=r"0\.995"):
            Thresholded(Says(1.0), percentile)
    for ceiling in (0.99, math.nan):
        with pytest.raises(ValueError, match="1 or more"):
            Thresholded(Says(1.0), ceiling=ceiling)
