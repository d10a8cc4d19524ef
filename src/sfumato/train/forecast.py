"""What a training costs: memory, disk and time.

With P parameters, N images of V bytes, batches of B and A bytes of activations an image, a training needs

    memory = 20 P + A B     weights, gradients, two moments and the average, four bytes each, and activations
    disk   = N V + 60 P     the store; three checkpoints of 16 P (two, and the one being written), three weights files;
                            16 P more for each checkpoint that is kept (`train.keep`), 8 P for each of `ema.snapshots`

Muon keeps one moment of its matrices, not two: M of them save 4 M and 12 M bytes. Moments of 8 bits save 6 P and 18 P.
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
from sfumato.run.plan import Plan
from sfumato.train.budget import Speed, plan_for
from sfumato.train.plan import given_plan, with_images
from sfumato.train.speed import scaled


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
    config = with_images(config, config.train.images or 10**9)
    speed = scaled(config, data, device, seconds, cost.flops) if seconds else None
    plan = given_plan(config.train) if asked.budget is None or speed is None else plan_for(asked, speed, 0.0)
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
