"""An Apple GPU where there is none: what is said to be on "mps" computes on the CPU, under the rules of such a GPU.

Inside `Apple()` a tensor that is sent to the device is marked, and so is everything that is computed from it. Refused
are float64 on the device, arithmetic on 64-bit integers there (as indices they are allowed), and operations of tensors
on different devices, apart from single numbers of the CPU. What is read back from the device is counted.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

TORCH = str(Path(torch.__file__).parent)
MPS, CPU = torch.device("mps"), torch.device("cpu")
INDEXING = (
    *("index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index", "index_select", "index_add"),
    *("index_add_", "index_copy_", "gather", "scatter", "scatter_", "scatter_add_", "take", "embedding"),
    *("embedding_dense_backward", "nonzero", "arange", "empty", "zeros", "ones", "full"),
)
MOVING = (
    *("_to_copy", "copy_", "clone", "detach", "view", "_unsafe_view", "slice", "select", "expand", "reshape", "alias"),
    *("unsqueeze", "squeeze", "cat", "stack", "permute", "transpose", "t", "split", "unbind", "as_strided"),
    *("empty_like", "zeros_like", "new_zeros", "new_empty", "empty_strided", "_local_scalar_dense", "lift_fresh"),
    *("unfold", "repeat", "flatten"),
)
READING = ("tolist", "item", "numpy", "__bool__", "__float__", "__int__", "__index__", "__contains__")


class Refused(AssertionError):
    """Something that an Apple GPU can't do."""


class _Rules(TorchDispatchMode):
    """Marks results and checks operations."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[int, Tensor] = {}  # marked tensors are kept, so that no other gets the memory of one
        self.moving = self.reads = 0

    def mark(self, x: Any) -> Any:
        if isinstance(x, Tensor):
            self.kept[x.untyped_storage()._cdata] = x
            if x.dtype == torch.float64:
                raise Refused(f"float64 {tuple(x.shape)} on mps")
        return x

    def is_marked(self, x: Any) -> bool:
        return isinstance(x, Tensor) and x.untyped_storage()._cdata in self.kept

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        if self.moving:
            return out
        inputs = [each for each in tree_flatten((args, kwargs or {}))[0] if isinstance(each, Tensor)]
        marked = [each for each in inputs if self.is_marked(each)]
        if not marked:
            return out
        name = function.overloadpacket.__name__
        self.reads += name in ("nonzero", "equal")
        others = [each for each in inputs if not self.is_marked(each) and each.ndim]
        if others and name not in ("index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"):
            raise Refused(f"{name} of tensors on mps and on the CPU")
        results = [each for each in tree_flatten(out)[0] if isinstance(each, Tensor)]
        integers = any(each.dtype == torch.int64 for each in marked + results)
        if integers and name not in INDEXING + MOVING:
            raise Refused(f"{name} of 64-bit integers on mps")
        for each in results:
            self.mark(each)
        return out


class Apple(TorchFunctionMode):
    """Has "mps" be a device; see the module."""

    def __init__(self) -> None:
        super().__init__()
        self.rules = _Rules()

    def __enter__(self):
        self.rules.__enter__()
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        self.rules.__exit__(*error)

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = getattr(function, "__name__", "")
        if function == Tensor.device.__get__:
            return MPS if self.rules.is_marked(args[0]) else CPU
        if name in READING and self.rules.is_marked(args[0]):
            self.rules.reads += 1
        if name in ("to", "cpu") and isinstance(args[0], Tensor):
            within = sys._getframe(1).f_code.co_filename.startswith(TORCH)
            return self._moved(name, args, kwargs, within)
        if name != "_parse_to" and _is_mps(kwargs.get("device")):  # which only reads the arguments of Module.to
            out = function(*args, **{**kwargs, "device": CPU})
            return tree_map(self.rules.mark, out)
        return function(*args, **kwargs)

    def _moved(self, name: str, args: tuple, kwargs: dict, within: bool) -> Tensor:
        x, *rest = args
        target = CPU if name == "cpu" else kwargs.get("device")
        words = []
        for word in rest:
            if isinstance(word, Tensor):
                target = MPS if self.rules.is_marked(word) else CPU
                words.append(word.dtype)
            elif isinstance(word, str | torch.device):
                target = torch.device(word)
            elif isinstance(word, torch.dtype):
                words.append(word)
        kwargs = {key: value for key, value in kwargs.items() if key != "device" and value is not None}
        # torch's own functions ask its C++ part for the device, which answers the CPU: they stay where they are
        if target is None or _is_mps(target) == self.rules.is_marked(x) or (within and not _is_mps(target)):
            return x.to(*words, **kwargs) if words or kwargs else x
        self.rules.reads += not _is_mps(target)
        self.rules.moving += 1
        try:
            kwargs.pop("copy", None)
            out = x.clone()
            out = out.to(*words, **kwargs) if words or kwargs else out
        finally:
            self.rules.moving -= 1
        return self.rules.mark(out) if _is_mps(target) else out


def _is_mps(device: Any) -> bool:
    return device is not None and torch.device(device).type == "mps"
