r"""A step's gradient in parts: over the ranks of a job, and on each over as many images as its memory holds.

The batch of B images is one, whatever the number of ranks W: rank r computes the rows from B r / W on, M at a time,

    g = sum over ranks, parts and images of grad loss_i / B

so the result is that of one process, up to the rounding of sums. Ranks add their sums by DistributedDataParallel (Li et
al. 2020, 2006.15704), which divides by W, hence the factor W in `Shares.scale`; the addition runs while the rest of the
gradient is still being computed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from sfumato.diffusion.noise import Purpose, words
from sfumato.errors import UserError
from sfumato.nets import Network
from sfumato.nets.dropout import part_of_batch
from sfumato.ranks import World


@contextmanager
def seeded(seed: int, purpose: Purpose, index: int, device: torch.device) -> Iterator[None]:
    """Seed torch's generators, on the CPU and on the device, from a random key, and restore them afterwards."""
    high, low = words(seed, purpose, torch.tensor([index]), 2)[0].tolist()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(high << 32 | low)
        yield


class Shares:
    """How a batch is divided.

    Args:
        world: the ranks.
        batch: images of a step, B.
        micro: images at once on each rank, M; None takes its whole share.

    Raises:
        UserError: there are more ranks than images.
    """

    def __init__(self, world: World, batch: int, micro: int | None) -> None:
        if batch < world.size:
            raise UserError(f"{world.size} processes can't share {batch} images a step: set --train.batch={world.size}")
        self.world, self.batch = world, batch
        self.here = world.rows(batch)
        self.micro = min(micro or batch, self.here.stop - self.here.start)

    @property
    def scale(self) -> float:
        """What the sum of a part's losses is multiplied by before its gradient is taken: W / B."""
        return self.world.size / self.batch

    def parts(self) -> Iterator[slice]:
        """Yield the rows of the batch that are computed at once, one part after the other."""
        for first in range(self.here.start, self.here.stop, self.micro):
            yield slice(first, min(first + self.micro, self.here.stop))

    def is_last(self, part: slice) -> bool:
        """Whether a part is this rank's last one."""
        return bool(part.stop == self.here.stop)

    def alone(self, net: nn.Module) -> AbstractContextManager[None]:
        """Compute a gradient that is not added to those of the other ranks."""
        return net.no_sync() if isinstance(net, DistributedDataParallel) else nullcontext()

    @contextmanager
    def computing(self, part: slice, net: nn.Module) -> Iterator[None]:
        """Compute a part: its dropout is of its own rows, and only with the last one the ranks add their gradients."""
        with ExitStack() as stack:
            stack.enter_context(part_of_batch(part.start, self.batch))
            adds = self.is_last(part) or not isinstance(net, DistributedDataParallel)  # divided weights with each part
            stack.enter_context(self.world.waiting() if adds else self.alone(net))
            yield


def spread(net: nn.Module, world: World, device: torch.device, compiled: bool = False) -> nn.Module:
    """Return a network whose gradients are averages over the ranks, compiled or not; for one process the network.

    Compiled code draws dropout from the same generator as the other code does, so the masks are the same.
    """
    if compiled:
        net.compile(dynamic=False, options={"fallback_random": True})
    if world.alone:
        return net
    ids: list[Any] | None = [device] if device.type == "cuda" else None
    return DistributedDataParallel(net, device_ids=ids, gradient_as_bucket_view=True)


def recompute(net: Network, on: bool) -> None:
    """Have the blocks of a network keep their inputs only, and compute their activations again for the gradient (Chen
    et al. 2016, 1604.06174); dropout has the same masks both times. Raises `UserError` where the network does not say
    what its blocks are."""
    blocks = net.recomputable() if on else []
    if on and not blocks:
        raise UserError(f"train.recompute: {type(net).__name__} has no blocks that can be computed again: set it false")
    for block in blocks:
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)  # type: ignore[method-assign]
