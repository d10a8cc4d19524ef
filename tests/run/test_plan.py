"""When grids are drawn and held-out losses taken."""

from __future__ import annotations

from itertools import pairwise

import pytest

from sfumato.run.plan import Course, Plan, geometric, read_course, regular


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
    assert plan.looks_after(-1) == (6, 5)
    assert plan.looks_after(25) == (2, 3)
    assert plan.looks_after(99) == (1, 1)
    assert plan.looks_after(100) == (0, 0)


FIRST = Plan(images=800, steps=100, batch=8, grids=6, held_outs=4, before=1.5)
SECOND = Plan(images=1600, steps=200, batch=8, grids=3, held_outs=0, since=80)


def test_a_course_knows_the_plan_of_each_step() -> None:
    course = Course((FIRST, SECOND))
    assert [course.before(images) for images in (0, 8, 80, 88, 1600)] == [FIRST, FIRST, FIRST, SECOND, SECOND]
    assert [course.starting_at(images) for images in (0, 72, 80, 88)] == [None, None, SECOND, None]


def test_a_course_comes_back_from_its_table() -> None:
    course = Course((FIRST, SECOND), checked=120)
    assert read_course(course.to_table()) == course
    assert read_course(vars(FIRST)) == Course((FIRST,))  # as version 1 wrote it


@pytest.mark.parametrize(
    "change",
    [
        {"images": "800"}, {"steps": 0}, {"grids": -1}, {"revisions": 3}, {"revisions": [3]}, {"checked": None},
        {"revisions": [{"images": 8}]}, {"batch": True},
    ],
)  # fmt: skip
def test_what_is_no_course_is_none(change: dict[str, object]) -> None:
    assert read_course(vars(FIRST) | change) is None
    assert read_course(None) is None
