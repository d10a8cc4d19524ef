"""The picture of a run's losses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sfumato.errors import UserError
from sfumato.report.curves import SIZE, log_ticks, loss_curves, smoothed, ticks
from sfumato.run.events import Buckets, HeldOut, Stepped
from sfumato.run.folder import Run
from sfumato.run.summary import RunSummary


def summary(path: Path, losses: list[float], held_out: tuple[tuple[int, float], ...] = ()) -> RunSummary:
    steps = [Stepped(10 * (n + 1), n + 1, loss, 1.0, 1e-3, 1.0, Buckets()) for n, loss in enumerate(losses)]
    looks = [HeldOut(images, loss, Buckets(), 1.0, loss, Buckets(), True) for images, loss in held_out]
    return RunSummary(Run(path), {}, {}, None, (*steps, *looks), True, {}, (), ())


def colours(picture: np.ndarray, hexadecimal: str) -> np.ndarray:
    """Where a picture has about a colour: (rows, columns)."""
    colour = np.array([int(hexadecimal[n : n + 2], 16) for n in (1, 3, 5)])
    return np.argwhere(np.abs(picture.astype(int) - colour).max(2) < 12)


def test_losses_fall_from_left_to_right_and_the_held_out_loss_has_its_dots(tmp_path: Path) -> None:
    losses = [1.0 / (1 + n / 10) for n in range(100)]
    picture = np.asarray(loss_curves(summary(tmp_path / "run", losses, ((0, 1.0), (500, 0.2), (1000, 0.1)))))
    assert picture.shape == (SIZE[1], SIZE[0], 3)
    smooth = colours(picture, "#1f5fa8")
    smooth = smooth[(smooth[:, 0] > 120) & (smooth[:, 0] < 404)]  # below the legend
    left, right = (smooth[np.abs(smooth[:, 1] - column) < 15][:, 0].mean() for column in (250, 900))
    assert left < right, "lower losses are drawn lower"
    dots = colours(picture, "#c4561c")
    middle = dots[np.abs(dots[:, 1] - 510) < 4]  # 500 of 1,000 images: 90 + 840 / 2
    assert len(middle) >= 9, "a dot"


def test_smoothing_is_an_average_that_halves() -> None:
    assert smoothed([(0.0, 4.0), (10.0, 1.0)], 10.0) == [(0.0, 4.0), (10.0, pytest.approx((4 * 0.5 + 1) / 1.5))]
    assert [y for _, y in smoothed([(x, 3.0) for x in range(5)], 2.0)] == pytest.approx([3.0] * 5)
    assert smoothed([(0.0, 4.0), (10.0, 1.0)], 0.0) == [(0.0, 4.0), (10.0, 1.0)]


def test_ticks_are_round_and_few() -> None:
    assert ticks(0, 10) == [0, 2, 4, 6, 8, 10]
    assert ticks(0.31, 0.52) == pytest.approx([0.35, 0.4, 0.45, 0.5])
    assert log_ticks(0.09, 2.1) == pytest.approx([0.1, 0.2, 0.5, 1, 2])
    assert len(log_ticks(0.12, 0.19)) > 2


@pytest.mark.parametrize("losses", [[0.5], [0.5, 0.5], [0.0, 1.0], [float("inf"), 1.0, 0.5], [-3.0, -4.0, -5.0]])
def test_any_losses_can_be_drawn(losses: list[float], tmp_path: Path) -> None:
    assert loss_curves(summary(tmp_path / "run", losses)).size == SIZE


def test_a_run_without_a_step_has_nothing_to_plot(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no training step in its log yet"):
        loss_curves(summary(tmp_path / "run", []))
