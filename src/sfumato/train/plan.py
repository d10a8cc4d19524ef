"""From a budget of time to a length in images, once, before training starts.

A learning rate that decays to zero must know when the end comes, so a budget can't be a clock that is watched: the
length is planned from the measured speed and then kept, whatever the machine does afterwards. With s seconds a step of
B images, a grid's g, a held-out pass's h, and what has already gone by, the steps that fit are

    steps = ( 0.97 (budget - gone) - grids * g - passes * h ) / s

the last three hundredths being for checkpoints and the loop itself. Looking must not eat up the training: where grids
and passes would take more than a quarter of what is left, there are fewer of them, at least one of each. The measuring
is done on a throw-away learner, so the run that follows has the same bits as one whose length was given.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import torch

from sfumato.config.config import Config, difference
from sfumato.config.train import TrainConfig
from sfumato.data import Dataset
from sfumato.errors import UserError
from sfumato.generate.recipe import AUTO
from sfumato.run.folder import Run
from sfumato.train.clock import moments
from sfumato.train.trainer import Learner

__all__ = ["Plan", "Speed", "measure", "plan_for", "settle"]

SPARE = 0.97
LOOKS_SHARE = 0.25
LEAST_STEPS = 10


@dataclass(frozen=True)
class Plan:
    """How long a run will be, and why.

    Attributes:
        images: planned length.
        steps: the same in steps, the last batch full.
        batch: images a step.
        grids: how many sample grids are drawn.
        held_outs: how many times the held-out loss is taken, besides before the first step.
        seconds: how long all of it should take; None where no speed was measured.
        images_per_second: measured, while stepping.
        grid_seconds: measured, for one sample grid.
        held_out_seconds: measured, for one held-out pass.
    """

    images: int
    steps: int
    batch: int
    grids: int
    held_outs: int
    seconds: float | None = None
    images_per_second: float | None = None
    grid_seconds: float | None = None
    held_out_seconds: float | None = None


@dataclass(frozen=True)
class Speed:
    """What things cost on this machine, in seconds.

    Attributes:
        step: one training step.
        grid: one sample grid (two, where raw grids are drawn).
        held_out: one held-out pass.
    """

    step: float
    grid: float
    held_out: float


class Measurable(Protocol):
    """What can be timed: a learner, which is thrown away afterwards."""

    def step(self) -> object:
        """Take one training step."""

    def wait(self) -> None:
        """Return when the device is done."""

    def draw(self, num_steps: int) -> object:
        """Draw a grid in so many sampling steps."""

    def held_out(self) -> object:
        """Take the held-out loss."""


def measure(learner: Measurable, config: TrainConfig, seconds: float = 3.0) -> Speed:
    """Time steps, grids and held-out passes.

    Args:
        learner: a throw-away one; it is trained.
        config: says how many sampling steps a grid takes.
        seconds: to spend on timing steps, the first ones left out.
    """
    step = _repeat(learner.step, learner.wait, seconds)
    steps = config.grid_steps or AUTO["best"][1]
    few = min(2, steps)
    draw = _repeat(lambda: learner.draw(few), learner.wait, seconds / 6) * steps / few
    held_out = _repeat(learner.held_out, learner.wait, seconds / 6) if config.held_outs else 0.0
    return Speed(step, draw * (2 if config.raw_grids else 1) if config.grids else 0.0, held_out)


def _repeat(action: Callable[[], object], wait: Callable[[], None], seconds: float) -> float:
    """Return the median of the seconds that one call takes, the first two left out (they allocate and choose kernels).

    The median, since whatever else the machine does now and then makes some calls many times slower and none faster.
    """
    start = time.perf_counter()
    for done in (1, 2):
        action()
        wait()
        if time.perf_counter() - start > 4 * seconds:  # so slow that warming up is the smaller error
            return (time.perf_counter() - start) / done
    took: list[float] = []
    while not took or sum(took) < seconds:
        begin = time.perf_counter()
        action()
        wait()
        took.append(time.perf_counter() - begin)
    return statistics.median(took)


def plan_for(config: TrainConfig, speed: Speed, gone: float) -> Plan:
    """Return the longest plan that stays within `config.budget`.

    Args:
        config: the budget, the batch, the numbers of grids and held-out passes.
        speed: what each costs.
        gone: seconds of the budget that are already spent.

    Raises:
        UserError: the budget leaves no time for training; one that does is named.
    """
    assert config.budget is not None
    left = SPARE * (config.budget - gone)
    grids, held_outs = _affordable(config, speed, LOOKS_SHARE * left)
    fixed = grids * speed.grid + _passes(held_outs) * speed.held_out
    steps = int((left - fixed) / speed.step)
    if steps < LEAST_STEPS:
        least = gone + (fixed + LEAST_STEPS * speed.step) / SPARE
        raise UserError(
            f"a budget of {config.budget:g}s is too short: {gone:.1f}s went by before training, "
            f"{fixed:.1f}s are for looking at samples and held-out images; give --budget {least * 2:.0f}s"
        )
    drawn = len(moments(steps, grids)) * speed.grid + min(_passes(held_outs), steps + 1) * speed.held_out
    return Plan(
        images=steps * config.batch,
        steps=steps,
        batch=config.batch,
        grids=grids,
        held_outs=held_outs,
        seconds=steps * speed.step + drawn + gone,
        images_per_second=config.batch / speed.step,
        grid_seconds=speed.grid,
        held_out_seconds=speed.held_out,
    )


def _passes(held_outs: int) -> int:
    """How many held-out passes there are: one more than asked for, before the first step."""
    return held_outs + 1 if held_outs else 0


def _affordable(config: TrainConfig, speed: Speed, seconds: float) -> tuple[int, int]:
    """Return how many grids and held-out passes fit into some seconds: all, or the same share of each, at least one."""
    cost = config.grids * speed.grid + _passes(config.held_outs) * speed.held_out
    if cost <= seconds:
        return config.grids, config.held_outs
    share = max(0.0, seconds / cost)
    return min(config.grids, max(1, int(share * config.grids))), min(
        config.held_outs, max(1, int(share * config.held_outs))
    )


def settle(
    config: Config, run: Run, data: Dataset, device: torch.device | str = "cpu", began: float | None = None
) -> tuple[Config, Plan]:
    """Return the configuration with its length planned, and the plan. Nothing is written.

    Args:
        config: what was asked for.
        run: a run that was started here keeps its plan.
        data: the images.
        device: whose speed is measured where there is only a budget.
        began: `time.perf_counter()` when the budget began to run; now by default.

    Raises:
        UserError: the run was started with another configuration, there is no length and no budget, or the budget is
            too short.
    """
    began = time.perf_counter() if began is None else began
    if run.exists():
        there = run.config()
        if config.train.images is None:
            config = _with_images(config, there.train.images)
        if changes := difference(there, config):
            raise UserError(
                f"{run.path} was started with another configuration ({changes}): "
                f"use the same one, or give --run a new folder"
            )
        return config, _kept_plan(config.train, run)
    if config.train.images is not None:
        return config, _given_plan(config.train)
    if config.train.budget is None:
        raise UserError("how long? give --budget 30m, or --images 500k")
    learner = Learner(_with_images(config, 10**9), data, device)
    speed = measure(learner, config.train, min(3.0, config.train.budget / 20))
    plan = plan_for(config.train, speed, time.perf_counter() - began)
    return _with_images(config, plan.images), plan


def _with_images(config: Config, images: int | None) -> Config:
    return replace(config, train=replace(config.train, images=images))


def _given_plan(config: TrainConfig) -> Plan:
    """Return the plan of a length that was given in images."""
    assert config.images is not None
    return Plan(config.images, config.steps, config.batch, config.grids, config.held_outs)


def _kept_plan(config: TrainConfig, run: Run) -> Plan:
    """Return the plan that was made when the run was started."""
    facts = run.read(run.plan_path) or {}
    names = ("grids", "held_outs", "seconds", "images_per_second", "grid_seconds", "held_out_seconds")
    return replace(_given_plan(config), **{name: facts[name] for name in names if name in facts})
