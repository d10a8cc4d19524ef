"""The picture of a run's losses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sfumato.errors import UserError
from sfumato.report.chart import COLOURS
from sfumato.report.curves import SIZE, loss_curves, smoothed
from sfumato.run.events import Buckets, HeldOut, Stepped
from sfumato.run.folder import Run
from sfumato.run.summary import RunSummary


def at(loss: float, level: int = 4) -> Buckets:
    """One example at a noise level."""
    return Buckets(tuple(loss * (n == level) for n in range(10)), tuple(int(n == level) for n in range(10)))


def summary(path: Path, losses: list[float], held_out: tuple[tuple[int, float], ...] = ()) -> RunSummary:
    steps = [Stepped(10 * (n + 1), n + 1, loss, 1.0, 1e-3, 1.0, at(loss)) for n, loss in enumerate(losses)]
    looks = [HeldOut(images, loss, at(loss), 1.0, loss, Buckets(), True) for images, loss in held_out]
    return RunSummary(Run(path), {}, {}, None, (*steps, *looks), True, {}, (), ())


def coloured(picture: np.ndarray, number: int) -> np.ndarray:
    """Where a picture has about a line's colour: (rows, columns)."""
    return np.argwhere(np.abs(picture.astype(int) - np.array(COLOURS[number])).max(2) < 12)


def test_losses_fall_from_left_to_right_and_the_held_out_loss_has_its_dots(tmp_path: Path) -> None:
    losses = [1.0 / (1 + n / 10) for n in range(100)]
    picture = np.asarray(loss_curves(summary(tmp_path / "run", losses, ((0, 1.0), (500, 0.2), (1000, 0.1)))))
    assert picture.shape == (SIZE[1], SIZE[0], 3)
    smooth = coloured(picture[:390], 0)  # above the legend
    left, right = (smooth[np.abs(smooth[:, 1] - column) < 15][:, 0].mean() for column in (250, 900))
    assert left < right - 50, "lower losses are drawn lower"
    dots = coloured(picture[:390], 1)
    middle = dots[np.abs(dots[:, 1] - (76 + (SIZE[0] - 20 - 76) / 2)) < 4]  # 500 of 1,000 images
    assert len(middle) >= 9, "a dot"
    rate = coloured(picture[SIZE[1] - 200 :], 0)
    assert len(rate) > 500, "the learning rate, below"
    assert np.ptp(rate[:, 0]) < 6, "which was the same all the time"


def test_both_losses_are_drawn_at_the_noise_levels_of_the_training(tmp_path: Path) -> None:
    """Three examples in four at a level where the loss is 0.2, one where it is 0.6: 0.3 for a model as good on images
    that it has not seen, whose losses at both levels evenly have a mean of 0.4."""
    levels = Buckets((0.6, 0.6, *[0.0] * 8), (3, 1, *[0] * 8))
    steps = [Stepped(10 * n, n, 0.3, 1.0, 1e-3, 1.0, levels) for n in range(1, 101)]
    held_out = Buckets((2.0, 6.0, *[0.0] * 8), (10, 10, *[0] * 8))
    looks = [HeldOut(images, 0.4, held_out, 1.0, 0.4, Buckets(), True) for images in (200, 800)]
    both = RunSummary(Run(tmp_path / "run"), {}, {}, None, (*steps, *looks), True, {}, (), ())
    assert both.training_loss(held_out) == pytest.approx(0.3)
    frame = np.asarray(loss_curves(both))[60:340]  # without the legend
    line, dots = (coloured(frame, number)[:, 0].mean() for number in (0, 1))
    assert abs(line - dots) < 2


def test_smoothing_is_an_average_that_halves() -> None:
    assert smoothed([(0.0, 4.0), (10.0, 1.0)], 10.0) == [(0.0, 4.0), (10.0, pytest.approx((4 * 0.5 + 1) / 1.5))]
    assert [y for _, y in smoothed([(x, 3.0) for x in range(5)], 2.0)] == pytest.approx([3.0] * 5)
    assert smoothed([(0.0, 4.0), (10.0, 1.0)], 0.0) == [(0.0, 4.0), (10.0, 1.0)]


@pytest.mark.parametrize("losses", [[0.5], [0.5, 0.5], [0.0, 1.0], [float("inf"), 1.0, 0.5], [-3.0, -4.0, -5.0]])
def test_any_losses_can_be_drawn(losses: list[float], tmp_path: Path) -> None:
    assert loss_curves(summary(tmp_path / "run", losses)).size == SIZE


def test_a_run_without_a_step_has_nothing_to_plot(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no training step in its log yet"):
        loss_curves(summary(tmp_path / "run", []))
