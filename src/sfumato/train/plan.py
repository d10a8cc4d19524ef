"""The length of a run, computed before training starts.

A learning rate that decays to zero needs the length of the run, so a budget of time is turned into a length (`budget`)
by the measured speed. Speed is measured on a trainer that is then discarded, so the run has the same bits as one whose
length was given.
"""

from __future__ import annotations

import itertools
import shlex
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from sfumato.config.config import Config, difference, differences, may_change, own_files, to_toml
from sfumato.config.presets import preset_of
from sfumato.config.train import TrainConfig
from sfumato.data import Dataset
from sfumato.errors import UserError, command
from sfumato.files import write_atomic
from sfumato.ranks import World
from sfumato.run.folder import Run, environment
from sfumato.run.places import is_path, remembered, spelled_as_begun
from sfumato.run.plan import Course, Plan, read_course
from sfumato.train import checkpoint
from sfumato.train.budget import plan_for
from sfumato.train.extend import More, changed, extended, other_length, with_length_of
from sfumato.train.speed import timed

SHOWN = 3
"""The most differences from the configuration of a run that an error names."""


def resolve_length(
    config: Config,
    run: Run,
    data: Dataset,
    device: torch.device | str = "cpu",
    began: float | None = None,
    world: World = World(),
) -> tuple[Config, Plan]:
    """Return the configuration with its length, and the plan that leads to the end, as `resolve_course` does."""
    config, course = resolve_course(config, run, data, device, began, world=world)
    return config, course.last


def resolve_course(
    config: Config,
    run: Run,
    data: Dataset,
    device: torch.device | str = "cpu",
    began: float | None = None,
    more: More | None = None,
    world: World = World(),
) -> tuple[Config, Course]:
    """Return the configuration with its length, and the plans. Nothing is written.

    Args:
        config: with a length, or with a budget, for which the speed is measured. A run that was started keeps its
            plans; where the length is another one than it was started with, it is extended to it.
        run: the run folder.
        data: the images.
        device: where it is trained.
        began: `time.perf_counter()` at the start of the budget; now by default.
        more: a length for a run that was started, in place of the configuration's.
        world: the ranks that will train it, which measure it together.

    Raises:
        UserError: the run was started with another configuration, no length and no budget, or too short a budget.
    """
    began = time.perf_counter() if began is None else began
    if run.exists():
        words = (run.read(run.environment_path) or {}).get("command") or ()
        if "import" in words[1:2] and not run.events_path.exists():
            raise UserError(
                f"{run.path} holds weights that were imported, and no state of a training: begin with them in another "
                f"folder, {command('train', config.data.source, '--init', run.path, '--run', f'{run.path}-trained')}"
            )
        old = run.config()
        config = _with_defaults_of(replace(config, data=spelled_as_begun(config.data, run)), old)
        check_source(config, run, data)
        if config.data.source != old.data.source:  # the same images at another path
            config = replace(config, data=remembered(config.data, run))
            old = replace(old, data=replace(old.data, source=config.data.source, labels=config.data.labels))
        more = more or other_length(config, old)
        config = with_length_of(config, old)
        if not may_change(old, config):
            raise _other_configuration(run, old, config)
        changes = difference(old, config)
        course, asked = course_of(run, config.train), None if more is None else more.seconds
        if more is not None:
            course = extended(more, config, run, course, began, lambda: timed(config, data, device, asked, world))
        return config, changed(old, config, run, course, changes) if changes else course
    if more is not None:
        raise UserError(f"{run.path} is not a run that could be extended: give its length without a plus")
    if config.train.images is not None:
        return config, Course((given_plan(config.train),))
    if config.train.budget is None:
        raise UserError("no training length: give --budget (such as 30m) or --images (such as 500k)")
    speed = timed(config, data, device, config.train.budget, world)
    plan = plan_for(config.train, speed, time.perf_counter() - began)
    return with_images(config, plan.images), Course((plan,))


def _other_configuration(run: Run, old: Config, new: Config) -> UserError:
    """Return the error of a run that was started with another configuration, with the first differences."""
    changes, names = differences(old, new), (preset_of(old), preset_of(new))
    shown = ", ".join(changes[:SHOWN]) + (f", and {len(changes) - SHOWN} more" if len(changes) > SHOWN else "")
    presets = f"the network of preset {names[0]}, not {names[1]}; " if all(names) and names[0] != names[1] else ""
    free = next(path for n in itertools.count(2) if not (path := Path(f"{run.path}-{n}")).exists())
    return UserError(
        f"{run.path} was started with another configuration ({presets}{shown}): train beside it with "
        f"--run {shlex.quote(str(free))}, or go on with it, {command('train', run.path)}"
    )


def check_source(config: Config, run: Run, data: Dataset | None = None) -> None:
    """Raise `UserError` where a run that was started is trained on other images than a configuration names.

    Args:
        config: whose `data.source` may be another path of the same images.
        run: whose newest checkpoint has the fingerprint of its images.
        data: the images; None compares only what is known before they are opened.
    """
    begun = run.config().data.source
    moved = is_path(begun) and is_path(config.data.source)
    if moved and data is not None:
        position = checkpoint.last_good(run)
        moved = position is not None and position.fingerprint == data.fingerprint
    if config.data.source != begun and not moved:
        raise UserError(
            f"{run.path} is trained on {begun}: choose another --run for {config.data.source}, such as {run.path}-2"
        )


def begin(
    run: Run, config: Config, course: Course, device: torch.device, lineage: Mapping[str, Any] | None = None
) -> None:
    """Write the files that a run begins with, config.toml last, since it makes the folder a run; of a run that was
    started its plans and its configuration, where they are others now.

    Args:
        lineage: the content of lineage.json; None writes none.

    Raises:
        UserError: they can't be written.
    """
    started = run.exists()
    planned = started and course == read_course(run.read(run.plan_path))
    if planned and config == run.config():
        return
    try:
        if not started:
            own = own_files(config)
            run.write(run.environment_path, environment(str(device)) | ({"plugins": own} if own else {}))
            if lineage is not None:
                run.write(run.lineage_path, dict(lineage))
        if not planned and (not started or course.last.asked or course.changes):
            run.write(run.plan_path, course.to_table())
            run.finished_path.unlink(missing_ok=True)
        if not started or config != run.config():
            write_atomic(run.config_path, to_toml(config), parents=False)
    except OSError as error:
        raise UserError(f"{run.path} can't be written ({error.strerror}): choose another --run") from None


def course_of(run: Run, config: TrainConfig) -> Course:
    """Return the plans of a run that was started; without a plan.json its length is the configuration's.

    Raises `UserError` where a plan.json can't be read that may hold corrections of the length.
    """
    course = read_course(run.read(run.plan_path))
    if course is not None and course.plans[0].images == config.images:
        return course
    if config.budget is not None and run.plan_path.exists():
        raise UserError(
            f"{run.plan_path} is damaged, and with it the length that was planned for the budget: put it back, or "
            f"remove it to train on the {config.images:,} images that were planned at first"
        )
    return Course((given_plan(config),))


def _with_defaults_of(config: Config, old: Config) -> Config:
    """Return a configuration whose None values are those of an earlier one."""
    names = [name for name in ("images", "grid_steps") if getattr(config.train, name) is None]
    return replace(config, train=replace(config.train, **{name: getattr(old.train, name) for name in names}))


def with_images(config: Config, images: int | None) -> Config:
    """Return a configuration with another length."""
    return replace(config, train=replace(config.train, images=images))


def given_plan(config: TrainConfig) -> Plan:
    """Return the plan of a length given in images."""
    assert config.images is not None
    return Plan(config.images, config.steps, config.batch, config.grids, config.held_outs)
