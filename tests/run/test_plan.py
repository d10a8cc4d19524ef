"""When grids are drawn and held-out losses taken."""

from __future__ import annotations

from itertools import pairwise

import pytest

from sfumato.run.plan import Plan, geometric, regular


@pytest.mark.parametrize("steps", [1, 5, 100, 12345])
@pytest.mark.parametrize("count", [1, 2, 6])
def test_geometric_steps_end_at_the_end_and_double(steps: int, count: int) -> None:
    found = geometric(steps, count)
    assert found[-1] == steps
    assert found == sorted(set(found))
    assert found[0] >= 1
    assert len(found) <= count
    if steps == 12345 and count == 6:  # 1/32 .. 1: each twice the one before
        assert all(b / a == pytest.approx(2, rel=1e-2) for a, b in pairwise(found))


def test_regular_steps() -> None:
    assert regular(100, 4) == [0, 25, 50, 75, 100]
    assert regular(2, 10) == [0, 1, 2]
    assert regular(100, 0) == geometric(100, 0) == []


def test_a_plan_knows_its_steps() -> None:
    plan = Plan(images=800, steps=100, batch=8, grids=6, held_outs=4)
    assert plan.grid_steps == geometric(100, 6)
    assert plan.held_out_steps == regular(100, 4)
