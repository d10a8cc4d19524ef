"""A network compiled for sampling: the same images within 1e-4, a little faster, after a minute of compiling.

`torch.compile` compiles for one batch size at a time, about a minute each on two cores. So it is used for the batch
size and its double (guidance evaluates both predictions at once); a shorter last batch runs eagerly. The weights become
constants of the code ("freezing"), which only sampling allows.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from sfumato.errors import UserError
from sfumato.model import Model
from sfumato.session import SessionNetwork

LOG = logging.getLogger("sfumato")


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
    fast = torch.compile(model.net, dynamic=False, options={"freezing": True})
    net = Compiled(model.net, fast, frozenset({batch, 2 * batch}))
    return replace(model, denoiser=replace(model.denoiser, net=net))
