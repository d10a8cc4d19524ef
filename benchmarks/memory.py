"""What a training step's activations take, measured against what `Network.cost` says beforehand.

    python benchmarks/memory.py

Each network runs in a process of its own, since the figure is the rise of that process's peak (Linux's ru_maxrss).
"""

from __future__ import annotations

import resource
import subprocess
import sys

import torch

from sfumato.config.presets import PRESETS
from sfumato.nets import Interface

CASES = (("small16", 3, 16, 64), ("small32", 1, 28, 64), ("small64", 3, 64, 16), ("cifar10-ddpm", 3, 32, 8))


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(name: str, channels: int, side: int, batch: int) -> None:
    """Print one row."""
    config = PRESETS[name].config.net
    net = config.build(Interface(channels)).train().to(memory_format=torch.channels_last)
    x = torch.randn(batch, channels, side, side).contiguous(memory_format=torch.channels_last)
    net(x[:1], torch.zeros(1)).square().mean().backward()
    before = peak()
    net(x, torch.zeros(batch)).square().mean().backward()
    measured, said = peak() - before, net.cost(side, side).activation_bytes * batch
    print(f"{name:14} batch {batch:3}: measured {measured / 1e6:6.0f} MB, foretold {said / 1e6:6.0f} MB, "
          f"{measured / said:.2f}")  # fmt: skip


if __name__ == "__main__":
    if len(sys.argv) > 1:
        measure(sys.argv[1], *map(int, sys.argv[2:]))
    else:
        for case in CASES:
            subprocess.run([sys.executable, __file__, *map(str, case)], check=True)
