"""The length and the cost of a run, computed before training starts.

A learning rate that decays to zero needs the length of the run, so a budget of time is turned into a length (`budget`)
by the measured speed. Speed is measured on a trainer that is then discarded, so the run has the same bits as one whose
length was given.

With P parameters, N images of V bytes, batches of B and A bytes of activations an image, a training needs

    memory = 20 P + A B     weights, gradients, two moments and the average, four bytes each, and activations
    disk   = N V + 60 P     the store; three checkpoints of 16 P (two, and the one being written), three weights files;
                            16 P more for each checkpoint that is kept (`train.keep`), 8 P for each of `ema.snapshots`

Muon keeps one moment of its matrices, not two: M of them save 4 M and 12 M bytes. Moments of 8 bits save 6 P and 18 P.
"""

from __future__ import annotations

import itertools
import math
import shlex
import shutil
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from sfumato.config.config import Config, difference, differences, may_change, own_files, to_toml
from sfumato.config.presets import preset_of
from sfumato.config.train import TrainConfig
from sfumato.data import Dataset
from sfumato.errors import UserError, command
from sfumato.files import write_atomic
from sfumato.model import cost_of
from sfumato.ranks import World
from sfumato.run.folder import Run, environment
from sfumato.run.places import is_path, remembered, spelled_as_begun
from sfumato.run.plan import Course, Plan, read_course
from sfumato.train import checkpoint
from sfumato.train.budget import MIN_STEPS, Speed, plan_for
from sfumato.train.extend import More, changed, extended, other_length, with_length_of
from sfumato.train.trainer import Trainer

CALLS = 3
"""How often a grid or a held-out loss is taken at least to measure it."""
SHOWN = 3
"""The most differences from the configuration of a run that an error names."""
CPU_FLOPS = 4e10
"""Estimated FLOPs of a CPU in a second, used only to choose the number of images to measure with."""


def measure(trainer: Trainer, config: TrainConfig, seconds: float = 3.0) -> Speed:
    """Time the steps (for so many seconds), grids and held-out losses of a trainer that is then discarded.

    Grids and held-out losses that would take longer than the steps did are computed from these instead.
    """
    step = _repeat(trainer.step, trainer.wait, seconds)
    forward = step / (3 * config.batch)  # of one image: a step costs three forward passes
    few, num_steps = min(2, trainer.grid_steps), trainer.grid_steps
    grid, held_out = num_steps * config.grid_images * forward, 2 * config.held_out_images * forward
    if config.grids and CALLS * grid * few / num_steps < seconds:
        grid = _repeat(lambda: trainer.sample_grid(few), trainer.wait, seconds / 6) * num_steps / few
    if config.held_outs and CALLS * held_out < seconds:
        held_out = _repeat(trainer.held_out, trainer.wait, seconds / 6)
    grid *= 2 if config.raw_grids else 1
    return Speed(step, grid if config.grids else 0.0, held_out if config.held_outs else 0.0)


def _repeat(action: Callable[[], object], wait: Callable[[], None], seconds: float) -> float:
    """Return the median duration of a call, without the first two, which allocate and choose kernels.

    The median, because other processes make some calls many times slower and none faster.
    """
    start = time.perf_counter()
    for done in (1, 2):
        action()
        wait()
        if time.perf_counter() - start > 4 * seconds:  # so slow that warming up is the smaller error
            return (time.perf_counter() - start) / done
    durations: list[float] = []
    while not durations or sum(durations) < seconds:
        start = time.perf_counter()
        action()
        wait()
        durations.append(time.perf_counter() - start)
    return statistics.median(durations)


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
            course = extended(more, config, run, course, began, lambda: _timed(config, data, device, asked, world))
        return config, changed(old, config, run, course, changes) if changes else course
    if more is not None:
        raise UserError(f"{run.path} is not a run that could be extended: give its length without a plus")
    if config.train.images is not None:
        return config, Course((_given(config.train),))
    if config.train.budget is None:
        raise UserError("no training length: give --budget (such as 30m) or --images (such as 500k)")
    speed = _timed(config, data, device, config.train.budget, world)
    plan = plan_for(config.train, speed, time.perf_counter() - began)
    return _with_images(config, plan.images), Course((plan,))


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


def _timed(config: Config, data: Dataset, device: torch.device | str, budget: float | None, world: World) -> Speed:
    """Measure the speed for a budget."""
    assert budget is not None
    config, seconds = _with_images(config, 10**9), min(3.0, budget / 20)
    if torch.device(device).type == "cpu" and world.size == 1:
        flops = cost_of(config, data).flops
        if 3 * flops * config.train.batch / CPU_FLOPS > budget / MIN_STEPS:  # too short, and one step may take long
            return _speed(config, data, torch.device(device), seconds, flops)
    return measure(Trainer(config, data, device, world), config.train, seconds)


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
    return Course((_given(config),))


def _with_defaults_of(config: Config, old: Config) -> Config:
    """Return a configuration whose None values are those of an earlier one."""
    names = [name for name in ("images", "grid_steps") if getattr(config.train, name) is None]
    return replace(config, train=replace(config.train, **{name: getattr(old.train, name) for name in names}))


def _with_images(config: Config, images: int | None) -> Config:
    return replace(config, train=replace(config.train, images=images))


def _given(config: TrainConfig) -> Plan:
    """Return the plan of a length given in images."""
    assert config.images is not None
    return Plan(config.images, config.steps, config.batch, config.grids, config.held_outs)


@dataclass(frozen=True)
class Forecast:
    """What a training costs.

    Attributes:
        flops: of one image's forward pass.
        state_bytes: weights, gradients, moments and average, in memory.
        activation_bytes: of one image.
        store_bytes: the decoded images, on disk.
        run_bytes: checkpoints and weights, on disk.
        memory_here: bytes of the device's memory, 0 where unknown.
        disk_here: bytes free where the run would be written.
        speed: None where nothing was measured.
        micro: `train.micro`.
    """

    parameters: int
    flops: int
    plan: Plan
    state_bytes: int
    activation_bytes: int
    store_bytes: int
    run_bytes: int
    memory_here: int
    disk_here: int
    train_images: int
    speed: Speed | None
    micro: int | None = None

    @property
    def at_once(self) -> int:
        """Images that a step computes at once."""
        return min(self.micro or self.plan.batch, self.plan.batch)

    @property
    def memory(self) -> int:
        """Bytes that a training step needs."""
        return self.state_bytes + self.activation_bytes * self.at_once

    @property
    def disk(self) -> int:
        """Bytes that store and run need."""
        return self.store_bytes + self.run_bytes

    @property
    def epochs(self) -> float:
        """How often each image is seen."""
        return self.plan.images / max(1, self.train_images)

    @property
    def images_per_second(self) -> float | None:
        """Measured, during steps."""
        return None if self.speed is None else self.plan.batch / self.speed.step

    @property
    def seconds(self) -> float | None:
        """Duration of the whole training."""
        return None if self.speed is None else self.plan.steps * self.speed.step + self.speed.looks(self.plan)

    @property
    def fitting_batch(self) -> int | None:
        """How many images at once fit the memory with a fifth to spare, a power of two; None where that is unknown."""
        room = 0.8 * self.memory_here - self.state_bytes
        if not self.memory_here:
            return None
        return 2 ** int(math.log2(room / self.activation_bytes)) if room >= self.activation_bytes else 0


def forecast(
    config: Config, data: Dataset, path: Path, device: torch.device | str = "cpu", seconds: float = 20.0
) -> Forecast:
    """Return the cost of training in a folder `path`, the speed measured for so many seconds. Nothing is written.

    The length is the configuration's, or the longest within its budget, which needs the speed.
    """
    device = torch.device(device)
    cost = cost_of(config, data)
    less = {"muon": 4 * cost.matrices, "adamw8bit": 6 * cost.parameters}.get(config.optim.name, 0)
    asked = config.train
    # the learning rate's decay needs a length; the speed does not depend on it
    config = _with_images(config, config.train.images or 10**9)
    speed = _speed(config, data, device, seconds, cost.flops) if seconds else None
    plan = _given(config.train) if asked.budget is None or speed is None else plan_for(asked, speed, 0.0)
    kept = config.train.num_kept(plan.images)
    parent = next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.is_dir())
    return Forecast(
        parameters=cost.parameters,
        flops=cost.flops,
        plan=plan if len(data.held_out) else replace(plan, held_outs=0),
        state_bytes=(28 if config.ema.snapshots else 20) * cost.parameters - less,
        activation_bytes=cost.activation_bytes,
        store_bytes=int(data.images.nbytes),
        run_bytes=60 * cost.parameters
        - 3 * less
        + kept * (16 * cost.parameters - less)
        + 8 * (config.ema.snapshots + 3 * bool(config.ema.snapshots)) * cost.parameters,
        memory_here=available_memory(device),
        disk_here=shutil.disk_usage(parent).free,
        train_images=len(data.train),
        speed=speed,
        micro=config.train.micro,
    )


def _speed(config: Config, data: Dataset, device: torch.device, seconds: float, flops: int) -> Speed:
    """Measure, with fewer images where a single step on a CPU would exceed the given time, and scale up."""
    train, fraction = config.train, 1.0
    if device.type == "cpu":
        fraction = min(1.0, seconds / 6 * CPU_FLOPS / (3 * flops * train.batch))

    batch, grid, held_out = (
        max(1, int(fraction * number)) for number in (train.batch, train.grid_images, train.held_out_images)
    )
    less = replace(train, batch=batch, grid_images=grid, held_out_images=min(held_out, train.held_out_images))
    speed = measure(Trainer(replace(config, train=less), data, device), less, seconds)
    return Speed(
        speed.step * train.batch / batch,
        speed.grid * train.grid_images / grid,
        speed.held_out * train.held_out_images / held_out,
    )


def available_memory(device: torch.device) -> int:
    """The device's memory in bytes, 0 where unknown."""
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory())
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    try:
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), 0)
