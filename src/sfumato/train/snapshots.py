"""Snapshots of the power-function averages in RUN/averages/, and averages of any length out of them (`powers`).

A snapshot holds both averages at one step, as named tensors with a checksum. Those beyond the position that a run
resumes at are removed: they are written again, with the same bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from sfumato import weights
from sfumato.errors import UserError
from sfumato.files import write_atomic
from sfumato.model import Model, load, packed
from sfumato.run.folder import Run
from sfumato.run.locate import at, run_of
from sfumato.train import checkpoint
from sfumato.train.powers import LENGTHS, LONGEST, Profile, gamma_of, interval, solve
from sfumato.train.trainer import Trainer


class Snapshots:
    """The snapshots that a session writes into a run's folder, of the averages of its trainer."""

    def __init__(self, run: Run, trainer: Trainer) -> None:
        self.run, self.trainer = run, trainer
        self.most = trainer.config.ema.snapshots

    def resume(self, images: int) -> None:
        """Remove what came after so many images."""
        for path in _files(self.run):
            if int(path.stem) > images:
                path.unlink(missing_ok=True)

    def is_due(self, step: int) -> bool:
        """Whether a snapshot is to be taken after a step."""
        return self.most > 0 and step > 0 and step % interval(step, self.most) == 0

    def take(self, step: int) -> None:
        """Write a snapshot, and remove those that are not kept any more; raises `OSError`."""
        trainer = self.trainer
        averages = {name: each for name, each in trainer.state()["optim"].items() if name.startswith("power/")}
        content = weights.pack(averages, {"kind": "power", "images": trainer.images, "step": step})
        write_atomic(_file(self.run, trainer.images), content, parents=False)
        every = interval(step, self.most) * trainer.config.train.batch
        for path in _files(self.run):
            if int(path.stem) % every:
                path.unlink(missing_ok=True)


def _file(run: Run, images: int) -> Path:
    return run.averages / f"{images:012d}.safetensors"


def _files(run: Run) -> list[Path]:
    """The snapshots, the oldest first."""
    return sorted(path for path in run.averages.glob("*.safetensors") if path.stem.isdecimal())


@dataclass(frozen=True)
class Average:
    """An average of the weights of a wanted length.

    Attributes:
        length: sigma_rel.
        error: relative distance of its profile from the power function's, 0 for an exact one.
        snapshots: how many it was computed from, the checkpoint included.
        state: its weights by name.
        model: of the same checkpoint, whose configuration and vocabulary it has.
    """

    length: float
    error: float
    snapshots: int
    state: dict[str, Tensor]
    model: Model

    def packed(self) -> bytes:
        """Return the content of a weights file."""
        model = self.model
        return packed(self.state, model.config, model.codec, model.vocabulary, "ema", model.images)


def average(source: Path | str | Run, length: float) -> Average:
    """Return the average of a run's weights with the length sigma_rel, up to its newest checkpoint.

    Args:
        source: a run, or RUN@200k for the average up to that checkpoint.
        length: above 0, at most 0.25: the standard deviation of the profile as a fraction of the time trained.

    Raises:
        UserError: the run was trained without `ema.snapshots`, has no checkpoint, or the length is out of its range.
    """
    if not 0 < length <= LONGEST:
        raise UserError(f"a length of {length:g} can't be computed: give one above 0, at most {LONGEST}")
    run, folder = _checkpoint_of(source)
    position = checkpoint.read_position(folder)
    model, batch = load(folder), run.config().train.batch
    tensors: list[tuple[int, dict[str, Tensor] | Path]] = [(position.step, _of_checkpoint(folder))]
    tensors += _of_snapshots(run, position.images, batch)
    profiles = [Profile(gamma_of(own), step) for step, _ in tensors for own in LENGTHS]
    factors, error = solve(profiles, Profile(gamma_of(length), position.step))
    state = {name: tensor.clone() for name, tensor in model.net.state_dict().items()}
    sums: dict[str, Tensor] = {}
    parts = iter(factors.tolist())
    for _, named in tensors:
        averages = weights.read(named)[1] if isinstance(named, Path) else named
        for own in LENGTHS:
            factor, prefix = next(parts), f"power/{own:g}/"
            for name, tensor in averages.items():
                if name.startswith(prefix):
                    key = name.removeprefix(prefix)
                    sums[key] = sums.get(key, torch.zeros((), dtype=torch.float64)) + factor * tensor.double()
    state |= {name: tensor.float() for name, tensor in sums.items()}
    return Average(length, error, len(tensors), state, model)


def _checkpoint_of(source: Path | str | Run) -> tuple[Run, Path]:
    """Return the run and the checkpoint that a source means."""
    place = at(source.path if isinstance(source, Run) else source)[0]
    inner = run_of(place / "ema.safetensors")
    if inner is not None and place.parent == inner.checkpoints:
        return inner, place
    run = Run(place)
    run.config_table()  # a folder that is no run is refused
    position = checkpoint.last_good(run)
    if position is None:
        raise UserError(f"{place} has no checkpoint yet: train it first")
    return run, run.checkpoint(position.images)


def _of_checkpoint(folder: Path) -> dict[str, Tensor]:
    """Return the averages in a checkpoint."""
    state = checkpoint.load(folder, {})["optim"]
    found = {name: tensor for name, tensor in state.items() if name.startswith("power/")}
    if not found:
        raise UserError(
            f"{folder.parent.parent} was trained without the averages that others are computed from: train with "
            "--ema.snapshots 32"
        )
    return found


def _of_snapshots(run: Run, images: int, batch: int) -> Iterator[tuple[int, Path]]:
    """Yield step and file of each snapshot before so many images that is whole; others are left out."""
    for path in _files(run):
        if int(path.stem) < images:
            with suppress(UserError):
                weights.read(path)
                yield int(path.stem) // batch, path
