"""Statistics of images against closed forms, and distances against scipy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from sfumato.diagnose.statistics import image_statistics, nearest, reduced


def noise(seed: int, shape: tuple[int, ...], sigma: float = 0.1) -> torch.Tensor:
    return sigma * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_white_noise_has_its_own_deviation_as_grain_and_no_correlation() -> None:
    found = image_statistics(noise(0, (200, 2, 16, 16)) + torch.tensor([0.3, -0.2])[:, None, None])
    assert found.grain == pytest.approx(0.1, rel=0.02)
    assert found.correlation == pytest.approx(0, abs=0.01)
    assert found.mean == pytest.approx((0.3, -0.2), abs=0.002)
    assert found.std == pytest.approx((0.1, 0.1), rel=0.02)
    # two independent images differ by sqrt(2) sigma
    assert found.diversity == pytest.approx(0.1 * 2**0.5, rel=0.02)
    assert found.low == pytest.approx((0.3 - 0.2326, -0.2 - 0.2326), abs=0.01)
    assert found.high == pytest.approx((0.3 + 0.2326, -0.2 + 0.2326), abs=0.01)


def test_a_ramp_is_smooth_and_a_chessboard_is_all_grain() -> None:
    ramp = torch.linspace(-1, 1, 16).repeat(3, 1, 16, 1)
    assert image_statistics(ramp).grain == pytest.approx(0, abs=1e-12)
    assert image_statistics(ramp).correlation > 0.95
    assert image_statistics(ramp).diversity == 0
    board = (torch.arange(8)[:, None] + torch.arange(8)) % 2 * 1.0 - 0.5
    found = image_statistics(board.repeat(2, 1, 1, 1))
    assert found.grain == pytest.approx(1.0)  # (a - b - c + d) / 2 with a = d = -b = -c = 1/2
    assert found.correlation == pytest.approx(-1)


def test_values_are_clamped_as_they_are_shown() -> None:
    x = torch.tensor([-7.0, -1.0, -0.999, 0.0, 0.99, 0.999, 3.0, float("nan")]).repeat(2).reshape(2, 1, 2, 4)
    found = image_statistics(x)
    assert found.black == 4 / 8  # also the NaN
    assert found.white == 2 / 8
    assert (found.low, found.high) == ((-1.0,), (1.0,))


def test_contrast_and_brightness_join_the_channels() -> None:
    x = torch.tensor([[-0.3, 0.5], [0.3, -0.5]]).reshape(2, 2, 1, 1)  # deviations 0.3 and 0.5 about 0
    assert image_statistics(x).contrast == pytest.approx((0.17) ** 0.5)
    assert image_statistics(x + 0.1).brightness == pytest.approx(0.1)


def test_a_single_pixel_has_no_grain_and_a_flat_image_no_correlation() -> None:
    one = image_statistics(noise(0, (4, 1, 1, 1)))
    assert (one.grain, one.correlation) == (0, 0)
    assert image_statistics(torch.zeros(3, 1, 4, 4)).correlation == 0


def test_distances_are_those_of_scipy() -> None:
    x, y = noise(0, (20, 3, 6, 6)), noise(1, (30, 3, 6, 6))
    between, xx = (cdist(p.flatten(1).numpy(), q.flatten(1).numpy()) / np.sqrt(108) for p, q in ((x, y), (x, x)))
    assert nearest(x, y).numpy() == pytest.approx(between.min(1))
    assert image_statistics(x).diversity == pytest.approx(xx.sum() / (20 * 19))


def test_large_images_are_averaged_for_their_distances() -> None:
    x, y = noise(0, (3, 1, 64, 64)), noise(1, (4, 1, 64, 64))
    small = [z.reshape(len(z), 1, 32, 2, 32, 2).mean((3, 5)) for z in (x, y)]
    assert nearest(x, y).tolist() == pytest.approx(nearest(*small).tolist())
    assert nearest(x, reduced(y)).tolist() == pytest.approx(nearest(x, y).tolist())
