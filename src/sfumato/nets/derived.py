"""Tensors that a network computes from its weights alone, such as the product of two of them.

In training they follow the weights and are computed at every call, so that gradients pass through them. A sampler calls
the network many times with the same weights: `fixed` computes them once. It also asks for the same times with every
batch, and for the same conditions at every time, so a part of the network that reads nothing else can be computed
`once`. The results have the same bits.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

Net = TypeVar("Net", bound=nn.Module)

_MOST_KEPT = 256
"""Results that one module keeps."""


class Derives(nn.Module):
    """A module whose `forward` reads `derived()`, which `derive` computes from the weights."""

    _fixed: tuple[Tensor, ...] | None = None
    _kept: dict[Any, tuple[tuple[Any, ...], list[int], Tensor | None]]

    def derive(self) -> tuple[Tensor, ...]:
        """Compute the tensors; nothing but the module's weights may go into them."""
        raise NotImplementedError

    def derived(self) -> tuple[Tensor, ...]:
        """Return the tensors: computed anew, or those of `fixed`."""
        return self.derive() if self._fixed is None else self._fixed

    def once(self, function: Callable[..., Tensor], *inputs: Any) -> Tensor:
        """Return function(*inputs), which reads nothing else but weights. After `fixed`, on a CPU and without gradients
        the result is kept and returned for the same objects. A change in place of a tensor among them, or in a field of
        one, is noticed, except that of a field made in `torch.inference_mode`."""
        if self._fixed is None or torch.is_grad_enabled() or torch.is_autocast_enabled("cpu"):
            return function(*inputs)
        if any(isinstance(value, Tensor) and value.is_inference() for value in inputs):
            return function(*inputs)
        key = function, *(value if isinstance(value, int) else id(value) for value in inputs)
        versions = [version for value in inputs for version in _versions(value)]
        before, then, result = self._kept.get(key, ((), [], None))
        same = then == versions and all(a is b or isinstance(a, int) for a, b in zip(before, inputs, strict=False))
        if result is None or not same:
            result = function(*inputs)
            if result.device.type == "cpu":
                if len(self._kept) >= _MOST_KEPT:
                    self._kept.clear()
                self._kept[key] = inputs, versions, result
        return result


def _versions(value: Any) -> list[int]:
    """How often a tensor, or those in the fields of a condition, were changed in place."""
    held = (value,) if isinstance(value, Tensor) else getattr(value, "__dict__", {}).values()
    return [0 if tensor.is_inference() else tensor._version for tensor in held if isinstance(tensor, Tensor)]


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
                module._fixed, module._kept = module.derive(), {}
    return steady
