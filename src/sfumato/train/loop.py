"""Training as a generator: it yields what happened, and the caller logs, draws, and stops it by closing it.

    for event in train(config, run, data):
        print(event)

The same call on the same run folder resumes at the newest good checkpoint, and the bits are those of a run that was
never interrupted. A generator stands still at each `yield`, between two steps, so closing it there (a signal, a
`break`) saves a whole state. An exception that breaks into the middle of a step saves nothing: the last checkpoint
stands.

The order of things at n images is fixed: the step that ends there, the held-out loss and the grids that are due, a
checkpoint. On resuming at n, what is due at n comes (again) first, so nothing is missed and nothing counts twice.
"""

from __future__ import annotations

import os
import time
from collections.abc import Generator

import safetensors.torch
import torch
from torch import Tensor

from sfumato import __version__
from sfumato.config.config import Config, digest, to_toml
from sfumato.data import Dataset
from sfumato.errors import UserError
from sfumato.files import write_atomic
from sfumato.generate.sample import out_of_memory
from sfumato.model import packed
from sfumato.run.events import (
    Event,
    Finished,
    HeldOut,
    Sampled,
    Saved,
    Skipped,
    Started,
    Stepped,
    Warned,
)
from sfumato.run.folder import Run, environment
from sfumato.train import checkpoint
from sfumato.train.checkpoint import Position
from sfumato.train.clock import moments, regular
from sfumato.train.meter import Meter, summed
from sfumato.train.plan import Plan, settle
from sfumato.train.trainer import Learner, Scores
from sfumato.weights import tensors_of

__all__ = ["MOST_SKIPS", "train"]

Events = Generator[Event, None, None]

MOST_SKIPS = 10
"""So many steps in a row without a finite gradient end the run: it will not recover by itself."""
WINDOW = 16
"""Steps between two questions to a GPU, which has to stand still to answer."""
SAVING_SHARE = 20
"""Saving takes at most one part in so many of the time."""
_MUST_STAY = {
    "fingerprint": "the images",
    "torch": "the version of torch",
    "sfumato": "the version of sfumato",
}


def train(
    config: Config,
    run: Run,
    data: Dataset,
    device: torch.device | str = "cpu",
    *,
    accept_changes: bool = False,
) -> Events:
    """Train, or go on training, in a run folder.

    Args:
        config: what to train. With `train.images` None the length is planned from `train.budget` at the first start
            and then kept.
        run: the folder; made where there is none, locked while the generator lives.
        data: the images.
        device: where to train.
        accept_changes: resume although the data or torch's version is not what the checkpoint was made with.

    Yields:
        Events; the first is `Started`, the last `Finished`.

    Raises:
        UserError: the folder belongs to another configuration, to another trainer, or lies inside the data; no length
            and no budget; a checkpoint that can't be used; a training that has diverged; a last save that failed.
    """
    began = time.perf_counter()
    device = torch.device(device)
    run.check_place(data.source_name)
    with run.locked():
        run.sweep()
        config, plan = settle(config, run, data, device, began)
        _write_head(run, config, plan, device)
        finished = run.read(run.finished_path)
        if finished is not None and finished.get("images") == plan.steps * plan.batch:
            yield Finished(int(finished["images"]), float(finished.get("seconds", 0.0)), again=True)
            return
        try:
            yield from _Session(config, run, data, device, plan).events(accept_changes)
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            half = max(1, config.train.batch // 2)
            raise UserError(f"out of memory: try --train.batch={half}, in a new --run folder") from None


def _write_head(run: Run, config: Config, plan: Plan, device: torch.device) -> None:
    """Write what a run begins with; config.toml last, since it is what makes the folder a run."""
    try:
        if not run.exists():
            run.write(run.environment_path, environment(str(device)))
            run.write(run.plan_path, vars(plan))
            write_atomic(run.config_path, to_toml(config))
    except OSError as error:
        raise UserError(f"{run.path} can't be written: {error.strerror}; give --run another folder") from None


class _Session:
    """One stretch of training, from its start or a checkpoint to its end or an interruption."""

    def __init__(self, config: Config, run: Run, data: Dataset, device: torch.device, plan: Plan) -> None:
        self.config, self.run, self.data, self.plan = config, run, data, plan
        self.learner = Learner(config, data, device)
        self.meter = Meter(device)
        self.every = WINDOW if device.type == "cuda" else 1
        self.held_outs = set(regular(plan.steps, plan.held_outs)) if len(data.held_out) else set()
        self.grids = set(moments(plan.steps, plan.grids))
        self.saved_at = -1
        self.warnings: list[str] = []
        self.earlier = 0.0  # seconds spent training in earlier sessions
        self.start = self.save_clock = time.perf_counter()
        self.save_cost = 0.0

    @property
    def images(self) -> int:
        return self.learner.images

    @property
    def step(self) -> int:
        return self.images // self.config.train.batch

    @property
    def seconds(self) -> float:
        return self.earlier + time.perf_counter() - self.start

    def events(self, accept_changes: bool) -> Events:
        """Resume, train, save; on being closed between two steps, save."""
        self._resume(accept_changes)
        try:
            yield Started(self.plan, self.images)
            yield from self._told()
            yield from self._loop()
        except GeneratorExit:
            self._save_or_fail()
            raise
        self._save_or_fail()
        finished = Finished(self.images, self.seconds)
        yield Saved(self.images, self.run.checkpoints / f"{self.images:012d}", self.save_cost)
        try:
            yield finished
        finally:  # after whoever listens has heard of it, or else a run cut off here would never tell of its end
            self.run.write(self.run.finished_path, {"images": finished.images, "seconds": finished.seconds})

    def _loop(self) -> Events:
        """Look, save, step, until the planned length is reached."""
        while True:
            yield from self._looks()
            if self.step >= self.plan.steps:
                return
            if self._save_is_due():
                yield from self._save_or_warn()
            yield from self._steps()

    def _told(self) -> Events:
        """Yield the warnings that have gathered."""
        while self.warnings:
            yield Warned(self.images, self.warnings.pop(0))

    def _looks(self) -> Events:
        """Yield the held-out loss and the grids that are due now."""
        if self.step in self.held_outs and (scores := self.learner.held_out()) is not None:
            yield from self._passed(scores)
        if self.step in self.grids:
            for kind in ("ema", "raw") if self.config.train.raw_grids else ("ema",):
                yield Sampled(self.images, self.learner.draw(kind=kind), kind, self.config.train.seed, self.seconds)

    def _passed(self, scores: Scores) -> Events:
        """Report a held-out pass, keep the weights where it is the best so far, and say when learning turns to rote."""
        watch, best, warning = self.learner.watch.look(scores.held_out.loss, scores.train, self.images)
        self.learner.watch = watch
        if best:
            yield from self._keep_best()
        buckets, bound = summed(scores.held_out), summed(scores.bound)
        yield HeldOut(self.images, buckets.mean, buckets, self.seconds, scores.train, bound, best)
        if warning is not None:
            yield Warned(self.images, warning)

    def _keep_best(self) -> Events:
        """Write weights/best.safetensors: the average, as it is now."""
        content = self._packed("ema", self.learner.ema.net.state_dict())
        try:
            write_atomic(self.run.weights / "best.safetensors", content)
        except OSError as error:
            yield Warned(self.images, f"weights/best.safetensors was not written: {error}; training goes on")

    def _packed(self, kind: str, tensors: dict[str, Tensor]) -> bytes:
        return packed(tensors, self.config, self.learner.codec, self.data.vocabulary, kind, self.images)

    def _steps(self) -> Events:
        """Take steps up to the next moment at which anybody looks, and report them."""
        while True:
            outcome = self.learner.step()
            self.meter.add(outcome)
            here = self.step
            if here % self.every == 0 or here >= self.plan.steps or here in self.held_outs or here in self.grids:
                break
        now = self.meter.read()
        if now.applied:
            loss, buckets = now.buckets.mean, now.buckets
            yield Stepped(self.images, here, loss, now.norm, outcome.lr, self.seconds, buckets, now.applied)
        if now.applied < now.steps:
            reason = "the loss or its gradient was not finite"
            yield Skipped(self.images, now.steps - now.applied, now.in_a_row, reason)
        if now.in_a_row >= MOST_SKIPS:
            raise UserError(self._diagnosis(now.in_a_row))

    def _diagnosis(self, in_a_row: int) -> str:
        """Say why a run stops for good."""
        return (
            f"training has diverged: the loss or gradient of {in_a_row} steps in a row was not finite, up to image "
            f"{self.images}; {self._left()}; start a new --run with a lower --optim.lr (now {self.config.optim.lr:g})"
        )

    def _left(self) -> str:
        return f"the last checkpoint is of {self.saved_at} images" if self.saved_at > 0 else "there is no checkpoint"

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
        """Go back to the newest good checkpoint, if there is one."""
        found = checkpoint.newest(self.run.checkpoints, self.warnings.append)
        if found is None:
            return
        folder, position = found
        now = self._position()
        for name, meaning in _MUST_STAY.items():
            old, new = getattr(position, name), getattr(now, name)
            if old != new and not accept_changes:
                raise UserError(
                    f"{meaning} changed since checkpoint {folder.name} ({old[:12]} -> {new[:12]}): "
                    f"put the old one back, or resume with --accept-changes"
                )
        self.learner.load(checkpoint.load(folder), position.images)
        self.earlier, self.saved_at = position.seconds, position.images

    def _save_is_due(self) -> bool:
        """Whether enough time has gone by since the last save, and saving has not cost too much of it."""
        if self.images in (0, self.saved_at):
            return False
        wait = self.config.train.save_every
        gone = time.perf_counter() - self.save_clock
        return wait == 0 or gone >= max(wait, SAVING_SHARE * self.save_cost)

    def _save(self) -> None:
        """Write a checkpoint and the weights files; the log up to here goes to the disk first."""
        start = time.perf_counter()
        state = self.learner.state()
        files = {f"{kind}.safetensors": self._packed(kind, state[kind]) for kind in ("raw", "ema")}
        _flush(self.run)
        moments_file = {"optim.safetensors": _plain(state["optim"])}
        checkpoint.save(self.run.checkpoints, self._position(), files | moments_file)
        for name, content in files.items():
            write_atomic(self.run.weights / name, content)
        self.saved_at, self.save_clock = self.images, time.perf_counter()
        self.save_cost = self.save_clock - start

    def _save_or_warn(self) -> Events:
        """Save, or say loudly that it did not work and go on."""
        try:
            self._save()
        except OSError as error:
            self.save_clock = time.perf_counter()
            yield Warned(self.images, f"NOT SAVED at {self.images} images: {error}; training goes on and tries again")
        else:
            yield Saved(self.images, self.run.checkpoints / f"{self.images:012d}", self.save_cost)

    def _save_or_fail(self) -> None:
        """Save for the last time in this session."""
        if self.images in (0, self.saved_at):
            return
        try:
            self._save()
        except OSError as error:
            raise UserError(
                f"could not save at {self.images} images ({error}); {self._left()}; make room on the disk and resume"
            ) from None


def _plain(tensors: dict[str, Tensor]) -> bytes:
    content: bytes = safetensors.torch.save(tensors_of(tensors))
    return content


def _flush(run: Run) -> None:
    """Flush the log: a checkpoint must not outlive the lines that lead to it."""
    if run.events_path.exists():
        handle = os.open(run.events_path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
