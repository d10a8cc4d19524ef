"""Training on after the planned end, with more images or a longer budget than was planned, or with other values.

At n images of N planned, a run that is to end at N' > N goes on

1. as if N' had been planned from the start, where the learning rate up to n does not depend on the length: with the
   decay `constant`, and with `late` before 70 % of N;
2. otherwise in a new phase, from n to N': the rate rises from 0 over 5 % of it and decays again as it did
   (`optim.learning_rate` with S = n). Optimiser and average go on as they are.

The request is recorded in plan.json before a step depends on it, so a run that was cut off goes on to the same end,
with the same bits, from whichever checkpoint: what came before n follows the plan of before. The same request is not
added twice: while a run is on its way to what `+1M` asked for, `+1M` resumes it.

Values that change neither tensors nor images nor random keys, such as the learning rate, may be changed on the way
(`config.may_change`). They hold from the newest checkpoint on; plan.json keeps what was before, for the steps before.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sfumato.config.config import Config, to_dict
from sfumato.config.units import parse_count, parse_seconds
from sfumato.errors import UserError
from sfumato.run.folder import Run
from sfumato.run.plan import Course, Plan
from sfumato.train import checkpoint
from sfumato.train.budget import MONITORING, Speed, described, longest, rate_is_free

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class More:
    """A request for another length.

    Attributes:
        images: a number of images, or None.
        seconds: a budget, or None.
        added: whether it comes on top of what was planned, or spent; else it is the whole.
    """

    images: int | None = None
    seconds: float | None = None
    added: bool = False

    @classmethod
    def parse(cls, images: str | None, budget: str | None) -> More | None:
        """Read `500k` or `+500k`, or `1h` or `+1h`; None for neither. Raises `UserError` for both, or text that is no
        number of images or length of time."""
        if images is not None and budget is not None:
            raise UserError("--budget and --images both say how long to train: give one")
        text = images if images is not None else budget
        if text is None:
            return None
        added, rest = text.strip().startswith("+"), text.strip().removeprefix("+")
        if images is not None:
            return cls(images=parse_count(rest), added=added)
        return cls(seconds=parse_seconds(rest), added=added)

    @property
    def asked(self) -> str:
        """The request as plan.json keeps it."""
        plus = "+" if self.added else ""
        return f"images {plus}{self.images}" if self.images is not None else f"budget {plus}{self.seconds:g}"


def other_length(config: Config, old: Config) -> More | None:
    """Return the length by which a configuration differs from the one that a run was begun with, None where it does
    not."""
    new, begun = config.train, old.train
    if new.budget is not None and new.budget != begun.budget:
        return More(seconds=new.budget)
    if new.images not in (None, begun.images):
        return More(images=new.images)
    return None


def with_length_of(config: Config, begun: Config) -> Config:
    """Return a configuration with the length and the budget that a run was begun with."""
    return replace(config, train=replace(config.train, images=begun.train.images, budget=begun.train.budget))


def extended(
    more: More, config: Config, run: Run, course: Course, began: float, measured: Callable[[], Speed]
) -> Course:
    """Return the course of a run that is to be trained for longer; the same one where it goes that far already.

    Args:
        more: the request.
        config: of the run.
        run: the run, whose newest good checkpoint is where the course changes.
        course: its plans so far.
        began: `time.perf_counter()` when the command began.
        measured: measures the speed; called only for a budget.

    Raises:
        UserError: the request is for less than was planned, or spent.
    """
    if _is_begun_with(more, config) or _is_under_way(more, run, course):
        return course
    position = checkpoint.last_good(run)
    images, seconds = (0, 0.0) if position is None else (position.images, position.seconds)
    last, train = course.last, config.train
    free = rate_is_free(config.optim.decay, last, images)
    base = replace(
        Plan(last.images, last.steps, last.batch, train.grids, train.held_outs),
        since=images,
        start=last.start if free else images,
        asked=more.asked,
    )
    if more.images is not None:
        total = more.images + (last.steps * last.batch if more.added else 0)
        plan = replace(base, images=total, steps=-(-total // last.batch))
    else:
        plan = _within_budget(more, config, run, base, seconds, measured, course.plans[0].before, began)
    if plan.steps == last.steps:
        return course
    if plan.steps < last.steps:
        what = "that" if more.images is not None else f"that budget, in which {plan.images:,} images fit,"
        raise UserError(
            f"{run.path} is planned for {last.steps * last.batch:,} images, more than {what}: leave the length "
            "out to go on to its planned end, or add to it (such as --images +500k)"
        )
    return course.extended(plan)


def changed(old: Config, config: Config, run: Run, course: Course, changes: str) -> Course:
    """Return the course of a run that goes on with another configuration from its newest good checkpoint on.

    Args:
        old: the configuration of config.toml.
        config: the other one; grids and held-out losses are planned anew where it has other numbers of them.
        run: the run.
        course: its plans so far.
        changes: the difference in words.

    Raises:
        UserError: the run is finished, so no step would be taken by the new values.
    """
    if is_finished(run, course):
        raise UserError(
            f"{run.path} is finished ({changes} would change nothing): add a length, such as --images +500k"
        )
    position = checkpoint.last_good(run)
    since = 0 if position is None else position.images
    looks = config.train.grids, config.train.held_outs
    if looks != (old.train.grids, old.train.held_outs):
        plan = course.last
        course = course.extended(replace(plan, grids=looks[0], held_outs=looks[1], since=max(since, plan.since)))
    return course.changed(since, changes, to_dict(old))


def is_finished(run: Run, course: Course) -> bool:
    """Whether a run has reached its planned end, or has ended before since it overfitted (`train.stop`)."""
    finished = run.read(run.finished_path)
    if finished is None:
        return False
    return bool(finished.get("overfits")) or finished.get("images") == course.last.steps * course.last.batch


def _is_begun_with(more: More, config: Config) -> bool:
    """Whether it is the length that the run was begun with: the command that began it resumes it."""
    whole = (more.images, more.seconds) in ((config.train.images, None), (None, config.train.budget))
    return whole and not more.added


def _is_under_way(more: More, run: Run, course: Course) -> bool:
    """Whether the run goes that far already: an addition is under way until it is finished."""
    if more.added:
        return more.asked == course.last.asked and not is_finished(run, course)
    return more.asked in [plan.asked for plan in course.plans]


def _within_budget(
    more: More,
    config: Config,
    run: Run,
    base: Plan,
    spent: float,
    measured: Callable[[], Speed],
    before: float,
    began: float,
) -> Plan:
    """Return the longest plan within a budget, of the run's whole time or of what is added to it."""
    assert more.seconds is not None
    spent_before = before + spent
    if not more.added and more.seconds <= spent_before:
        raise UserError(
            f"{run.path} has been trained for {spent_before:.0f}s, which a budget of {more.seconds:g}s in all does not "
            f"cover: write --budget +{more.seconds:g}s to go on for so long"
        )
    speed = measured()
    starting = time.perf_counter() - began
    clock = starting - spent if more.added else starting + before  # what the budget counts, less the time of training
    train = replace(config.train, budget=more.seconds, least_images=0)
    step, elapsed = base.since // base.batch, clock + spent
    plan = longest(train, speed, elapsed, MONITORING, replace(base, before=clock, budget=more.seconds), step)
    return described(plan, speed, elapsed + speed.left(plan, step))
