"""`sfumato plan`: what a training would cost here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from tyro.conf import Positional

from sfumato.cli.console import pick_device, print_json, progress
from sfumato.cli.options import Flag, Overrides, option
from sfumato.errors import UserError
from sfumato.report.text import count, duration, facts, size

if TYPE_CHECKING:
    from sfumato.data import Dataset
    from sfumato.train.plan import Forecast

__all__ = ["VERB", "Plan"]

LONG = 24 * 3600.0
"""Seconds after which a shorter way is worth naming."""


@dataclass(frozen=True)
class Plan:
    """Estimate what training on some images would cost here: parameters, arithmetic, memory, disk, and time, from the
    speed measured on this machine.

    Nothing is trained and nothing is written, but for the store of decoded images.
    """

    EXAMPLES: ClassVar[tuple[str, ...]] = (
        "sfumato plan ~/photos",
        "sfumato plan faces --preset faces --train.batch 128",
        "sfumato plan ~/photos --preset celeba64-ddpm --seconds 60 --json",
    )

    data: Annotated[str, Positional, option("DATA")]
    """a built-in name (see `sfumato data`), or a folder of images"""
    preset: Annotated[str | None, option("NAME")] = None
    """which settings; chosen by the images by default"""
    config: Annotated[Path | None, option("FILE.toml")] = None
    """a file of values, laid over the preset's"""
    seconds: float = 20.0
    """how long to measure; 0 measures nothing"""
    device: Annotated[str, option("auto|cpu|cuda")] = "auto"
    """where to compute; a GPU where there is one by default"""
    json: Flag = False
    """print one JSON object instead of text"""
    overrides: Overrides = ()

    def perform(self) -> int:
        """Count, measure and print."""
        from sfumato.nets import keep_memory
        from sfumato.train.choose import choose, default_run
        from sfumato.train.plan import forecast

        if self.seconds < 0:
            raise UserError(f"--seconds is {self.seconds:g}: give 0 or more")
        device = pick_device(self.device)
        if device.type == "cpu":
            keep_memory()
        values = {"data.source": self.data} | dict(self.overrides)
        config, data, reason = choose(self.preset, self.config, values, device, progress("reading images"))
        preset = reason.partition(":")[0]
        found = forecast(config, data, default_run(data.source_name, preset), device, self.seconds)
        if self.json:
            print_json(_table(found, data, reason, str(device)))
        else:
            print(_text(found, data, reason, str(device), self._command(preset, found)))
        return 0

    def _command(self, preset: str, found: Forecast) -> str:
        """The command that would train this."""
        words = [f"--{key}={value}" for key, value in self.overrides]
        given = [f"--config {self.config}"] if self.config else []
        seconds = None if found.seconds is None else min(found.seconds, LONG / 2)
        budget = "" if seconds is None else f" --budget {suggested(seconds)}"
        return " ".join(["sfumato train", self.data, f"--preset {preset}", *given, *words]) + budget


def suggested(seconds: float) -> str:
    """Return a round duration of at least so many seconds, as `--budget` reads it: 90s, 25m, 3h."""
    for unit, name, steps in ((1, "s", (30, 60, 90)), (60, "m", (2, 3, 5, 10, 15, 20, 30, 45, 60, 90))):
        for step in steps:
            if seconds <= step * unit * 1.02:
                return f"{step}{name}"
    return f"{-(-int(seconds) // 3600)}h"


def _table(found: Forecast, data: Dataset, reason: str, device: str) -> dict[str, Any]:
    """All figures, for a program."""
    plan = found.plan
    return {
        **{name: value for name, value in vars(found).items() if name not in ("speed", "plan")},
        "batch": plan.batch,
        "images": plan.images,
        "grids": plan.grids,
        "passes": len(plan.held_out_steps),
        "speed": None if found.speed is None else vars(found.speed),
        "memory_bytes": found.memory,
        "disk_bytes": found.disk,
        "images_per_second": found.images_per_second,
        "seconds": found.seconds,
        "suggested_budget": None if found.seconds is None else suggested(min(found.seconds, LONG / 2)),
        "fitting_batch": found.fitting_batch,
        "device": device,
        "preset": reason,
        "shape": data.shape,
    }


def _text(found: Forecast, data: Dataset, reason: str, device: str, command: str) -> str:
    here = f"; {size(found.memory_here)} are available" if found.memory_here else ""
    forward, step = count(found.flops), count(3 * found.flops * found.plan.batch)
    rows = [
        ("data", data.summary()),
        ("preset", reason),
        ("network", f"{found.parameters:,} parameters"),
        ("arithmetic", f"{forward}FLOP an image forward, {step}FLOP a step"),
        (
            "memory",
            f"about {size(found.memory)} at batch {found.plan.batch}: {size(found.state_bytes)} of weights, gradients, "
            f"moments and average, {size(found.activation_bytes)} an image{here}",
        ),
        (
            "disk",
            f"{size(found.disk)}: {size(found.store_bytes)} of decoded images, {size(found.run_bytes)} of checkpoints "
            f"and weights; {size(found.disk_here)} are free",
        ),
        ("speed", _speed(found, device)),
        ("length", f"{found.plan.images:,} images, the preset's usual number: each image {found.epochs:,.1f} times"),
        (
            "time",
            "" if found.seconds is None else f"{duration(found.seconds)}, sample grids and held-out losses included",
        ),
        ("train it", command),
    ]
    return "\n".join([facts(rows), *(f"- {line}" for line in advice(found))])


def _speed(found: Forecast, device: str) -> str:
    if found.speed is None:
        return "not measured (--seconds 0)"
    return (
        f"{found.images_per_second:,.1f} images/s on {device}, measured here; {found.speed.step * 1e3:,.0f} ms a step, "
        f"{found.speed.grid:.1f} s a sample grid"
    )


def advice(found: Forecast) -> list[str]:
    """Return what the figures advise, in sentences; nothing where all is well."""
    lines = []
    batch = found.fitting_batch
    if batch is not None and found.memory > found.memory_here:
        remedy = f"use --train.batch {batch}" if batch else "use a smaller network (--net.base)"
        needed, available = size(found.memory), size(found.memory_here)
        lines.append(f"this will not fit: {needed} are needed and {available} are available; {remedy}")
    if found.disk > found.disk_here:
        lines.append(f"the disk is too small: {size(found.disk)} are needed and {size(found.disk_here)} are free")
    if found.seconds is not None and found.seconds > LONG:
        lines.append(
            "this takes long: a smaller preset (--preset small64, faces), smaller images (--data.size 32,32) or a GPU "
            "would shorten it; a --budget trains on fewer images, and the learning rate still decays to its end"
        )
    if found.epochs > 2000:
        lines.append(
            f"each image would be seen {found.epochs:,.0f} times: expect copies of the training images; gather more, "
            "or train for less"
        )
    return lines


VERB = Plan
