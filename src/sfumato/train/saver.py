"""The saves of a session: checkpoints and weights files, what is due when, and where a run resumes.

Nothing is saved while steps are being skipped, or with a value that is not finite, so what is on disk is from before
the trouble.
"""

from __future__ import annotations

import time
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from sfumato import __version__
from sfumato.config.config import digest
from sfumato.errors import UserError, one_line
from sfumato.files import Lock
from sfumato.model import packed
from sfumato.run.events import Saved
from sfumato.run.folder import Run, changed_machine
from sfumato.run.log import EventLog, last_saved
from sfumato.train import checkpoint
from sfumato.train.checkpoint import Position
from sfumato.train.pace import Pace
from sfumato.train.trainer import Trainer
from sfumato.weights import tensors_of

_MUST_STAY = {"fingerprint": "the images", "torch": "the version of torch", "sfumato": "the version of sfumato"}


def publish_last(run: Run, last: Path) -> None:
    """Have the weights files of a finished run be those of its last checkpoint, where that is still there, and delete
    the older ones whose deletion failed."""
    if checkpoint.find_damage(last) is not None:
        return
    if reason := _publish(run, last):
        raise UserError(f"{reason}: free space on the disk, and give the same command again")
    checkpoint.prune(run, last)


def _publish(run: Run, folder: Path) -> str:
    """Copy a checkpoint's weights to the run's; return why they could not be written, empty where they were."""
    try:
        checkpoint.publish(run, folder)
    except OSError as error:
        what = f"the weights files were not written ({one_line(error)})"
        return f"{what}; the checkpoint of {int(folder.name)} images stands"
    return ""


class Saver:
    """What a session has saved, and what it saves next.

    Args:
        run: the folder.
        trainer: whose state is saved.
        log: flushed before each checkpoint.
        pace: which knows what a save costs.
        warnings: where warnings are added.
        lock: of the run folder.

    Attributes:
        saved_at: images of the last checkpoint; -1 before the first.
        skips: steps skipped since the last applied one.
        stale: why the weights files are not those of the last checkpoint; empty where they are.
    """

    def __init__(
        self, run: Run, trainer: Trainer, log: EventLog, pace: Pace, warnings: list[str], lock: Lock | None = None
    ) -> None:
        self.run, self.trainer, self.log, self.pace, self.warnings, self.lock = run, trainer, log, pace, warnings, lock
        self.clock = time.perf_counter()
        self.saved_at = -1
        self.skips = 0
        self.stale = ""

    def position(self, seconds: float) -> Position:
        """Return the position of the run after so many seconds of training."""
        trainer = self.trainer
        return Position(
            images=trainer.images,
            step=trainer.images // trainer.config.train.batch,
            seconds=seconds,
            config=digest(trainer.config),
            fingerprint=trainer.data.fingerprint,
            torch=torch.__version__,
            sfumato=__version__,
        )

    def resume(self, accept_changes: bool) -> Position | None:
        """Go back to the newest good checkpoint and return its position, None where a run begins; without a checkpoint,
        refuse to begin anew over what a training left."""
        before = len(self.warnings)
        newest = checkpoint.newest(self.run, self.warnings.append)
        logged = last_saved(self.run.events_path)
        if newest is None:
            if logged or self.run.has_results():
                raise UserError(
                    f"{self.run.path} was trained{f' on {logged} images' if logged else ''} and has no checkpoint: put "
                    "its checkpoints folder back, or choose a new --run"
                )
            return None
        folder, position = newest
        if logged > position.images and len(self.warnings) == before:
            self.warnings.append(f"the checkpoint of {logged} images is gone: resuming from {position.images} images")
        present = self.position(0.0)
        for name, meaning in _MUST_STAY.items():
            old, new = getattr(position, name), getattr(present, name)
            if old != new and not accept_changes:
                raise UserError(
                    f"{meaning} changed since checkpoint {folder.name} ({old[:12]} -> {new[:12]}): "
                    f"restore the old one, or resume with --accept-changes"
                )
        self.trainer.load(checkpoint.load(folder, self.trainer.state()), position.images)
        checkpoint.prune(self.run, folder)  # a kill may have come between a save and its pruning
        self.saved_at = position.images
        self.pace.resume(position.images)
        reasons = _publish(self.run, folder), changed_machine(self.run, str(self.trainer.device))
        self.warnings += list(filter(None, reasons))
        return position

    def is_due(self) -> bool:
        """Whether enough time has passed since the last save, and saving does not take too much of it."""
        if self.trainer.images in (0, self.saved_at) or self.skips:
            return False
        if self.trainer.config.train.is_kept(self.trainer.images):
            return True
        return time.perf_counter() - self.clock >= self.pace.saving_interval

    def packed(self, kind: str, tensors: dict[str, Tensor]) -> bytes:
        """Return the content of a weights file of `kind`."""
        trainer = self.trainer
        return packed(tensors, trainer.config, trainer.codec, trainer.data.vocabulary, kind, trainer.images)

    def save(self, seconds: float, kept: bool = False) -> None:
        """Write the log, then a checkpoint, then the weights files; raises `OSError`.

        Args:
            seconds: spent training.
            kept: the checkpoint is to stay when newer ones are there, also where the configuration does not say so.
        """
        self.check_folder()
        kept = kept or self.trainer.config.train.is_kept(self.trainer.images)
        start, state = time.perf_counter(), self.trainer.state()
        if bad := checkpoint.not_finite(state):
            raise self.diverged(f"{bad} has values that are not finite")
        weights = {kind: self.packed(kind, state[kind]) for kind in ("raw", "ema")}
        files = {**weights, "optim": safetensors.torch.save(tensors_of(state["optim"]))}
        self.log.sync()
        self.pace.save_course()
        named = {f"{name}.safetensors": content for name, content in files.items()}
        folder = checkpoint.save(self.run, self.position(seconds), named, kept)
        self.saved_at, self.stale = self.trainer.images, _publish(self.run, folder)
        self.clock = time.perf_counter()
        self.pace.pause("save", self.clock - start)

    def event(self) -> Saved:
        """Return the event of the last save."""
        images = self.trainer.images
        return Saved(images, self.run.checkpoint(images), self.pace.save)

    def try_save(self, seconds: float, kept: bool = False) -> str:
        """Save as `save`, and return why that failed; empty where it did not."""
        try:
            self.save(seconds, kept)
        except OSError as error:
            self.clock = time.perf_counter()
            return f"NOT SAVED at {self.trainer.images} images ({one_line(error)}); training continues, will retry"
        self.warnings += [self.stale] if self.stale else []
        return ""

    def save_last(self, seconds: float, ended: bool) -> bool:
        """Save for the last time in this session, unless steps are being skipped; whether there was something to.

        Args:
            seconds: spent training.
            ended: the planned length is reached.

        Raises:
            UserError: it could not be written.
        """
        self.check_folder()
        images = self.trainer.images
        if images == 0 or (self.skips and not ended):
            return False
        due = images != self.saved_at
        try:
            if due:
                self.save(seconds)
            elif self.stale:
                self.stale = _publish(self.run, self.run.checkpoint(self.saved_at))
        except OSError as error:
            raise UserError(
                f"could not save at {images} images ({one_line(error)}); {self._last()}; free some space and resume"
            ) from None
        if self.stale:
            raise UserError(f"{self.stale}: free space on the disk, and give the same command again")
        return due

    def diverged(self, reason: str) -> UserError:
        """Return the error for a training that can't go on, with what is left of it."""
        best = self.trainer.best.images
        kept = f"; weights/best.safetensors is of {best} images" if self.run.weights_file("best").exists() else ""
        return UserError(
            f"training has diverged: {reason}, up to image {self.trainer.images}; {self._last()}{kept}; start another "
            f"--run with an optim.lr lower than {self.trainer.config.optim.lr:g}"
        )

    def check_folder(self) -> None:
        """Raise `UserError` where the run folder is no longer the one that was locked."""
        if self.lock is not None and not self.lock.is_in_place():
            raise UserError(
                f"{self.run.path} was moved or deleted (or its lock was) while it was being trained; {self._last()}: "
                "put it back, and give the same command again"
            )

    def _last(self) -> str:
        return f"the last checkpoint is of {self.saved_at} images" if self.saved_at > 0 else "there is no checkpoint"
