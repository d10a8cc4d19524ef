"""Training as a generator: it records the run and yields events. Closing it saves a checkpoint.

    for event in train(config, run, data):
        print(event)

The same call on the same run folder resumes at the newest good checkpoint, with the same bits as a run that was never
interrupted. A generator pauses at each `yield`, between two steps, so closing it there (a signal, a `break`) saves a
complete state. An exception in the middle of a step saves nothing: the last checkpoint remains. Nor is anything saved
while steps are being skipped, or with a value that is not finite: what is on disk is from before the trouble.

The order at n images is fixed: the step that ends there, the held-out loss and the grids that are due, a checkpoint. On
resuming at n, what is due at n is done (again) first, so nothing is missed and nothing counts twice.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import closing
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from sfumato import __version__
from sfumato.config.config import Config, digest
from sfumato.data import Dataset
from sfumato.errors import UserError
from sfumato.files import Lock, write_atomic
from sfumato.generate.pictures import grid
from sfumato.generate.sample import out_of_memory
from sfumato.generate.writers import save_png
from sfumato.model import packed
from sfumato.run.events import Event, Finished, HeldOut, Sampled, Saved, Skipped, Started, Stepped, Warned
from sfumato.run.folder import Run, changed_machine
from sfumato.run.log import EventLog, last_saved
from sfumato.run.plan import Course, Plan
from sfumato.train import checkpoint
from sfumato.train.checkpoint import Position
from sfumato.train.interrupt import holding
from sfumato.train.metrics import Meter, by_level
from sfumato.train.pace import Pace
from sfumato.train.plan import begin, resolve_length
from sfumato.train.trainer import Trainer
from sfumato.weights import tensors_of

Events = Generator[Event, None, None]

MAX_SKIPS = 10
"""Steps in a row without a finite gradient after which the run ends."""
WINDOW = 16
"""Steps between two reports on a GPU, which has to wait for each."""
_MUST_STAY = {"fingerprint": "the images", "torch": "the version of torch", "sfumato": "the version of sfumato"}


def train(
    config: Config,
    run: Run,
    data: Dataset,
    device: torch.device | str = "cpu",
    *,
    accept_changes: bool = False,
    began: float | None = None,
) -> Events:
    """Train, or resume, in a run folder, and record the events there.

    Args:
        config: where `train.images` is None, the length is planned from `train.budget` at the first start.
        run: the folder; created if missing, locked until the generator ends.
        data: the images.
        device: where to train.
        accept_changes: resume although the images or the versions differ from those of the checkpoint.
        began: `time.perf_counter()` when the budget began; now by default.

    Yields:
        Events, each after it was recorded; the first is `Started`, the last `Finished`.

    Raises:
        UserError: the folder belongs to another configuration, to another trainer, or lies inside the data; no length
            and no budget; no usable checkpoint; a training that has diverged; a last save that failed; a folder that
            was moved or deleted meanwhile.
    """
    began = time.perf_counter() if began is None else began
    device = torch.device(device)
    run.check_path(data.source_name)
    with run.locked() as lock:
        run.sweep()
        config, plan = resolve_length(config, run, data, device, began)
        course = begin(run, config, plan, device)
        finished = run.read(run.finished_path)
        if finished is not None and finished.get("images") == plan.steps * plan.batch:
            _publish_last(run, run.checkpoint(plan.steps * plan.batch))
            yield Finished(int(finished["images"]), float(finished.get("seconds", 0.0)), again=True)
            return
        try:
            yield from Session(config, run, data, device, course, lock).recorded(accept_changes)
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            half = max(1, config.train.batch // 2)
            raise UserError(f"out of memory: set --train.batch={half}, in another --run folder") from None


def _publish_last(run: Run, last: Path) -> None:
    """Have the weights files of a finished run be those of its last checkpoint, where that is still there."""
    if checkpoint.find_damage(last) is None and (reason := _publish(run, last)):
        raise UserError(f"{reason}: free space on the disk, and give the same command again")


def _publish(run: Run, folder: Path) -> str:
    """Copy a checkpoint's weights to the run's; return why they could not be written, empty where they were."""
    try:
        checkpoint.publish(run, folder)
    except OSError as error:
        return f"the weights files were not written ({error}); the checkpoint of {int(folder.name)} images stands"
    return ""


class Session:
    """A training from its start or a checkpoint to its end or an interruption."""

    def __init__(
        self, config: Config, run: Run, data: Dataset, device: torch.device, course: Course, lock: Lock | None = None
    ) -> None:
        self.start = self.save_clock = time.perf_counter()
        self.config, self.run, self.data, self.lock = config, run, data, lock
        self.trainer = Trainer(config, data, device)
        self.warnings: list[str] = list(self.trainer.warnings())
        self.pace = Pace(config, run, course, self.warnings.append)
        self.log, self.meter = EventLog(run.events_path, self.warnings.append), Meter(device)
        self.window = WINDOW if device.type == "cuda" else 1
        self.earlier = 0.0  # seconds spent in earlier sessions
        self.saved_at = -1
        self.skips = 0  # steps skipped since the last applied one
        self.stale = ""  # why the weights files are not those of the last checkpoint
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
        self.trainer.planned = self.plan.images
        self.held_outs = set(self.plan.held_out_steps) if len(self.data.held_out) else set()
        self.grids = set(self.plan.grid_steps)

    def recorded(self, accept_changes: bool) -> Events:
        """Yield the session's events, each after it was written to the log, and the warnings that came up."""
        with closing(self._events(accept_changes)) as events:
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

    def _events(self, accept_changes: bool) -> Events:
        """Resume, train, save; on being closed between two steps, save."""
        self._resume(accept_changes)
        try:
            yield Started(self.plan, self.images)
            while True:
                yield from self._look()
                yield from self._replan()
                if self.step >= self.plan.steps:
                    break
                if self.save_is_due():
                    yield from self._save_or_warn()
                yield from self._steps()
        except GeneratorExit:
            if self._save_or_fail():
                self.log.write(self._saved())
            raise
        if self.skips > 1:  # one bad batch may be the last; the weights before it are sound
            raise self._diverged(f"the loss or gradient of the last {self.skips} steps was not finite")
        self._save_or_fail()
        finished = Finished(self.images, self.seconds)
        yield self._saved()
        try:
            yield finished
        finally:  # after it was logged, else the log of a run cut off here would lack its last event
            self.run.write(self.run.finished_path, {"images": finished.images, "seconds": finished.seconds})

    def _look(self) -> Events:
        """Compute the held-out loss and write the sample grids, where they are due."""
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

    def _held_out(self) -> Events:
        """Compute the held-out loss, and keep the weights if it is the lowest so far."""
        losses = self.trainer.held_out()
        if losses is None:
            return
        self._check_folder()
        trainer = self.trainer
        trainer.best, overfitting = trainer.best.update(losses.held_out.loss, losses.train, self.images)
        average = trainer.ema.net.state_dict()
        best = trainer.best.images == self.images and checkpoint.not_finite({"ema": average}) is None
        if best:
            try:
                write_atomic(self.run.weights_file("best"), self._packed("ema", average), parents=False)
            except OSError as error:
                self.warnings.append(f"weights/best.safetensors was not written ({error}); training continues")
        buckets, bound = by_level(losses.held_out), by_level(losses.bound)
        self.warnings += [overfitting] if overfitting else []
        yield HeldOut(self.images, buckets.mean, buckets, self.seconds, losses.train, bound, best)

    def _sample(self) -> Events:
        """Write the sample grids."""
        kinds = ("ema", "raw") if self.config.train.raw_grids else ("ema",)
        for kind in kinds:
            self._check_folder()
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
            self.meter.add(metrics)
            step = self.step
            due = step in self.held_outs or step in self.grids or step in self.pace.stops
            if due or step % self.window == 0 or step >= self.plan.steps:
                break
        sums = self.meter.read()
        self.skips = sums.in_a_row
        if sums.applied:
            loss, buckets = sums.buckets.mean, sums.buckets
            yield Stepped(self.images, step, loss, sums.grad_norm, metrics.lr, self.seconds, buckets, sums.applied)
        if sums.applied < sums.steps:
            reason = "the loss or its gradient was not finite"
            yield Skipped(self.images, sums.steps - sums.applied, sums.in_a_row, reason)
        if sums.in_a_row >= min(MAX_SKIPS, self.plan.steps):
            if sums.in_a_row == self.step:
                raise UserError(
                    f"the loss or gradient of all {self.step} steps so far was not finite: run 'sfumato data check' on "
                    "the images, look at the diffusion settings, and start another --run"
                )
            raise self._diverged(f"the loss or gradient of {sums.in_a_row} steps in a row was not finite")

    def _diverged(self, reason: str) -> UserError:
        """Return the error for a training that can't go on, with what is left of it."""
        best = self.trainer.best.images
        kept = f"; weights/best.safetensors is of {best} images" if self.run.weights_file("best").exists() else ""
        return UserError(
            f"training has diverged: {reason}, up to image {self.images}; {self._last()}{kept}; start another --run "
            f"with an optim.lr lower than {self.config.optim.lr:g}"
        )

    def _last(self) -> str:
        return f"the last checkpoint is of {self.saved_at} images" if self.saved_at > 0 else "there is no checkpoint"

    def _check_folder(self) -> None:
        """Raise `UserError` where the run folder is no longer the one that was locked."""
        if self.lock is not None and not self.lock.is_in_place():
            raise UserError(
                f"{self.run.path} was moved or deleted (or its lock was) while it was being trained; {self._last()}: "
                "put it back, and give the same command again"
            )

    # --- checkpoints

    def _position(self) -> Position:
        return Position(
            images=self.images,
            step=self.step,
            seconds=self.seconds,
            config=digest(self.config),
            fingerprint=self.data.fingerprint,
            torch=torch.__version__,
            sfumato=__version__,
        )

    def _resume(self, accept_changes: bool) -> None:
        """Go back to the newest good checkpoint; without one, refuse to begin anew over what a training left."""
        newest = checkpoint.newest(self.run, self.warnings.append)
        logged = last_saved(self.run.events_path)
        if newest is None:
            if logged or self.run.has_results():
                raise UserError(
                    f"{self.run.path} was trained{f' on {logged} images' if logged else ''} and has no checkpoint: put "
                    "its checkpoints folder back, or choose a new --run"
                )
            return
        folder, position = newest
        if logged > position.images and not self.warnings:
            self.warnings.append(f"the checkpoint of {logged} images is gone: resuming from {position.images} images")
        present = self._position()
        for name, meaning in _MUST_STAY.items():
            old, new = getattr(position, name), getattr(present, name)
            if old != new and not accept_changes:
                raise UserError(
                    f"{meaning} changed since checkpoint {folder.name} ({old[:12]} -> {new[:12]}): "
                    f"restore the old one, or resume with --accept-changes"
                )
        self.trainer.load(checkpoint.load(folder, self.trainer.state()), position.images)
        self.earlier, self.saved_at = position.seconds, position.images
        self.pace.resume(position.images)
        self._follow_plan()
        self.warnings += list(
            filter(None, [_publish(self.run, folder), changed_machine(self.run, str(self.trainer.device))])
        )

    def save_is_due(self) -> bool:
        """Whether enough time has passed since the last save, and saving does not take too much of it."""
        if self.images in (0, self.saved_at) or self.skips:
            return False
        return time.perf_counter() - self.save_clock >= self.pace.saving_interval

    def _packed(self, kind: str, tensors: dict[str, Tensor]) -> bytes:
        return packed(tensors, self.config, self.trainer.codec, self.data.vocabulary, kind, self.images)

    def _save(self) -> None:
        """Write the log, then a checkpoint, then the weights files."""
        self._check_folder()
        start, state = time.perf_counter(), self.trainer.state()
        if bad := checkpoint.not_finite(state):
            raise self._diverged(f"{bad} has values that are not finite")
        weights = {kind: self._packed(kind, state[kind]) for kind in ("raw", "ema")}
        files = {**weights, "optim": safetensors.torch.save(tensors_of(state["optim"]))}
        self.log.sync()
        self.pace.save_course()
        folder = checkpoint.save(self.run, self._position(), {f"{name}.safetensors": files[name] for name in files})
        self.saved_at, self.stale = self.images, _publish(self.run, folder)
        self.save_clock = time.perf_counter()
        self.pace.pause("save", self.save_clock - start)

    def _saved(self) -> Saved:
        return Saved(self.images, self.run.checkpoint(self.images), self.pace.save)

    def _save_or_warn(self) -> Events:
        """Save; on failure warn and continue."""
        try:
            self._save()
        except OSError as error:
            self.save_clock = time.perf_counter()
            yield Warned(self.images, f"NOT SAVED at {self.images} images ({error}); training continues, will retry")
        else:
            self.warnings += [self.stale] if self.stale else []
            yield self._saved()

    def _save_or_fail(self) -> bool:
        """Save for the last time in this session, unless steps are being skipped; whether there was something to."""
        self._check_folder()
        if self.images == 0 or (self.skips and self.step < self.plan.steps):
            return False
        due = self.images != self.saved_at
        try:
            if due:
                self._save()
            elif self.stale:
                self.stale = _publish(self.run, self.run.checkpoint(self.saved_at))
        except OSError as error:
            raise UserError(
                f"could not save at {self.images} images ({error}); {self._last()}; free space on the disk and resume"
            ) from None
        if self.stale:
            raise UserError(f"{self.stale}: free space on the disk, and give the same command again")
        return due
