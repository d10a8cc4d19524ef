r"""A function of tensors on an NVIDIA GPU as one CUDA graph: recorded once, afterwards launched as a whole.

A training step of a small network is some two thousand kernels, each of a few microseconds; Python takes several times
as long to launch them as the GPU to run them. A CUDA graph launches all of them at once. They are the same kernels on
the same numbers, so the results have the same bits.

Kernels in a graph have fixed addresses: inputs are copied into the tensors that were recorded, outputs out of them. So
everything that changes from one call to the next must be an input, numbers too. Dropout's generator is the exception:
a graph reads the seed that torch's generator has when it is launched.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

LOG = logging.getLogger("sfumato")
MOST = 4
"""Graphs of one function; each keeps the memory that its kernels use."""

V = TypeVar("V")


def mapped(value: V, change: Callable[[Tensor], Any]) -> V:
    """Return a value with every tensor in it changed: of tuples and dataclasses, whatever they hold besides stays.

    Raises:
        TypeError: it holds something else, which might hold tensors.
    """
    if isinstance(value, Tensor):
        return change(value)  # type: ignore[no-any-return]
    if value is None or isinstance(value, bool | int | float | str | slice):
        return value
    if isinstance(value, tuple):
        return type(value)(mapped(each, change) for each in value)  # type: ignore[return-value, call-arg]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value) if field.init]
        return dataclasses.replace(value, **{name: mapped(getattr(value, name), change) for name in names})
    raise TypeError(f"{type(value).__name__} may hold tensors that are not seen")


def leaves(value: object) -> list[Tensor]:
    """Return the tensors of a value, in order; raises TypeError as `mapped`."""
    found: list[Tensor] = []
    mapped(value, lambda tensor: found.append(tensor) or tensor)  # type: ignore[func-returns-value]
    return found


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor on a device, without waiting for what an NVIDIA GPU still has to do."""
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


@dataclass
class _Recorded:
    """Calls with inputs of some shapes, and the graph once one of them was recorded."""

    calls: int = 0
    graph: torch.cuda.CUDAGraph | None = None
    inputs: tuple[Any, ...] = ()
    outputs: Any = None


class Replayed:
    """A function of tensors, recorded after some calls and then replayed.

    Args:
        function: called with values that `mapped` takes, the tensors in them on the GPU; returns such a value. It reads
            nothing back from the GPU, keeps no tensor, and does the same to the same state at every call.
        device: the GPU.
        warm_up: calls that are computed as they are before one is recorded: in the first of them libraries choose
            their kernels, and a function that is called a few times only is not worth recording.

    A graph is of inputs of certain shapes; there are `MOST` at most. Inputs that need a gradient, and a function that
    can't be recorded, are computed as they are.
    """

    def __init__(self, function: Callable[..., V], device: torch.device, warm_up: int = 3) -> None:
        self.function, self.device, self.warm_up = function, device, warm_up
        self._recorded: dict[Any, _Recorded] = {}
        self.reason = ""
        """Why the function can't be recorded; empty where it can be."""

    @property
    def recorded(self) -> bool:
        """Whether there is a graph by now."""
        return any(each.graph is not None for each in self._recorded.values())

    def __call__(self, *inputs: Any) -> Any:
        """Call the function with the inputs moved to the GPU."""
        try:
            given = leaves(inputs)
        except TypeError as error:
            self.reason = str(error)
        if self.reason or any(tensor.requires_grad for tensor in given):
            return self._called(inputs)
        shapes = tuple((tensor.shape, tensor.dtype) for tensor in given)
        known = self._recorded.setdefault(shapes, _Recorded()) if len(self._recorded) < MOST else None
        known = known or self._recorded.get(shapes, _Recorded())
        known.calls += 1
        if known.graph is None and (known.calls <= self.warm_up or not self._record(known, inputs)):
            return self._called(inputs)
        assert known.graph is not None
        for mine, new in zip(leaves(known.inputs), given, strict=True):
            mine.copy_(new.pin_memory() if new.device.type == "cpu" else new, non_blocking=True)
        known.graph.replay()
        return mapped(known.outputs, torch.clone)

    def _called(self, inputs: tuple[Any, ...]) -> Any:
        """Call the function as it is, on another stream, as torch wants it before a record."""
        here, aside = torch.cuda.current_stream(self.device), torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        aside.wait_stream(here)
        with torch.cuda.stream(aside):
            outputs = self.function(*moved(inputs, self.device))
        here.wait_stream(aside)
        return outputs

    def _record(self, known: _Recorded, inputs: tuple[Any, ...]) -> bool:
        """Record a call, which computes nothing; False where that is not possible."""
        graph = torch.cuda.CUDAGraph()
        fixed = mapped(inputs, lambda tensor: sent(tensor, self.device).clone())
        try:
            with torch.cuda.graph(graph):
                outputs = self.function(*fixed)
        except (RuntimeError, MemoryError) as error:
            self.reason = " ".join(str(error).split())[:200]
            LOG.info("kernels are launched one by one: %s", self.reason)
            # after a failed record torch's generator still takes itself for recorded, and refuses to draw
            generator = torch.cuda.default_generators[torch.cuda.current_device()]
            generator.graphsafe_set_state(generator.clone_state())
            return False
        known.graph, known.inputs, known.outputs = graph, fixed, outputs
        return True


def moved(value: V, device: torch.device) -> V:
    """Return a value with its tensors on a device; whatever `mapped` does not take moves itself."""
    try:
        return mapped(value, lambda tensor: sent(tensor, device))
    except TypeError:
        if isinstance(value, tuple):
            return tuple(moved(each, device) for each in value)  # type: ignore[return-value]
        return value.to(device)  # type: ignore[attr-defined, no-any-return]
