"""Charts: round ticks, curves where they belong."""

from __future__ import annotations

import numpy as np
import pytest

from sfumato.report.chart import COLOURS, Axis, Line, chart, number, ticks


@pytest.mark.parametrize(
    ("low", "high", "log", "expected"),
    [
        (0.0, 1.0, False, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (0.0, 1000.0, False, [0, 200, 400, 600, 800, 1000]),
        (-3.0, 3.0, False, [-3, -2, -1, 0, 1, 2, 3]),
        (0.002, 30.0, True, [0.01, 0.1, 1, 10]),
        (0.0, 10.0, False, [0, 2, 4, 6, 8, 10]),
        (0.31, 0.52, False, [0.35, 0.4, 0.45, 0.5]),
        (0.09, 2.1, True, [0.1, 0.2, 0.5, 1, 2]),
        (0.12, 0.19, True, [0.12, 0.14, 0.16, 0.18]),
    ],
)
def test_ticks_are_round(low: float, high: float, log: bool, expected: list[float]) -> None:
    found = ticks(low, high, log)
    assert found == pytest.approx(expected)


def test_numbers_of_an_axis() -> None:
    assert [number(v) for v in (0, 0.25, 12, 1000, 1e-5, 2e7)] == ["0", "0.25", "12", "1,000", "1e-5", "2e7"]


def test_a_rising_line_rises() -> None:
    picture = chart([Line("a", [0, 1, 2], [0, 1, 2])], Axis("x"), Axis("y", low=0, high=2))
    pixels = np.asarray(picture).astype(int)
    blue = (abs(pixels - np.array(COLOURS[0])).sum(2) < 60)[:380]
    rows, columns = np.nonzero(blue)
    left, right = rows[columns < columns.min() + 40].mean(), rows[columns > columns.max() - 40].mean()
    assert left > right + 200


def test_gaps_and_empty_charts_are_drawn() -> None:
    picture = chart(
        [Line("a", [1, 2, 3], [None, float("nan"), -1.0])], Axis("x", log=True), Axis("y", log=True), "title"
    )
    assert picture.size == (880, 460)
