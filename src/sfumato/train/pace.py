"""The pace of a session: what its steps, grids, held-out losses and saves take, and the plan that follows from it.

A correction is recorded in plan.json before a step depends on it, and the position up to which the clock was asked with
the next checkpoint. The rule is in `budget`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace

from sfumato.config.config import Config
from sfumato.run.events import Replanned
from sfumato.run.folder import Run
from sfumato.run.plan import Course
from sfumato.train.budget import Speed, corrected, spacing

SAVING_FRACTION = 1 / 20
"""Fraction of the time that saving may take."""


class Pace:
    """The plans of a run while it trains, and the speed that they are corrected by.

    Args:
        config: without a budget the plan is never corrected.
        run: where plan.json is.
        course: the plans so far.
        warn: called where plan.json can't be written.

    Attributes:
        plan: the plan in force.
        stops: steps after which `check` must be called.
    """

    def __init__(self, config: Config, run: Run, course: Course, warn: Callable[[str], None]) -> None:
        self.run, self.warn = run, warn
        self.course = self._written = course
        self.adopt(config)
        self.plan = plan = course.plans[0]
        self.grid, self.held_out, self.save = plan.grid_seconds or 0.0, plan.held_out_seconds or 0.0, 0.0
        self._paused, self._begun = 0.0, 0
        self._marks: deque[tuple[int, float]] = deque(maxlen=3)
        self._set_stops()

    def adopt(self, config: Config) -> None:
        """Go on with another configuration; the length or the budget that was asked for last is in force."""
        self.config, last = config, self.course.last
        if last.asked:
            self.config = replace(config, train=replace(config.train, budget=last.budget, least_images=0))

    def resume(self, images: int) -> None:
        """Return to the plan by which the step that ended at `images` was taken."""
        self.plan = self.course.before(images)
        self._begun = images // self.plan.batch

    def pause(self, name: str, seconds: float) -> None:
        """Note the duration of a `grid`, `held_out` or `save`, in which no step was taken."""
        setattr(self, name, seconds)
        self._paused += seconds

    def check(self, step: int, seconds: float) -> Replanned | None:
        """Ask the clock where that is due, and return the change of plan, if another one holds from here on.

        Args:
            step: steps taken.
            seconds: spent training, earlier sessions included.
        """
        images, former = step * self.plan.batch, self.plan
        due = self.config.train.budget is not None and step >= self._next and images > self.course.checked
        if step > self._begun and (due or not self._marks):  # not before the first step, which is slow
            self._marks.append((step, seconds - self._paused))
        if due:
            self._record(step, self.course.last.before + seconds + self.save)
        plan = self.course.starting_at(images)
        if plan is None:
            return None
        self.plan = plan
        return Replanned(images, plan, former.images)

    def _record(self, step: int, elapsed: float) -> None:
        """Correct the plan by the clock, and record that; where that fails the plan stays."""
        course = corrected(self.config, self.course, step, elapsed, self.speed())
        former, self.course = self.course, course
        if course.plans != former.plans:
            try:
                self.save_course()
            except OSError as error:
                self.warn(f"{self.run.plan_path} can't be written ({error.strerror}); the planned length stays")
                self.course = replace(former, checked=course.checked)
        self._set_stops()

    def save_course(self) -> None:
        """Write plan.json, where it is not written yet; called before each checkpoint too, so that what leads to a
        checkpoint is recorded whole. Raises `OSError`."""
        if self.course != self._written:
            self.run.write(self.run.plan_path, self.course.to_table())
            self._written = self.course

    def _set_stops(self) -> None:
        plan = self.course.last
        self._next = self.course.checked // plan.batch + spacing(plan)
        sinces = [plan.since for plan in self.course.plans] + [change.since for change in self.course.changes]
        recorded = {since // plan.batch for since in sinces}
        self.stops = recorded if self.config.train.budget is None else {self._next, *recorded}

    def speed(self) -> Speed | None:
        """Return the speed since the last check but one, saving spread over the steps; None after too few steps."""
        if len(self._marks) < 2 or self._marks[-1][0] - self._marks[0][0] < spacing(self.plan) // 2:
            return None
        (first, start), (last, end) = self._marks[0], self._marks[-1]
        step = max((end - start) / (last - first), 1e-9)  # a coarse clock may not have moved
        saving = self.save / (self.saving_interval or step)
        return Speed(step * (1 + saving), self.grid, self.held_out)

    @property
    def saving_interval(self) -> float:
        """Seconds between two saves, so many that they take a twentieth of the time at most; 0 saves every step."""
        wait = self.config.train.save_every
        return max(wait, self.save / SAVING_FRACTION) if wait else 0.0
