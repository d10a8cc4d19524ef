r"""Weights in parts: each rank holds, and updates, some rows of every weight, of its moments, and of its average.

A rank of W keeps 1/W of what a training step keeps besides activations, 20 bytes a parameter in all (Rajbhandari et al.
2020, 1910.02054, ZeRO stage 3), by torch's `fully_shard` (FSDP2, Zhao et al. 2023, 2304.11277): a block's weights are
gathered before it is computed and freed after it, and each rank gets the sum of its rows' gradients. Everything else
is elementwise and works on rows, but for two: the norm of the gradient is summed over the ranks, and Muon gathers the
matrices that it orthogonalises.

    rank r of a weight with m rows holds the rows from r ceil(m / W) to (r + 1) ceil(m / W)

Whole tensors are gathered for checkpoints, so a run folder does not say how many ranks wrote it, or whether they
divided the weights; and for the network that sampling and held-out losses use, which for that time is whole on every
device: four bytes a parameter.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from sfumato.errors import UserError
from sfumato.ranks import World

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


class Shards:
    """The weights that this rank updates: rows of those of a network, or, where it is not divided, all of them.

    Args:
        net: the network; it is divided in place, where it is to be.
        world: the ranks.
        on: whether to divide it; one process alone never does.

    Attributes:
        on: whether it is divided.
        weights: the rows of this rank by the weight's name; they share memory with the network's.
        shapes: of the whole weights.
    """

    def __init__(self, net: nn.Module, world: World = World(), on: bool = False) -> None:
        self.world, self.on = world, on and not world.alone
        self.shapes = {name: tuple(weight.shape) for name, weight in net.named_parameters()}
        if self.on:
            _divide(net, world)
        self._divided = dict(net.named_parameters())
        self.weights: dict[str, Tensor] = (
            {name: _rows(weight) for name, weight in self._divided.items()} if self.on else dict(self._divided)
        )

    def here(self, name: str) -> slice:
        """The rows of a weight that this rank has."""
        first = self.world.rank * -(-self.shapes[name][0] // self.world.size)
        return slice(first, first + len(self.weights[name]))

    def collect(self) -> None:
        """Give every weight the gradient of its rows, after the last part of a batch."""
        for name, weight in self._divided.items() if self.on else ():
            assert _rows(weight).data_ptr() == self.weights[name].data_ptr(), "torch has moved the weights"
            self.weights[name].grad = None if weight.grad is None else _rows(weight.grad)
            weight.grad = None

    def norms(self, own: Tensor) -> Tensor:
        """Return the norms of whole tensors, of which `own` are those of this rank's rows."""
        return self.world.sum(own.double().square()).sqrt().to(own.dtype) if self.on else own

    def whole(self, name: str, rows: Tensor) -> Tensor:
        """Return a whole tensor of a weight's shape, of which every rank gives its rows."""
        return self.world.gather(rows, self.here(name), self.shapes[name][0])

    def gathered(self, named: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return tensors by name, those whole that are divided: the last part of their name is a weight's."""
        parts = {key for key, each in named.items() if self._is_part(key, each)}
        return {key: self.whole(_weight(key), each) if key in parts else each for key, each in named.items()}

    def fitting(self, key: str, tensor: Tensor, given: Tensor) -> Tensor:
        """Return a whole tensor that is to fill a tensor, or rows of one; raises KeyError for another shape."""
        if tuple(given.shape) != (self.shapes[_weight(key)] if self._is_part(key, tensor) else tuple(tensor.shape)):
            raise KeyError(f"{key} has another shape")
        return given

    @torch.no_grad()
    def receive(self, key: str, tensor: Tensor, given: Tensor | None) -> None:
        """Fill a tensor, or this rank's rows of one, with the whole one that rank 0 was given, or has."""
        part = self._is_part(key, tensor)
        whole = tensor.new_empty(self.shapes[_weight(key)]) if part else tensor
        if given is not None:
            whole.copy_(given)
        self.world.broadcast([whole])
        if part:
            tensor.copy_(whole[self.here(_weight(key))])

    def _is_part(self, key: str, tensor: Tensor) -> bool:
        return self.on and tensor.ndim > 0 and _weight(key) in self.shapes


def check_shards(batch: int, world: World, compiled: bool, optimizer: str) -> None:
    """Raise `UserError` where weights can't be divided: every rank must compute the same number of images, and the
    network as it is."""
    if batch % world.size:
        less, more = (batch // world.size) * world.size, -(-batch // world.size) * world.size
        raise UserError(
            f"train.shard: {world.size} processes can't share {batch} images a step in equal parts: set "
            f"--train.batch={less or more} or {more}"
        )
    if compiled and not world.alone:
        raise UserError("train.shard and train.compile can't be combined: set one of them false")
    if optimizer == "adamw8bit" and not world.alone:
        raise UserError("train.shard divides the moments already: with it set optim.name=adamw, not adamw8bit")


def _divide(net: nn.Module, world: World) -> None:
    """Divide the blocks of a network, and what is outside of them together."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    device = next(net.parameters()).device
    mesh = init_device_mesh(device.type, (world.size,))
    blocks: list[nn.Module] = cast(Any, net).recomputable()
    net.register_forward_hook(_own)
    for block in [*blocks, net]:
        fully_shard(block, mesh=mesh)
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(_as_images)


def _as_images(_: nn.Module, inputs: Any, output: Tensor) -> Tensor:
    """Give what a convolution returns the layout that it has where weights are whole: dropout draws in its order."""
    return output.contiguous(memory_format=torch.channels_last)


def _own(_: nn.Module, inputs: Any, output: Tensor) -> Tensor:
    """Give the output of the network memory of its own: `fully_shard` warns of views."""
    return output.clone() if output._is_view() else output


def _rows(weight: Tensor) -> Tensor:
    """The rows that this rank has, without the history of how they came about."""
    return cast("DTensor", weight).to_local().detach()


def _weight(key: str) -> str:
    """The weight's name in a name such as `exp_avg/exit.weight`."""
    return key.rpartition("/")[2]
