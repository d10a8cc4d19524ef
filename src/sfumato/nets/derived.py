"""Tensors that a network computes from its weights alone, such as the product of two of them.

In training they follow the weights and are computed at every call, so that gradients pass through them. A sampler calls
the network many times with the same weights: `fixed` computes them once. The results have the same bits.
"""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn

Net = TypeVar("Net", bound=nn.Module)


class Derives(nn.Module):
    """A module whose `forward` reads `derived()`, which `derive` computes from the weights."""

    _fixed: tuple[Tensor, ...] | None = None

    def derive(self) -> tuple[Tensor, ...]:
        """Compute the tensors; nothing but the module's weights may go into them."""
        raise NotImplementedError

    def derived(self) -> tuple[Tensor, ...]:
        """Return the tensors: computed anew, or those of `fixed`."""
        return self.derive() if self._fixed is None else self._fixed


def twin(net: Net) -> Net:
    """Return a copy of a network's modules that shares its weights."""
    return copy.deepcopy(net, {id(tensor): tensor for tensor in (*net.parameters(), *net.buffers())})


def fixed(net: Net) -> Net:
    """Return a network that shares the weights and computes what is derived from them only now.

    It is right for as long as the weights stay as they are; they get no gradients through what is derived. A network
    without such modules is returned itself.
    """
    if not any(isinstance(module, Derives) for module in net.modules()):
        return net
    steady = twin(net)
    with torch.inference_mode(False), torch.no_grad():  # tensors that a gradient may pass through later
        for module in steady.modules():
            if isinstance(module, Derives):
                module._fixed = module.derive()
    return steady
