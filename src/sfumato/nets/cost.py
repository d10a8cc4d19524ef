"""What a network costs before it is run: its parameters, and the arithmetic of one image.

A 3x3 convolution from I to O channels on H x W pixels does 9 I O H W multiplications and as many additions; each pair
counts as 2 FLOPs here (papers that say "MACs" mean half of it). Counted are convolutions, dense layers and the two
products of attention, as this code executes them: doubling costs 4 products a pixel and channel pair, not 9 (see
`sfumato.nets.blocks`). Not counted is what is bound by memory rather than arithmetic: normalisation, silu, softmax,
biases, sums. One training step costs about three times a forward: the gradients with respect to activations and to
weights cost as much as the forward each.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from sfumato.nets.unet import UNet, UNetConfig

__all__ = ["activation_bytes", "flops", "parameters"]


def parameters(net: nn.Module) -> int:
    """Return how many numbers `net` learns."""
    return sum(parameter.numel() for parameter in net.parameters())


def flops(config: UNetConfig, height: int, width: int) -> int:
    """Count the FLOPs of one image's forward pass, without allocating the network.

    Args:
        config: the network's.
        height: pixels.
        width: pixels.

    Returns:
        twice the number of multiply-add pairs in convolutions, dense layers and attention.
    """
    with torch.device("meta"), torch.inference_mode(), FlopCounterMode(display=False) as counter:
        UNet(config).eval()(torch.empty(1, config.channels, height, width), torch.zeros(1))
    return int(counter.get_total_flops())


def activation_bytes(config: UNetConfig, height: int, width: int) -> int:
    """Count the bytes that one image's forward pass keeps for the backward pass, without allocating anything.

    On a CPU the peak of a training step's own memory was measured at 0.75 to 0.86 of this times the batch
    (`benchmarks/memory.py`), so it errs on the safe side.

    Args:
        config: the network's.
        height: pixels.
        width: pixels.

    Returns:
        bytes an image, float32, each storage counted once, the weights not.
    """
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage  # held, so that no address is given out twice
        return tensor

    with torch.device("meta"):
        net = UNet(config).train()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            net(torch.empty(1, config.channels, height, width), torch.zeros(1)).square().mean()
    weights = {parameter.untyped_storage()._cdata for parameter in net.parameters()}
    return sum(storage.nbytes() for address, storage in kept.items() if address not in weights)
