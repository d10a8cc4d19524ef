"""`sfumato plan`: the cost of a training on this machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from sfumato.cli.console import pick_device, print_json, progress, say
from sfumato.cli.training import TrainingOptions, length, with_source
from sfumato.config.keys import SHORT
from sfumato.config.units import suggested
from sfumato.errors import UserError, command, plural
from sfumato.report.text import count, duration, facts, size

if TYPE_CHECKING:
    from sfumato.data import Dataset
    from sfumato.train.forecast import Forecast

HOUR_OF_STEPS = 0.95 * 3600
"""Seconds of an hour that go into steps; the rest into sample grids, held-out losses and checkpoints."""
LONG = 24 * 3600.0
"""Seconds of training after which the output suggests how to shorten it."""


@dataclass(frozen=True)
class Plan(TrainingOptions):
    """Estimate the cost of a training: parameters, FLOPs, memory, disk, and time from the speed measured on this
    machine.

    Nothing is trained, and nothing but the store of decoded images is written.
    """

    EXAMPLES: ClassVar[tuple[str, ...]] = (
        "sfumato plan ~/photos",
        "sfumato plan faces --preset small16 --batch 128 --budget 30m",
        "sfumato plan ~/photos --preset celeba64-ddpm --seconds 60 --json",
    )

    seconds: float = 20.0
    """how long to measure the speed; 0 does not measure it"""

    def perform(self) -> int:
        """Count, measure and print."""
        from sfumato.nets import keep_memory
        from sfumato.run.folder import Run
        from sfumato.train.choose import choose, default_run
        from sfumato.train.extend import More
        from sfumato.train.forecast import forecast

        if self.data is None:
            raise UserError(f"plan needs DATA, for example: {self.EXAMPLES[0]}")
        if self.seconds < 0:
            raise UserError(f"--seconds is {self.seconds:g}: give 0 or more")
        if self.budget is not None and not self.seconds:
            raise UserError("--budget is planned from the measured speed: leave --seconds 0 out")
        more = More.parse(self.images, self.budget)
        if Run(Path(self.data)).exists() or (more is not None and more.added):
            again = command("train", self.data, "--images", "+500k", "--dry-run")
            raise UserError(f"plan is for a new training; what is left of a run and more of it is told by {again}")
        device = pick_device(self.device)
        if device.type == "cpu":
            keep_memory()
        values = {"data.source": self.data} | self.given() | length(more)
        reading = progress("reading images")
        config, data, reason = choose(self.preset, self.config, values, device, reading, self.init)
        if self.seconds:
            first = "; a single step of a large network may take longer"
            say(f"measuring the speed of training for about {duration(self.seconds)}{first}", error=True)
        cost = forecast(config, data, self.run or default_run(data.source_name), device, self.seconds)
        if self.json:
            print_json(_table(cost, data, reason, str(device)))
        else:
            whose = (
                "the preset's usual number" if more is None else f"as --{'budget' if self.budget else 'images'} says"
            )
            say(_text(cost, data, reason, str(device), self._command(reason.partition(":")[0], cost), whose))
        return 0

    def _command(self, preset: str, cost: Forecast) -> str:
        """The command that starts this training."""
        words: list[object] = ["train", self.data, "--preset", preset]
        for name in ("config", "run", "init", "images", "budget", *SHORT, "seed"):
            if (value := getattr(self, name)) is not None:
                words += [f"--{name}", value]
        words += [f"--{key}={value}" for key, value in self.overrides]
        if cost.seconds is not None and self.images is None and self.budget is None:
            words += ["--budget", suggested(min(cost.seconds, LONG / 2))]
        return command(*words)


def _table(cost: Forecast, data: Dataset, reason: str, device: str) -> dict[str, Any]:
    """All figures, for a program."""
    plan = cost.plan
    return {
        **{name: value for name, value in vars(cost).items() if name not in ("speed", "plan")},
        "batch": plan.batch,
        "images": plan.images,
        "grids": plan.grids,
        "passes": len(plan.held_out_steps),
        "speed": None if cost.speed is None else vars(cost.speed),
        "memory_bytes": cost.memory,
        "disk_bytes": cost.disk,
        "images_per_second": cost.images_per_second,
        "seconds": cost.seconds,
        "suggested_budget": None if cost.seconds is None else suggested(min(cost.seconds, LONG / 2)),
        "fitting_batch": cost.fitting_batch,
        "device": device,
        "preset": reason,
        "shape": data.shape,
    }


def _text(cost: Forecast, data: Dataset, reason: str, device: str, command: str, whose: str) -> str:
    here = f"; {size(cost.memory_here)} are available" if cost.memory_here else ""
    forward, step = count(cost.flops), count(3 * cost.flops * cost.plan.batch)
    rows = [
        ("data", data.summary()),
        ("preset", with_source(reason)),
        ("network", f"{cost.parameters:,} parameters"),
        ("arithmetic", f"{forward}FLOP an image forward, {step}FLOP a step"),
        (
            "memory",
            f"about {size(cost.memory)} with {plural(cost.at_once, 'image')} at once: {size(cost.state_bytes)} of "
            f"weights, gradients, moments and average, {size(cost.activation_bytes)} an image{here}",
        ),
        (
            "disk",
            f"{size(cost.disk)}: {size(cost.store_bytes)} of decoded images, {size(cost.run_bytes)} of checkpoints "
            f"and weights; {size(cost.disk_here)} are free",
        ),
        ("speed", _speed(cost, device)),
        ("length", f"{cost.plan.images:,} images, {whose}: each image {cost.epochs:,.1f} times"),
        (
            "time",
            "" if cost.seconds is None else f"{duration(cost.seconds)}, sample grids and held-out losses included",
        ),
        ("an hour", _hour(cost, data)),
        ("train it", command),
    ]
    return "\n".join([facts(rows), *(f"- {line}" for line in advice(cost))])


def _speed(cost: Forecast, device: str) -> str:
    if cost.speed is None:
        return "not measured (--seconds 0)"
    return (
        f"{cost.images_per_second:,.1f} images/s on {device}, measured here; {cost.speed.step * 1e3:,.0f} ms a step, "
        f"{cost.speed.grid:.1f} s a sample grid"
    )


def _hour(cost: Forecast, data: Dataset) -> str:
    """What a training of an hour sees, and what that is worth; empty where the speed was not measured."""
    if cost.images_per_second is None:
        return ""
    from sfumato.evaluate.need import worth

    images = HOUR_OF_STEPS * cost.images_per_second
    seen = f"of training sees {count(images)} images, each {images / max(1, cost.train_images):,.1f} times"
    return f"{seen}\n{worth(int(images), data.shape)}"


def advice(cost: Forecast) -> list[str]:
    """Return advice in sentences; [] where there is none."""
    lines = []
    batch = cost.fitting_batch
    if batch is not None and cost.memory > cost.memory_here:
        same = f"use --train.micro {batch}: so many images at once, the same batch of {cost.plan.batch} for a step"
        remedy = same if batch else "use a smaller network (--net.base)"
        needed, available = size(cost.memory), size(cost.memory_here)
        lines.append(f"this will not fit: {needed} are needed and {available} are available; {remedy}")
    if cost.disk > cost.disk_here:
        lines.append(f"the disk is too small: {size(cost.disk)} are needed and {size(cost.disk_here)} are free")
    if cost.seconds is not None and cost.seconds > LONG:
        lines.append(
            "this takes long: a smaller preset (--preset small64, faces), smaller images (--data.size 32,32) or a GPU "
            "would shorten it; a --budget trains on fewer images, and the learning rate still decays to its end"
        )
    if cost.epochs > 2000:
        lines.append(
            f"each image would be seen {cost.epochs:,.0f} times: expect copies of the training images; collect more, "
            "or train for less"
        )
    return lines


VERB = Plan
