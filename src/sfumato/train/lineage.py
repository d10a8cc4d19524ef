"""Where a run comes from: a branch of another run, or weights of another model. RUN/lineage.json says so.

A branch (`train --from RUN@200k`) has the whole state of the other run at that checkpoint: weights, average, moments,
position, log and plan so far. It goes on as that run would have, with the same bits, until a value is changed.

A run that begins with weights (`train --init WEIGHTS`) takes from them the tensors that its own network has by the same
name and shape, and the rows of values that its labels have by the same name. Everything else starts as it would have
without them; optimiser and position start at zero. What was taken is saved at once as the checkpoint of 0 images, so
the run resumes from then on without the other's file.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sfumato import weights
from sfumato.conditions.protocol import Vocabulary
from sfumato.conditions.vocabulary import AttributeVocabulary
from sfumato.config.config import Config, from_stored, to_toml
from sfumato.data import Dataset
from sfumato.errors import UserError
from sfumato.files import hidden, sync, write_synced
from sfumato.model import Model, load, untrained
from sfumato.run.folder import Run, environment
from sfumato.run.locate import at, run_of
from sfumato.run.log import lines_before
from sfumato.run.plan import Course, read_course
from sfumato.train import checkpoint
from sfumato.train.validation import Best

_EVERYWHERE = ("time.", "condition.")
WORSE = 1.02
"""Held-out loss relative to that of the weights a run began with, above which it has made them worse."""
MOST_NAMES = 8
"""The most tensors that a message names."""


@dataclass(frozen=True)
class Taken:
    """What a network took over from other weights.

    Attributes:
        whole: names of the tensors that were copied.
        rows: for each table of which rows were copied, its name and how many of how many.
        new: names of the tensors of which nothing was copied.
        left: names of the other weights' tensors that were not used; those in `new` too are of another shape or label.
    """

    whole: tuple[str, ...]
    rows: tuple[tuple[str, int, int], ...]
    new: tuple[str, ...]
    left: tuple[str, ...]

    def __str__(self) -> str:
        total = len(self.whole) + len(self.rows) + len(self.new)
        parts = [f"{len(self.whole)} of {total} tensors taken over"]
        parts += [f"{count} of {of} rows of {name}" for name, count, of in self.rows]
        both = [name for name in self.new if name in self.left]
        for what, names in (
            ("begun anew, since they differ", both),
            ("new", self.new),
            ("left out", self.left),
        ):
            if some := [name for name in names if names is both or name not in both]:
                parts.append(f"{what}: {_some(some)}")
        return "; ".join(parts)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return f"{len(names)} ({', '.join(names[:MOST_NAMES])}{more})"


@torch.no_grad()
def take_over(net: nn.Module, vocabulary: Vocabulary | None, donor: Model) -> Taken:
    """Copy what fits of a model's weights into a network, in place, and return what did."""
    theirs, ours = donor.net.state_dict(), net.state_dict()
    rows = _matching_rows(vocabulary, donor.vocabulary)
    whole, tables, new = [], [], []
    for name, tensor in ours.items():
        pairs = rows.get(name)
        if pairs is not None:
            source, pairs_of_rows = pairs
            for own, other in pairs_of_rows:
                tensor[own].copy_(theirs[source][other])
            tables.append((name, len(pairs_of_rows), len(tensor)))
        elif name in theirs and theirs[name].shape == tensor.shape and not _is_of_values(name, vocabulary):
            tensor.copy_(theirs[name])
            whole.append(name)
        else:
            new.append(name)
    used = {*whole, *(rows[name][0] for name, *_ in tables)}
    return Taken(tuple(whole), tuple(tables), tuple(new), tuple(name for name in theirs if name not in used))


def check_fits(net: nn.Module, donor: Model) -> None:
    """Raise `UserError` where a network, which may be on the meta device, can take over nothing of a model but its
    vectors of time and condition, which most networks have."""
    theirs = {name: tensor for name, tensor in donor.net.state_dict().items() if not name.startswith(_EVERYWHERE)}
    if not any(name in theirs and theirs[name].shape == tensor.shape for name, tensor in net.state_dict().items()):
        raise UserError(f"{donor.path} has no tensor that fits this network: give one of the same net.kind and widths")


def _table_name(position: int) -> str:
    return f"condition.parts.{position}.table.weight"


def _is_of_values(name: str, vocabulary: Vocabulary | None) -> bool:
    """Whether a tensor is of one attribute of a vocabulary: by position it could be of another."""
    return isinstance(vocabulary, AttributeVocabulary) and name.startswith("condition.parts.")


def _matching_rows(
    vocabulary: Vocabulary | None, other: Vocabulary | None
) -> dict[str, tuple[str, list[tuple[int, int]]]]:
    """Return for each table of values its counterpart's name and the pairs of rows (own, other) of the same value, "not
    given" (row 0) among them."""
    if not isinstance(vocabulary, AttributeVocabulary) or not isinstance(other, AttributeVocabulary):
        return {}
    theirs = {attribute.name: (i, attribute.values) for i, attribute in enumerate(other.attributes)}
    found: dict[str, tuple[str, list[tuple[int, int]]]] = {}
    for i, attribute in enumerate(vocabulary.attributes):
        j, values = theirs.get(attribute.name, (0, ()))
        if attribute.values and values:
            pairs = [(k + 1, values.index(value) + 1) for k, value in enumerate(attribute.values) if value in values]
            found[_table_name(i)] = _table_name(j), [(0, 0), *pairs]
    return found


def lineage_of(run: Run, init: Path | str | None, config: Config, data: Dataset) -> dict[str, Any] | None:
    """Return the lineage of a run that begins with weights, None without; raise `UserError` where nothing of
    them fits, or a run that was started was begun otherwise."""
    if init is None:
        return None
    if not run.exists():
        check_fits(untrained(config, data), donor := load(init))
        origin = {"origin": donor.origin} if donor.origin else {}
        return {"init": str(init), "sha256": donor.sha256, "kind": donor.kind, "images": donor.images} | origin
    if (begun := (run.read(run.lineage_path) or {}).get("init")) != str(init):
        raise UserError(f"{run.path} was begun {f'with {begun}' if begun else 'without weights'}: choose another --run")
    return None


def unlearning(run: Run, best: Best, loss: float, lr: float) -> str | None:
    """Return a warning where a run has made the weights worse that it began with: its held-out loss was lowest before
    the first step. On other images than theirs the full rate is the best; on the same a tenth of it keeps them.
    """
    begun = float(best.held_out.mean()) if len(best.held_out) else math.inf
    if best.images != 0 or loss <= WORSE * begun or (run.read(run.lineage_path) or {}).get("init") is None:
        return None
    return (
        f"the held-out loss has risen from {begun:.4f} to {loss:.4f}: the weights that this run began with fit its "
        f"images already, and its learning rate, that of a new run, changes them much; optim.lr={lr / 10:.2g} changes "
        "them less"
    )


def branch(source: str, run: Run, device: str = "cpu") -> None:
    """Make `run` a branch of another run's checkpoint; nothing where it is that branch already.

    Args:
        source: the other run, at its newest checkpoint, or RUN@200k.
        run: the new run folder.
        device: where it is to be trained.

    Raises:
        UserError: no such checkpoint, a damaged one, or `run` is another run or can't be written.
    """
    if run.exists():
        if (run.read(run.lineage_path) or {}).get("from") != source:
            raise UserError(f"{run.path} is another run than a branch of {source}: choose another --run")
        return
    folder = at(source)[0]
    origin = Run(folder) if Run(folder).exists() else run_of(folder / "ema.safetensors")
    if origin is None:
        raise UserError(f"{source} is no run: give a run folder, or RUN@200k (--init takes the weights of a file)")
    if origin.path == folder:
        position = checkpoint.last_good(origin)
        if position is None:
            raise UserError(f"{source} has no checkpoint yet: there is nothing to branch from")
        folder = origin.checkpoint(position.images)
    if damage := checkpoint.find_damage(folder):
        raise UserError(f"{folder} is damaged ({damage}): branch from another checkpoint")
    run.check_path("")
    try:
        _copy(origin, folder, run, source, device)
    except OSError as error:
        raise UserError(f"{run.path} can't be written ({error.strerror}): choose another --run") from None


def _copy(origin: Run, folder: Path, run: Run, source: str, device: str) -> None:
    """Write the branch under a hidden name, and rename it."""
    images = int(folder.name)
    run.path.parent.mkdir(parents=True, exist_ok=True)
    with hidden(run.path) as path:
        shutil.rmtree(path, ignore_errors=True)
        part = Run(path)
        part.checkpoint(images).mkdir(parents=True)
        for file in folder.iterdir():
            shutil.copy2(file, part.checkpoint(images))
        part.samples.mkdir()
        for grid in [*origin.list_grids("ema"), *origin.list_grids("raw")]:
            if int(grid.name[:12]) <= images:
                shutil.copy2(grid, part.samples)
        write_synced(part.events_path, lines_before(origin.events_path, images))
        checkpoint.publish(part, part.checkpoint(images))
        _copy_best(origin, part, images)
        course = read_course(origin.read(origin.plan_path))
        config = origin.config()
        if course is not None:
            table = course.config_before(images + 1)
            config = config if table is None else from_stored(table)
            part.write(part.plan_path, _until(course, images).to_table())
        begun = origin.read(origin.environment_path) or {}
        same = {name: begun[name] for name in ("folder", "plugins") if name in begun}
        part.write(part.environment_path, environment(device) | same)
        sha = checkpoint.hash_of(folder, "raw.safetensors")
        part.write(part.lineage_path, {"from": source, "images": images, "sha256": sha})
        write_synced(part.config_path, to_toml(config))
        for file in part.path.rglob("*"):
            sync(file)
        if run.path.exists():  # empty, as `check_path` has found
            shutil.rmtree(run.path)
        os.rename(part.path, run.path)
        sync(run.path.parent)


def _copy_best(origin: Run, part: Run, images: int) -> None:
    """Copy the weights of the lowest held-out loss, where they are of no later time."""
    best = origin.weights_file("best")
    with suppress(UserError, OSError):
        if weights.read(best)[0]["images"] <= images:
            shutil.copyfile(best, part.weights_file("best"))


def _until(course: Course, images: int) -> Course:
    """Return the part of a course that leads to so many images."""
    plans = [plan for plan in course.plans[1:] if plan.since < images]
    changes = tuple(change for change in course.changes if change.since <= images)
    return Course((course.plans[0], *plans), min(course.checked, images), changes)
