"""What a training will cost, said before it starts: arithmetic, memory, disk, time.

With P parameters, N images of C x H x W bytes, batches of B and A bytes of activations an image,

    memory  = 20 P + A B          weights, gradients, two moments and the average, four bytes each, and activations
    disk    = N C H W + 60 P      the store; three checkpoints of 16 P (two, and the one being written), three weights
    time    = steps * step + grids * grid + passes * pass

Arithmetic, memory and disk are counted without allocating the network; seconds are measured here, on a throw-away
learner of the very configuration, since no table of machines is as good as twenty seconds on this one.
"""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from sfumato.config.config import Config
from sfumato.data import Dataset
from sfumato.model import cost_of
from sfumato.train.plan import Speed, measure
from sfumato.train.trainer import Learner

__all__ = ["Forecast", "forecast"]


CPU_FLOPS = 4e10
"""A guess at what a CPU does in a second, only to choose how many images to measure with."""


@dataclass(frozen=True)
class Forecast:
    """What a training costs.

    Attributes:
        parameters: P.
        flops: of one image's forward pass.
        batch: images a step.
        images: length; the preset's usual one where none was asked for.
        state_bytes: weights, gradients, moments and average, in memory.
        activation_bytes: of one image.
        store_bytes: the decoded images, on disk.
        run_bytes: checkpoints and weights, on disk.
        memory_here: bytes of the device's memory, 0 where unknown.
        disk_here: bytes free where the run would lie.
        train_images: how many images there are to train on.
        speed: measured seconds of a step, a grid and a held-out pass; None where nothing was measured.
        grids: sample grids on the way.
        passes: held-out passes.
    """

    parameters: int
    flops: int
    batch: int
    images: int
    state_bytes: int
    activation_bytes: int
    store_bytes: int
    run_bytes: int
    memory_here: int
    disk_here: int
    train_images: int
    speed: Speed | None
    grids: int
    passes: int

    @property
    def memory(self) -> int:
        """Bytes that a training step needs."""
        return self.state_bytes + self.activation_bytes * self.batch

    @property
    def disk(self) -> int:
        """Bytes that store and run need."""
        return self.store_bytes + self.run_bytes

    @property
    def epochs(self) -> float:
        """How often each image is seen."""
        return self.images / max(1, self.train_images)

    @property
    def images_per_second(self) -> float | None:
        """Measured, while stepping."""
        return None if self.speed is None else self.batch / self.speed.step

    @property
    def seconds(self) -> float | None:
        """How long all of it takes."""
        if self.speed is None:
            return None
        looks = self.grids * self.speed.grid + self.passes * self.speed.held_out
        return math.ceil(self.images / self.batch) * self.speed.step + looks

    @property
    def fitting_batch(self) -> int | None:
        """The largest power of two that the memory holds with a fifth to spare; None where that is unknown."""
        room = 0.8 * self.memory_here - self.state_bytes
        if not self.memory_here:
            return None
        return 2 ** int(math.log2(room / self.activation_bytes)) if room >= self.activation_bytes else 0


def forecast(
    config: Config, data: Dataset, place: Path, device: torch.device | str = "cpu", seconds: float = 20.0
) -> Forecast:
    """Count and measure what a training would cost. Nothing is written.

    Args:
        config: what would be trained, fitted to the data.
        data: the images.
        place: where the run would lie; its nearest existing parent says how much room there is.
        device: where it would be trained.
        seconds: to spend on measuring; 0 measures nothing.
    """
    device, train = torch.device(device), config.train
    cost = cost_of(config, data)
    images = train.images or 10**9  # the rate's decay wants a length, its speed does not depend on it
    known = replace(config, train=replace(train, images=images))
    return Forecast(
        parameters=cost.parameters,
        flops=cost.flops,
        batch=train.batch,
        images=images,
        state_bytes=20 * cost.parameters,
        activation_bytes=cost.activation_bytes,
        store_bytes=int(data.images.nbytes),
        run_bytes=60 * cost.parameters,
        memory_here=_memory(device),
        disk_here=shutil.disk_usage(_existing(place)).free,
        train_images=len(data.train),
        speed=_speed(known, data, device, seconds, cost.flops) if seconds else None,
        grids=train.grids,
        passes=train.held_outs + 1 if train.held_outs and len(data.held_out) else 0,
    )


def _speed(config: Config, data: Dataset, device: torch.device, seconds: float, flops: int) -> Speed:
    """Measure, with fewer images where a single step on a CPU would outlast the time given, and scale up again."""
    train, share = config.train, 1.0
    if device.type == "cpu":
        share = min(1.0, seconds / 6 * CPU_FLOPS / (3 * flops * train.batch))
    few = {
        name: max(1, int(share * getattr(train, name)))
        for name in ("batch", "grid_images", "held_out_images")
        if getattr(train, name)
    }
    less = replace(train, **few)  # type: ignore[arg-type]
    speed = measure(Learner(replace(config, train=less), data, device), less, seconds)
    scale = {name: getattr(train, name) / number for name, number in few.items()}
    return Speed(
        speed.step * scale["batch"],
        speed.grid * scale["grid_images"],
        speed.held_out * scale.get("held_out_images", 1.0),
    )


def _memory(device: torch.device) -> int:
    """The device's memory in bytes, 0 where nobody says."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    try:
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), 0)


def _existing(place: Path) -> Path:
    """The nearest folder above a place, or itself, that exists."""
    return next(folder for folder in (place.absolute(), *place.absolute().parents) if folder.is_dir())
