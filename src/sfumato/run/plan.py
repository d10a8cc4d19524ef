"""The plan of a run: its length, and the steps after which grids are sampled and held-out losses taken.

A run that keeps a budget corrects its plan by the clock, which no run can repeat. So plan.json records each correction
with the images seen when it came into force, and up to where the clock was asked: a run that resumes, from whichever
checkpoint, takes every step by the plan that the first one took it by.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

_COUNTS = {"images": 1, "steps": 1, "batch": 1, "grids": 0, "held_outs": 0, "since": 0, "start": 0}
"""The least value of each whole number of a plan."""


@dataclass(frozen=True)
class Plan:
    """The planned length of a run, and what it was planned from.

    Attributes:
        steps: the same in steps of `batch` images, the last batch full.
        grids: number of sample grids.
        held_outs: number of held-out losses, besides the one before the first step.
        seconds: planned duration of the whole run; None, as the measured speeds, where none was measured.
        before: seconds that passed before training began, which count in a budget.
        since: images seen when the plan came into force.
        start: images from which the learning rate's warm-up and decay are counted: above 0 where a run was extended
            after its decay had begun.
        asked: the request that extended the run, such as `images +1000000`; empty in a plan that nobody extended.
        budget: seconds of the budget that the run was extended by; None where it was extended by images.
    """

    images: int
    steps: int
    batch: int
    grids: int
    held_outs: int
    seconds: float | None = None
    images_per_second: float | None = None
    grid_seconds: float | None = None
    held_out_seconds: float | None = None
    before: float = 0.0
    since: int = 0
    start: int = 0
    asked: str = ""
    budget: float | None = None

    def __repr__(self) -> str:
        lasting = "" if self.seconds is None else f" in {self.seconds:.0f} s"
        return f"<{self.images:,} images{lasting}: {self.steps:,} steps of {self.batch}>"

    @property
    def grid_steps(self) -> list[int]:
        """Steps after which a grid is sampled: the first ones close together, evenly spaced in an extension."""
        return self._in_extension(self.grids) if self.start else geometric(self.steps, self.grids)

    @property
    def held_out_steps(self) -> list[int]:
        """Steps after which the held-out loss is taken."""
        return self._in_extension(self.held_outs) if self.start else regular(self.steps, self.held_outs)

    def _in_extension(self, count: int) -> list[int]:
        """Evenly spaced steps from the start of an extension, which is left out, to the end."""
        first = self.start // self.batch
        return [first + step for step in regular(self.steps - first, count)[1:]]

    def looks_after(self, step: int) -> tuple[int, int]:
        """Return how many grids and held-out losses are due after a step."""
        return sum(k > step for k in self.grid_steps), sum(k > step for k in self.held_out_steps)


@dataclass(frozen=True)
class Change:
    """Values of the configuration that were changed while the run was under way.

    Attributes:
        since: images seen when the new ones came into force.
        text: the difference, as `optim.lr 0.001 -> 0.0001`.
        was: the whole configuration of before, as JSON has it.
    """

    since: int
    text: str
    was: dict[str, Any]


@dataclass(frozen=True)
class Course:
    """The plans of a run in order: the first, and those that replaced it; and changes of the configuration.

    Attributes:
        plans: at least one; `since` rises.
        checked: images up to which the clock was asked whether to replace the plan: it is not asked there again.
        changes: in order; config.toml has the configuration after the last.
    """

    plans: tuple[Plan, ...]
    checked: int = 0
    changes: tuple[Change, ...] = ()

    @property
    def last(self) -> Plan:
        """The plan that leads to the end."""
        return self.plans[-1]

    def extended(self, plan: Plan) -> Course:
        """Return the course with a plan that holds from its `since` on, in place of what was planned for later."""
        kept = [old for old in self.plans[1:] if old.since < plan.since]
        return replace(self, plans=(self.plans[0], *kept, plan), checked=plan.since)

    def changed(self, since: int, text: str, config: dict[str, Any]) -> Course:
        """Return the course with a change from `config`, the one in config.toml, when `since` images have been seen, in
        place of changes that were to come later."""
        kept = tuple(change for change in self.changes if change.since <= since)
        later = self.changes[len(kept) :]
        return replace(self, changes=(*kept, Change(since, text, later[0].was if later else config)))

    def config_before(self, images: int) -> dict[str, Any] | None:
        """Return the configuration by which the step that ended at `images` was taken; None for config.toml's."""
        return next((change.was for change in self.changes if change.since >= images), None)

    def changes_at(self, images: int) -> list[Change]:
        """Return the changes that come into force when `images` have been seen."""
        return [change for change in self.changes if change.since == images]

    def before(self, images: int) -> Plan:
        """Return the plan by which the step that ended at `images` was taken."""
        return next((plan for plan in reversed(self.plans) if plan.since < images), self.plans[0])

    def starting_at(self, images: int) -> Plan | None:
        """Return the plan that replaces another when `images` have been seen; None where none does."""
        return next((plan for plan in reversed(self.plans[1:]) if plan.since == images), None)

    def to_table(self) -> dict[str, Any]:
        """Return the JSON-able content of plan.json."""
        first, *revisions = (dict(vars(plan)) for plan in self.plans)
        changes = [dict(vars(change)) for change in self.changes]
        return first | {"checked": self.checked, "revisions": revisions} | ({"changes": changes} if changes else {})


def read_course(table: Mapping[str, Any] | None) -> Course | None:
    """Return the inverse of `Course.to_table`; None for None and for what can't be one."""
    if table is None:
        return None
    try:
        tables = [table, *table.get("revisions", ())]
        names = [field.name for field in fields(Plan)]
        plans = tuple(Plan(**{name: t[name] for name in names if name in t}) for t in tables)
        changes = tuple(Change(c["since"], str(c["text"]), dict(c["was"])) for c in table.get("changes", ()))
        course = Course(plans, table.get("checked", 0), changes)
    except (TypeError, AttributeError, KeyError, ValueError):
        return None
    counts = [(getattr(plan, name), least) for plan in plans for name, least in _COUNTS.items()]
    valid = all(
        type(value) is int and value >= least
        for value, least in [*counts, (course.checked, 0), *((change.since, 0) for change in changes)]
    )
    return course if valid else None


def geometric(steps: int, count: int, first: float = 1 / 32) -> list[int]:
    """Return geometrically spaced steps from `first` (a fraction of the run) to `steps`: most changes happen early.

    Fewer than `count` come back where two coincide in a short run.
    """
    if count <= 1:
        return [steps] * count
    return sorted({math.ceil(steps * first ** (1 - i / (count - 1))) for i in range(count)})


def regular(steps: int, count: int) -> list[int]:
    """Return 0 and `count` evenly spaced steps, the last of them `steps`; nothing for count = 0."""
    return sorted({math.ceil(steps * i / count) for i in range(count + 1)}) if count else []
