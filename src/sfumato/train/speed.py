"""The speed of a training on this machine, measured on a trainer that is then discarded."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import torch

from sfumato.config.config import Config
from sfumato.config.train import TrainConfig
from sfumato.data import Dataset
from sfumato.model import cost_of
from sfumato.ranks import World
from sfumato.train.budget import MIN_STEPS, Speed
from sfumato.train.trainer import Trainer

CALLS = 3
"""How often a grid or a held-out loss is taken at least to measure it."""
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


def timed(config: Config, data: Dataset, device: torch.device | str, budget: float | None, world: World) -> Speed:
    """Measure the speed for a budget."""
    assert budget is not None
    config, seconds = replace(config, train=replace(config.train, images=10**9)), min(3.0, budget / 20)
    if torch.device(device).type == "cpu" and world.size == 1:
        flops = cost_of(config, data).flops
        if 3 * flops * config.train.batch / CPU_FLOPS > budget / MIN_STEPS:  # too short, and one step may take long
            return scaled(config, data, torch.device(device), seconds, flops)
    return measure(Trainer(config, data, device, world), config.train, seconds)


def scaled(config: Config, data: Dataset, device: torch.device, seconds: float, flops: int) -> Speed:
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
