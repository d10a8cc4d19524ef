"""Images of a seed by several processes: each takes its batches in turn, and all of them get every image.

Image i of seed s is a function of (s, i), so nothing else has to be divided. The batches are those of one process, so
the images have its bits on equal machines with equal numbers of threads; only where there are fewer batches than
processes they are smaller, which kernels may round differently.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from sfumato.diffusion.condition import Condition
from sfumato.generate.sample import OnState, Report, Sampling, counted
from sfumato.ranks import World


def stream(
    sampling: Sampling,
    num: int,
    seed: int = 0,
    *,
    world: World,
    condition: Condition | None = None,
    batch: int = 64,
    first: int = 0,
    on_state: OnState | None = None,
    report: Report | None = None,
) -> Iterator[tuple[int, Tensor]]:
    """Yield images as `Sampling.stream` does, on every process of a job; all of them must call it.

    Args:
        sampling: the same on each. The other arguments are those of `Sampling.stream`.
        world: the processes; one alone samples as `Sampling.stream`.
        batch: images at a time on each process, at most an equal part of all.
        on_state: called with the states of this process's batches.
        report: called with this process's progress as that of all.
    """
    if world.alone:
        yield from sampling.stream(
            num, seed, condition=condition, batch=batch, first=first, on_state=on_state, report=report
        )
        return
    batch = min(batch, -(-num // world.size))
    if report is not None:
        on_state = counted(report, num * (len(sampling.times) - 1), on_state, world.size)
    for start in range(0, num, batch * world.size):
        total = min(batch * world.size, num - start)
        begin, end = (min(batch * rank, total) for rank in (world.rank, world.rank + 1))
        parts = sampling.stream(
            end - begin, seed, condition=condition, batch=batch, first=first + start + begin, on_state=on_state
        )
        own = [images for _, images in parts] or [torch.zeros(0, *sampling.shape)]
        yield first + start, world.gather(torch.cat(own), slice(begin, end), total)
