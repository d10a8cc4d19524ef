"""From a budget of time to a length, before training starts and again while it runs.

With s seconds a step, g a sample grid, h a held-out loss and e seconds elapsed, the steps that fit a budget are

    steps = ( 0.98 budget - e - grids * g - held_outs * h ) / s

Grids and held-out losses get at most a quarter of the time left: where they cost more there are fewer of them, down to
the last grid, and the held-out losses of the beginning and the end: what was trained is always measured.

The speed is measured again while the run goes on, at each fortieth of the planned length. Where the run would end more
than 2 % of the budget too early or too late, the plan is replaced:

1. Before the learning rate's decay has begun (never with `constant`, at 70 % of the plan with `late`) the length
   becomes what fits, and never so short that the decay should have begun already. A run that is late gives grids and
   held-out losses a twentieth of the time left first, so that training is shortened last.
2. Later, and with the other decays, which depend on the length from the first step on, the length stays. A run that is
   late drops grids and held-out losses until it fits; the last of each stays.

What has been done is the same under the old and the new plan; the correction is recorded with its position
(`run.plan.Course`) before the next step is taken.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from sfumato.config.config import Config
from sfumato.config.train import TrainConfig
from sfumato.config.units import duration, suggested
from sfumato.errors import UserError
from sfumato.run.plan import Course, Plan
from sfumato.train.optim import LATE

AIM = 0.98
"""Fraction of a budget that is planned; the rest is for the checkpoints, the last of which is the last thing done."""
TOLERANCE = 0.02
"""Fraction of the budget by which the expected end may differ from the planned one before the plan is replaced."""
MONITORING, LATE_MONITORING = 0.25, 0.05
"""Fraction of the time left that grids and held-out losses may take; and where a run is late."""
STRETCH = 3.0
"""How many times the budget a run may take to see `train.least_images`."""
MIN_STEPS = 10
CHECKS, MIN_SPACING = 40, 5
"""Checks in a planned length, and the least number of steps between two."""
FREE = {"constant": 1.0, "late": 1 - LATE}
"""Fraction of the planned length up to which the learning rate does not depend on the length, after its warm-up."""


@dataclass(frozen=True)
class Speed:
    """Seconds that a step, a sample grid (two, where raw grids are drawn) and a held-out loss take on this machine."""

    step: float
    grid: float
    held_out: float

    def looks(self, plan: Plan, after: int = -1) -> float:
        """Seconds that a plan's grids and held-out losses take, those due after a step."""
        grids, held_outs = plan.looks_after(after)
        return grids * self.grid + held_outs * self.held_out

    def left(self, plan: Plan, step: int) -> float:
        """Seconds from a step to the end of a plan."""
        return (plan.steps - step) * self.step + self.looks(plan, step)


def plan_for(config: TrainConfig, speed: Speed, elapsed: float) -> Plan:
    """Return the longest plan within `config.budget`, of which `elapsed` seconds are spent.

    Raises `UserError` where the budget has no time for ten steps; the message suggests a longer one.
    """
    assert config.budget is not None
    plan = longest(config, speed, elapsed, MONITORING, Plan(0, 0, config.batch, 0, 0))
    if plan.steps < MIN_STEPS:
        stretched = config.budget * (STRETCH if config.least_images else 1)
        if elapsed + MIN_STEPS * speed.step > stretched:
            enough = 2 * (elapsed + 2 * MIN_STEPS * speed.step + speed.grid + 2 * speed.held_out) / AIM
            before = f"{duration(elapsed)} passed before training, and " if elapsed >= 0.05 else ""
            step = duration(speed.step) if speed.step >= 1 else f"{speed.step:.2g} s"
            raise UserError(
                f"a budget of {duration(config.budget)} is too short: {before}a step takes {step}; "
                f"give --budget {suggested(enough)}"
            )
        plan = replace(plan, steps=MIN_STEPS, grids=min(1, config.grids), held_outs=min(1, config.held_outs))
    seconds = elapsed + plan.steps * speed.step + speed.looks(plan)
    return replace(described(plan, speed, seconds), before=elapsed)


def longest(config: TrainConfig, speed: Speed, elapsed: float, share: float, base: Plan, step: int = 0) -> Plan:
    """Return the longest plan that fits the budget when `step` steps have been taken in `elapsed` seconds, or, where it
    would see less than `config.least_images`, a budget up to `STRETCH` times as long.

    Args:
        share: fraction of the time left that grids and held-out losses may take.
        base: the plan of which length, grids and held-out losses are replaced.
    """
    assert config.budget is not None
    least = math.ceil(config.least_images / config.batch)
    plan = _fitting(config, speed, AIM * config.budget - elapsed, share, base, step)
    if plan.steps >= least:
        return plan
    stretched = _fitting(config, speed, STRETCH * AIM * config.budget - elapsed, share, base, step)
    return replace(stretched, steps=max(plan.steps, min(least, stretched.steps)))


def _fitting(config: TrainConfig, speed: Speed, left: float, share: float, base: Plan, step: int) -> Plan:
    """Return the longest plan from a step that takes `left` seconds, with as many looks as `share` of them allow."""
    plan = replace(base, steps=step)
    for grids, held_outs in _looks(config):
        plan, cost = replace(plan, grids=grids, held_outs=held_outs), 0.0
        for _ in range(3):  # which looks are still due depends on the length, hardly
            plan = replace(plan, steps=max(step + 1, step + int((left - cost) / speed.step)))
            cost = speed.looks(plan, step or -1)
        if cost <= share * left:
            break
    return plan


def _looks(config: TrainConfig) -> list[tuple[int, int]]:
    """Numbers of grids and held-out losses, from all to the last of each."""
    totals = (config.grids, config.held_outs)
    parts = max(1, *totals)
    pairs = ([max(min(1, total), part * total // parts) for total in totals] for part in range(parts, -1, -1))
    return [(grids, held_outs) for grids, held_outs in pairs]


def described(plan: Plan, speed: Speed, seconds: float) -> Plan:
    """Return a plan with its length in images, its duration, and the speeds it was planned from."""
    return replace(
        plan,
        images=plan.steps * plan.batch,
        seconds=seconds,
        images_per_second=plan.batch / speed.step,
        grid_seconds=speed.grid,
        held_out_seconds=speed.held_out,
    )


def spacing(plan: Plan) -> int:
    """Return the number of steps between two checks of the clock."""
    return max(MIN_SPACING, math.ceil(plan.steps / CHECKS))


def rate_is_free(decay: str, plan: Plan, images: int) -> bool:
    """Whether the learning rate up to so many images does not depend on a plan's length, its warm-up left out."""
    return images <= plan.start + FREE.get(decay, 0.0) * (plan.images - plan.start)


def corrected(config: Config, course: Course, step: int, elapsed: float, speed: Speed | None) -> Course:
    """Return the course after a check of the clock: with another plan where the run would miss its budget.

    Args:
        config: with a budget.
        course: the plans so far; the last one holds.
        step: steps taken.
        elapsed: seconds of the budget that are spent, the last save included.
        speed: None where it is not known; then the plan stays.
    """
    plan, budget = course.last, config.train.budget
    assert budget is not None
    kept = replace(course, checked=step * plan.batch)
    if speed is None:
        return kept
    end, aim = elapsed + speed.left(plan, step), _aim(config.train, plan)
    late = end > aim + TOLERANCE * budget
    free, first = FREE.get(config.optim.decay, 0.0), plan.start // plan.batch
    if step < first + free * (plan.steps - first):
        new = longest(config.train, speed, elapsed, LATE_MONITORING if late else MONITORING, plan, step)
        new = replace(new, steps=max(new.steps, first + math.ceil((step - first) / free)))
    elif late:
        new = _thinned(plan, config.train, speed, aim - elapsed, step)
    else:
        return kept
    new_end = elapsed + speed.left(new, step)
    if abs(new_end - end) <= TOLERANCE * budget:
        return kept
    new = replace(described(new, speed, new_end), since=kept.checked)
    return replace(kept, plans=(*course.plans, new))


def _aim(config: TrainConfig, plan: Plan) -> float:
    """Return the seconds after which a run should end: its budget's, or what it was stretched to."""
    assert config.budget is not None
    if plan.images > config.least_images or plan.seconds is None:
        return AIM * config.budget
    return AIM * min(max(config.budget, plan.seconds), STRETCH * config.budget)


def _thinned(plan: Plan, config: TrainConfig, speed: Speed, left: float, step: int) -> Plan:
    """Return a plan of the same length with as many of its looks as fit `left` seconds, the last of each at least."""
    thinner = plan
    for grids, held_outs in _looks(config):
        thinner = replace(plan, grids=min(grids, plan.grids), held_outs=min(held_outs, plan.held_outs))
        if speed.left(thinner, step) <= left:
            break
    return thinner
