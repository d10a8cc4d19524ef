"""What happens inside a network while it predicts: its units in order, their outputs, skips and attention.

A unit is a module that does not hold a list of others: a residual block, an attention, a halving. The network's own
modules are walked and watched, so what is drawn is what is executed, for any network.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from sfumato.nets.cost import parameters
from sfumato.nets.transformer.blocks import Attention
from sfumato.nets.unet.blocks import SelfAttention


def _attention_flops(q: torch.Size, k: torch.Size, v: torch.Size, *_: Any, **__: Any) -> int:
    """FLOPs of torch's attention on a CPU, which it does not count by itself."""
    return int(sdpa_flop_count(q, k, v))  # type: ignore[no-untyped-call]


_ON_CPU = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops}
_LARGEST_ATTENTION = 65_536
"""Queries times positions of an attention map that are kept."""


@dataclass(frozen=True, eq=False)
class Unit:
    """A unit that was executed.

    Attributes:
        name: its path in the network.
        kind: the name of its class.
        parameters: how many numbers it learns.
        flops: of one image.
        output: (B, C, H, W), tokens laid out on their grid, or (B, C, 1, 1) of a vector.
        skips: the positions of earlier units whose outputs it reads besides its predecessor's.
    """

    name: str
    kind: str
    parameters: int
    flops: int
    output: Tensor = field(repr=False)
    skips: tuple[int, ...] = ()


def units_of(net: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Yield the units of a network by path; what reads or writes at its edges is one unit each."""
    edges = getattr(net, "edges", ())
    for name, child in net.named_children():
        path = f"{prefix}{name}"
        holds = any(isinstance(each, nn.ModuleList | nn.ModuleDict) for each in child.children())
        inner = isinstance(child, nn.ModuleList | nn.Sequential | nn.ModuleDict) or holds
        if inner and name not in edges:
            yield from units_of(child, f"{path}.")
        elif parameters(child):
            yield path, child


def executed(net: nn.Module, *arguments: Any) -> tuple[list[Unit], dict[str, Tensor]]:
    """Run a network once and return its units in the order of execution, and the attention maps (B, Q, N) by path, the
    mean over the heads; where there are many queries, some of them evenly spaced."""
    order: list[tuple[str, nn.Module, Tensor, Tensor]] = []
    attending: dict[str, tuple[SelfAttention | Attention, Tensor]] = {}
    with ExitStack() as hooks, FlopCounterMode(display=False, custom_mapping=_ON_CPU) as counter:
        for name, module in units_of(net):

            def watch(module: nn.Module, inputs: Any, output: Any, name: str = name) -> None:
                first = next((each for each in inputs if isinstance(each, Tensor)), None)
                if isinstance(output, Tensor) and first is not None:
                    order.append((name, module, first.detach(), output.detach()))

            hooks.callback(module.register_forward_hook(watch).remove)
        for name, module in net.named_modules():
            if isinstance(module, SelfAttention | Attention):

                def attend(module: Any, inputs: Any, name: str = name) -> None:
                    attending[name] = module, inputs[0].detach()

                hooks.callback(module.register_forward_pre_hook(attend).remove)
        with torch.no_grad():
            net(*arguments)
        counts = counter.get_flop_counts()
    with torch.no_grad():
        maps = {
            name: attention_map(module.project(x), module.heads, isinstance(module, Attention))
            for name, (module, x) in attending.items()
        }
    flops = {name.partition(".")[2]: sum(table.values()) for name, table in counts.items()}
    batch = len(arguments[0])
    outputs = [output for *_, output in order]
    return [
        Unit(name, type(module).__name__, parameters(module), int(flops.get(name, 0)) // batch, grid(output),
             skips(first, outputs[:n]))
        for n, (name, module, first, output) in enumerate(order)
    ], maps  # fmt: skip


def attention_map(qkv: Tensor, heads: int, normalised: bool) -> Tensor:
    """Return softmax(Q K^T / sqrt d), the mean over the heads, (B, Q, N), from a layer's output: (B, 3 width, H, W) or
    (B, N, 3 width), with queries and keys divided by their root mean square where `normalised`."""
    rows = qkv.flatten(2).transpose(1, 2) if qkv.ndim == 4 else qkv
    num, tokens, width = rows.shape
    q, k, _ = rows.reshape(num, tokens, 3, heads, width // 3 // heads).permute(2, 0, 3, 1, 4).unbind(0)
    if normalised:
        q, k = (F.rms_norm(each, each.shape[-1:], eps=1e-6) for each in (q, k))
    queries = max(16, _LARGEST_ATTENTION // tokens)
    if tokens > queries:
        q = q[:, :, torch.linspace(0, tokens - 1, queries).round().long()]
    weights: Tensor = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).softmax(-1)
    return weights.mean(1)


def grid(output: Tensor) -> Tensor:
    """Return a unit's output as (B, C, H, W): tokens (B, N, C) as a square where they fill one, else as one row."""
    if output.ndim == 4:
        return output
    if output.ndim == 3:
        side = math.isqrt(output.shape[1])
        size = (side, side) if side * side == output.shape[1] else (1, output.shape[1])
        return output.transpose(1, 2).reshape(len(output), -1, *size)
    return output.reshape(len(output), -1, 1, 1)


def skips(taken: Tensor, outputs: list[Tensor]) -> tuple[int, ...]:
    """Return which earlier outputs, but for the last, are the end of the channels that a unit takes."""
    if taken.ndim != 4:
        return ()
    found = []
    for n, output in enumerate(outputs[:-1]):
        wide = output.ndim == 4 and output.shape[2:] == taken.shape[2:] and output.shape[1] < taken.shape[1]
        if wide and torch.equal(taken[:, -output.shape[1] :], output):
            found.append(n)
    return tuple(found[-1:])
