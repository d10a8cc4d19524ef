"""A training from its start or a checkpoint to its end or an interruption, as a generator of events (`loop`)."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import closing
from functools import partial

import torch

from sfumato.config.config import Config, from_stored, to_dict
from sfumato.data import Dataset
from sfumato.errors import UserError, one_line
from sfumato.files import Lock, write_atomic
from sfumato.generate.pictures import grid
from sfumato.generate.writers import save_png
from sfumato.model import load
from sfumato.ranks import World
from sfumato.run.events import (
    Changed,
    Event,
    Finished,
    HeldOut,
    Initialised,
    Sampled,
    Skipped,
    Started,
    Stepped,
    Warned,
)
from sfumato.run.folder import Run
from sfumato.run.log import EventLog
from sfumato.run.plan import Course, Plan
from sfumato.run.sinks import Sinks
from sfumato.train import checkpoint
from sfumato.train.interrupt import holding
from sfumato.train.lineage import unlearning
from sfumato.train.metrics import Meter, by_level, memory_in_use
from sfumato.train.pace import Pace
from sfumato.train.requests import Requests
from sfumato.train.saver import Saver
from sfumato.train.snapshots import Snapshots
from sfumato.train.trainer import Trainer
from sfumato.train.trouble import describe

Events = Generator[Event, None, None]

MAX_SKIPS = 10
"""Steps in a row without a finite gradient after which the run ends."""
WINDOW = 16
"""Steps between two reports on a GPU, which has to wait for each."""


class Session:
    """A training from its start or a checkpoint to its end or an interruption."""

    def __init__(
        self,
        config: Config,
        run: Run,
        data: Dataset,
        device: torch.device,
        course: Course,
        lock: Lock | None = None,
        world: World = World(),
    ) -> None:
        self.start = time.perf_counter()
        self.config, self.run, self.data = config, run, data
        self.trainer = Trainer(config, data, device, world)
        self.warnings: list[str] = list(self.trainer.warnings())
        self.pace = Pace(config, run, course, self.warnings.append)
        self.log, self.meter = EventLog(run.events_path, self.warnings.append, self._pass_on), Meter(device)
        self.sinks: Sinks | None = None
        self.window = 1 if device.type == "cpu" else WINDOW
        self.earlier = 0.0  # seconds spent in earlier sessions
        self.went_back_to = 0  # the checkpoint that a streak of skipped steps has led back to
        self.overfits = self.unlearns = False
        self.requests, self.snapshots = Requests(run), Snapshots(run, self.trainer)
        self.saver = Saver(run, self.trainer, self.log, self.pace, self.warnings, lock)
        self._follow_plan()

    @property
    def images(self) -> int:
        """Images seen."""
        return self.trainer.images

    @property
    def step(self) -> int:
        """Steps taken."""
        return self.images // self.config.train.batch

    @property
    def seconds(self) -> float:
        """Seconds spent training, earlier sessions included."""
        return self.earlier + time.perf_counter() - self.start

    @property
    def plan(self) -> Plan:
        """The plan in force."""
        return self.pace.plan

    def _follow_plan(self) -> None:
        """Take length, held-out losses and grids from the plan in force."""
        self.trainer.planned, self.trainer.phase = self.plan.images, self.plan.start
        self.held_outs = set(self.plan.held_out_steps) if len(self.data.held_out) else set()
        self.grids = set(self.plan.grid_steps)

    def recorded(self, accept_changes: bool) -> Events:
        """Yield the session's events, each after it was written to the log, and the warnings that came up."""
        with closing(self._events(accept_changes)) as events, self.requests.listening():
            try:
                while True:
                    with holding():  # on Ctrl-C the step is finished; then `closing` saves
                        if (event := next(events, None)) is None:
                            break
                        self.log.write(event)
                    yield event
                    while self.warnings:
                        warning = Warned(event.images, self.warnings.pop(0))
                        self.log.write(warning)
                        yield warning
            finally:
                self.log.close()
                if self.sinks is not None:
                    self.sinks.close()

    def _pass_on(self, event: Event) -> None:
        """Pass a line of the log on to other tools."""
        names = self.config.train.log
        if names and self.sinks is None:
            table, used = to_dict(self.config), partial(memory_in_use, self.trainer.device)
            self.sinks = Sinks(names, self.run, table, self.images, self.warnings.append, used)
        if self.sinks is not None:
            self.sinks.take(event)

    def _events(self, accept_changes: bool) -> Events:
        """Resume, train, save; on being closed between two steps, save."""
        if (position := self.saver.resume(accept_changes)) is not None:
            self.earlier = position.seconds
            self._return_to(position.images)
        try:
            yield Started(self.pace.course.starting_at(self.images) or self.plan, self.images)
            if position is None:
                yield from self._begin_with_weights()
            while True:
                yield from self._look()
                yield from self._replan()
                if self.step >= self.plan.steps or self.overfits:
                    break
                yield from self._requested()
                if self.saver.is_due():
                    failure = self.saver.try_save(self.seconds)
                    yield Warned(self.images, failure) if failure else self.saver.event()
                yield from self._steps()
        except GeneratorExit:
            if self.saver.save_last(self.seconds, self.step >= self.plan.steps):
                self.log.write(self.saver.event())
            raise
        if (skips := self.saver.skips) > 1:  # one bad batch may be the last; the weights before it are sound
            raise self.saver.diverged(f"the loss or gradient of the last {skips} steps was not finite")
        self.saver.save_last(self.seconds, ended=True)
        finished = Finished(self.images, self.seconds)
        yield self.saver.event()
        try:
            yield finished
        finally:  # after it was logged, else the log of a run cut off here would lack its last event
            self.run.write(
                self.run.finished_path,
                {"images": finished.images, "seconds": finished.seconds, "overfits": self.overfits},
            )

    def _begin_with_weights(self) -> Events:
        """Take over the weights that the run's lineage names, if any, and save that as the checkpoint of 0 images."""
        lineage = self.run.read(self.run.lineage_path) or {}
        if (source := lineage.get("init")) is None:
            return
        donor = load(source)
        if donor.sha256 != lineage.get("sha256"):
            raise UserError(f"{source} has changed since this run was begun with it: choose another --run")
        taken = self.trainer.begin_with(donor)
        self.saver.save(self.seconds)
        yield Initialised(0, source, str(taken))

    def _look(self) -> Events:
        """Compute the held-out loss, write the sample grids and a snapshot of the averages, where they are due."""
        if self.snapshots.is_due(self.step):
            try:
                self.snapshots.take(self.step)
            except OSError as error:
                self.warnings.append(
                    f"a snapshot of the averages was not written ({one_line(error)}); training continues"
                )
        looks = (("held_out", self.held_outs, self._held_out), ("grid", self.grids, self._sample))
        for name, steps, look in looks:
            if self.step in steps:
                start = self.seconds
                yield from look()
                self.pace.pause(name, self.seconds - start)

    def _replan(self) -> Events:
        """Change to the plan that holds from here on, if it is another."""
        if (change := self.pace.check(self.step, self.seconds)) is not None:
            self._follow_plan()
            yield change
        for values in self.pace.course.changes_at(self.images):
            yield Changed(self.images, values.text)
        self._adopt(self.images + 1)

    def _return_to(self, images: int) -> None:
        """Take values, length and snapshots from what was in force when so many images had been seen."""
        self._adopt(images)
        self.snapshots.resume(images)
        self._follow_plan()

    def _adopt(self, images: int) -> None:
        """Take over the configuration by which the step that ends at `images`, or later, is taken."""
        if not self.pace.course.changes:
            return
        table = self.pace.course.config_before(images)
        config = self.config if table is None else from_stored(table)
        if config != self.trainer.config:
            self.trainer.adopt(to_dict(config))
            self.pace.adopt(config)

    def _requested(self) -> Events:
        """Do what a user asked for meanwhile."""
        if self.requests.pending("sample"):
            yield from self._sample()
            self.requests.done("sample")
        if self.requests.pending("save") and self.images and not self.saver.skips:
            failure = self.saver.try_save(self.seconds, kept=True)
            yield Warned(self.images, failure) if failure else self.saver.event()
            self.requests.done("save")

    def _held_out(self) -> Events:
        """Compute the held-out loss, and keep the weights if it is the lowest so far."""
        losses = self.trainer.held_out()
        if losses is None:
            return
        self.saver.check_folder()
        trainer = self.trainer
        trainer.best, overfitting = trainer.best.update(losses.held_out.loss, losses.train, self.images)
        average = trainer.network().state_dict()
        best = trainer.best.images == self.images and checkpoint.not_finite({"ema": average}) is None
        if best:
            try:
                write_atomic(self.run.weights_file("best"), self.saver.packed("ema", average), parents=False)
            except OSError as error:
                self.warnings.append(f"the best weights were not written ({one_line(error)}); training continues")
        buckets, bound = by_level(losses.held_out), by_level(losses.bound)
        self.warnings += [overfitting] if overfitting else []
        if not self.unlearns and (said := unlearning(self.run, trainer.best, buckets.mean, self.config.optim.lr)):
            self.unlearns = True
            self.warnings.append(said)
        self.overfits = overfitting is not None and self.config.train.stop == "overfit"
        yield HeldOut(self.images, buckets.mean, buckets, self.seconds, losses.train, bound, best)

    def _sample(self) -> Events:
        """Write the sample grids."""
        kinds = ("ema", "raw") if self.trainer.config.train.raw_grids else ("ema",)
        for kind in kinds:
            self.saver.check_folder()
            pictures, seed = self.trainer.sample_grid(kind=kind), self.config.train.seed
            path = self.run.grid(self.images, kind)
            try:
                save_png(grid(pictures), path, {"images": self.images, "seed": seed, "weights": kind})
            except OSError as error:
                self.warnings.append(f"{path} can't be written ({error.strerror}); training continues")
            yield Sampled(self.images, kind, seed, self.seconds, pictures.numpy())

    def _steps(self) -> Events:
        """Take steps until a report, a held-out loss or a grid is due, and report them."""
        while True:
            metrics = self.trainer.step()
            self.meter.add(metrics, self.step)
            step = self.step
            due = step in self.held_outs or step in self.grids or step in self.pace.stops
            due = due or self.trainer.config.train.is_kept(self.images) or self.snapshots.is_due(step)
            if due or step % self.window == 0 or step >= self.plan.steps:
                break
        sums = self.meter.read()
        self.saver.skips = sums.in_a_row
        if sums.applied:
            loss, buckets = sums.buckets.mean, sums.buckets
            yield Stepped(self.images, step, loss, sums.grad_norm, metrics.lr, self.seconds, buckets, sums.applied)
        if sums.trouble is None:
            return
        reason = describe(self.trainer, sums.trouble)
        yield Skipped(self.images, sums.faults, sums.in_a_row, reason)
        if sums.in_a_row >= min(MAX_SKIPS, self.plan.steps):
            if sums.in_a_row == self.step:
                raise UserError(
                    f"the loss or gradient of all {self.step} steps so far was not finite: run 'sfumato data check' on "
                    "the images, look at the diffusion settings, and start another --run"
                )
            yield from self._go_back(f"the loss or gradient of {sums.in_a_row} steps in a row was not finite", reason)

    def _go_back(self, reason: str, last: str) -> Events:
        """Take the steps since the last checkpoint again, once: they fail again unless the machine was at fault."""
        if self.saver.saved_at <= self.went_back_to:
            again = ", again after going back to it: no passing fault of the machine" if self.went_back_to > 0 else ""
            raise self.saver.diverged(f"{reason}{again} (the last of them: {last})")
        position = self.saver.resume(accept_changes=True)
        assert position is not None, "there is a checkpoint"
        self.went_back_to, self.saver.skips, self.meter = position.images, 0, Meter(self.trainer.device)
        self._return_to(position.images)
        yield Started(self.plan, self.images)
        yield Warned(
            self.images, f"{reason} ({last}): back at the checkpoint of {position.images} images, to try again"
        )
