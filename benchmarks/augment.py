"""What altering images costs beside the training step that it is part of, and what the resampling loses.

    python benchmarks/augment.py [--p 0.12]

Times are medians of processor time on one thread. "There and back" turns images by 10 degrees and back and compares
their middle (a fifth of each side left off) with the originals; the other columns are torch's own two interpolations,
put through the same.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from sfumato.config.augment import NUMBERS
from sfumato.config.data import DataConfig
from sfumato.config.presets import resolve
from sfumato.data import Dataset, open_data
from sfumato.data.augment import inverse, resample
from sfumato.train.trainer import Trainer

STEPS = 9


def clock(work: Callable[[], object]) -> float:
    """Seconds of the processor, the median of some goes after one that isn't counted."""
    taken = []
    for _ in range(STEPS + 1):
        start = time.process_time()
        work()
        taken.append(time.process_time() - start)
    return statistics.median(taken[1:])


def cost(name: str, p: float, data: Dataset) -> str:
    config = resolve(name, overrides={"train.images": "1000000", "augment.p": str(p)})
    trainer, positions = Trainer(config, data), torch.arange(config.train.batch)
    x = trainer.encode(data.batch(positions, 0).x)
    whole, part = clock(trainer.step), clock(lambda: trainer.altered(x, positions))
    return f"batch {len(x)}: step {1e3 * whole:6.1f} ms, of it augmentation {1e3 * part:5.2f} ms, {part / whole:.1%}"


def torch_look(mode: str) -> Callable[[Tensor, Tensor], Tensor]:
    """The same reading by one of torch's interpolations."""

    def look(x: Tensor, matrix: Tensor) -> Tensor:
        side = torch.tensor([x.shape[-1] - 1, x.shape[-2] - 1]) / 2
        theta = matrix * torch.cat((side, torch.ones(1))) / side[:, None]
        grid = F.affine_grid(theta.to(x), list(x.shape), align_corners=True)
        return F.grid_sample(x, grid, mode=mode, padding_mode="reflection", align_corners=True)

    return look


def there_and_back(x: Tensor) -> str:
    def turn(degrees: float) -> Tensor:
        numbers = torch.zeros(len(x), NUMBERS)
        numbers[:, 3], numbers[:, 4] = math.cos(math.radians(degrees)) - 1, math.sin(math.radians(degrees))
        return inverse(numbers, *x.shape[-2:])

    found, edge = [], max(1, x.shape[-1] // 5)
    for name, look in (("spline", resample), ("bicubic", torch_look("bicubic")), ("bilinear", torch_look("bilinear"))):
        error = (look(look(x, turn(10)), turn(-10)) - x)[..., edge:-edge, edge:-edge].double().square().mean()
        found.append(f"{name} {10 * math.log10(4 / float(error)):.1f} dB")
    return ", ".join(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--p", type=float, default=0.12)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name in ("digits", "faces", "fashion"):
        data = open_data(DataConfig(name))
        images = data.gather(torch.arange(64))[0].float() / 127.5 - 1
        print(f"{name:8} {cost(name, arguments.p, data)}; there and back: {there_and_back(images)}", flush=True)


if __name__ == "__main__":
    main()
