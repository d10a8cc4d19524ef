"""A network compiled for sampling on a CPU: the same images within 1e-4, in less time for each, after compiling.

`torch.compile` compiles for one batch size at a time. So it is used for the batch size and its double (guidance
evaluates both predictions at once); a shorter last batch runs eagerly. The weights become constants of the code
("freezing"), which only sampling allows: convolutions get them in the order that their kernels read, and what follows
from weights alone is computed once. torch decides about that while it traces the first call, where the options of
`torch.compile` have no effect yet, so it is also set around the calls (`_FREEZING`).

Normalisations are left to torch's own kernel: the code that the compiler makes for them in channels_last takes 2.7
times as long as that kernel and its silu, and is slower to compile (LOG.md).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch._inductor.config as inductor
from torch import Tensor, nn

from sfumato.errors import UserError
from sfumato.model import Model
from sfumato.nets.derived import twin
from sfumato.session import SessionNetwork

LOG = logging.getLogger("sfumato")

_FREEZING: dict[str, Any] = {"freezing": True}
_OWN = torch.library.Library("sfumato", "DEF")  # type: ignore[no-untyped-call]
_OWN.define(  # type: ignore[no-untyped-call]
    "group_norm(Tensor x, int groups, Tensor weight, Tensor bias, float eps) -> Tensor",
    tags=(torch.Tag.needs_fixed_stride_order,),
)


def _group_norm(x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    return nn.functional.group_norm(x, groups, weight, bias, eps)


_OWN.impl("group_norm", _group_norm, "CPU")  # type: ignore[no-untyped-call]
torch.library.register_fake("sfumato::group_norm", lambda x, *_: torch.empty_like(x), lib=_OWN)


class _Whole(nn.GroupNorm):
    """A normalisation that the compiler does not look into."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise, as `nn.GroupNorm`."""
        out: Tensor = torch.ops.sfumato.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)
        return out


@dataclass(frozen=True, eq=False)
class Compiled:
    """A network in evaluation mode with compiled code, `fast`, for batches of some sizes."""

    net: Callable[..., Tensor]
    fast: Callable[..., Tensor]
    sizes: frozenset[int]

    def __call__(self, x: Tensor, time: Tensor, condition: Any = None) -> Tensor:
        """Run the compiled code, or the plain network for other batch sizes; raises `UserError` where this machine
        can't compile."""
        if len(x) not in self.sizes or torch.is_grad_enabled():  # frozen weights have no gradients
            return self.net(x, time, condition)
        try:
            with inductor.patch(_FREEZING if x.device.type == "cpu" else {}):
                # channels_last, always: another layout would be compiled again
                return self.fast(x.contiguous(memory_format=torch.channels_last), time, condition)
        except torch._dynamo.exc.TorchDynamoException as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"torch can't compile the network here ({reason}): leave --compile out") from None


def compiled(model: Model, batch: int) -> Model:
    """Return a model whose denoiser runs compiled for batches of one size and of its double; raises `UserError` for an
    ONNX file."""
    if isinstance(model.net, SessionNetwork):
        raise UserError(f"{model.path} is run by onnxruntime, which has compiled it: leave --compile out")
    return replace(model, denoiser=replace(model.denoiser, net=compiled_network(model.net, batch)))


def compiled_network(net: nn.Module, batch: int) -> Compiled:
    """Return a network that runs compiled for batches of one size and of its double."""
    inner = _with_whole_norms(net) if next(net.parameters()).device.type == "cpu" else net
    return Compiled(net, torch.compile(inner, dynamic=False, options=_FREEZING), frozenset({batch, 2 * batch}))


def _with_whole_norms(net: nn.Module) -> nn.Module:
    """A network that shares the weights, its normalisations as one operation each."""
    copied = twin(net)
    for module in copied.modules():
        if type(module) is nn.GroupNorm and module.affine:
            module.__class__ = _Whole
    return copied
