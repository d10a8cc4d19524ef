"""The cost of a network, counted before it is run: its parameters, and one image's FLOPs and memory.

A multiplication and an addition count as 2 FLOPs (papers that say "MACs" mean half of it). Convolutions, dense layers
and the products of attention are counted, as the code executes them; normalisation, silu, softmax, biases and sums are
not, since memory bounds them. A training step costs about three forward passes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class Cost:
    """The cost of one image.

    Attributes:
        parameters: numbers that the network learns.
        matrices: how many of them are in its inner matrices (`Network.matrices`).
        flops: of a forward pass: twice the number of multiply-add pairs in convolutions, dense layers and attention. In
            a batch the products of weights in them are taken once.
        activation_bytes: what a forward pass keeps for the backward pass, float32. On a CPU the peak of a training
            step's own memory was measured at 0.75 to 0.86 of this times the batch (`benchmarks/memory.py`).
    """

    parameters: int
    matrices: int
    flops: int
    activation_bytes: int


def parameters(net: nn.Module) -> int:
    """Return how many numbers a network learns."""
    return sum(parameter.numel() for parameter in net.parameters())


def flops(net: nn.Module, example: tuple[Tensor, ...]) -> int:
    """Count the FLOPs of a forward pass of a network on the meta device."""
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        net.eval()(*example)
    return int(counter.get_total_flops())


def activation_bytes(net: nn.Module, example: tuple[Tensor, ...]) -> int:
    """Count the bytes that a forward pass keeps for the backward pass: each storage once, without the weights."""
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage  # kept alive, so that no address is reused
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        net.train()(*example).square().mean()
    weights = {parameter.untyped_storage()._cdata for parameter in net.parameters()}
    return sum(storage.nbytes() for address, storage in kept.items() if address not in weights)
