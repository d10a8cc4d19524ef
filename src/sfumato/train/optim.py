r"""The optimiser: Adam or AdamW, its learning rate over the run, and gradient clipping.

The rate follows the images seen: n before the step, B in the step, of N planned,

    lr(n) = lr * min( 1, (n + B) / warmup ) * decay( n / N )
    decay(u) = 1  |  (1 + cos pi u) / 2  |  1 - u            constant, cosine, linear

A step whose loss or gradient is not finite must change nothing, and the check must not make a GPU wait. So every step
is launched, and a flag on the device decides; torch's fused Adam has it for its gradient scaler: where `found_inf` is 1
neither weights nor moments nor step counts change, bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from sfumato.config.train import OptimConfig, in_images

_OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
_DECAYS: dict[str, Callable[[float], float]] = {
    "constant": lambda u: 1.0,
    "cosine": lambda u: (1 + math.cos(math.pi * u)) / 2,
    "linear": lambda u: 1 - u,
}
_MOMENTS = ("exp_avg", "exp_avg_sq", "step")


def learning_rate(config: OptimConfig, images: int, batch: int, planned: int) -> float:
    """Return lr(n) of the step of B = `batch` images that starts when n = `images` of N = `planned` have been seen."""
    warmup = in_images(config.warmup, planned)
    rising = min(1.0, (images + batch) / warmup) if warmup > 0 else 1.0
    return config.lr * rising * _DECAYS[config.decay](min(1.0, images / planned))


def build(config: OptimConfig, net: nn.Module) -> torch.optim.Optimizer:
    """Return the optimiser of a network's weights, its moments zero.

    The moments take their weight's memory layout: torch's fused kernels run through memory in order, so a moment in
    another layout would silently belong to other weights.
    """
    parameters = list(net.parameters())
    optimizer: torch.optim.Optimizer = _OPTIMIZERS[config.name](  # type: ignore[call-arg]
        parameters,
        lr=config.lr,
        betas=(config.beta1, config.beta2),
        eps=config.eps,
        weight_decay=config.weight_decay,
        fused=True,
    )
    for weight in parameters:
        optimizer.state[weight] = {
            "step": torch.zeros((), dtype=torch.float32, device=weight.device),
            "exp_avg": torch.zeros_like(weight, memory_format=torch.preserve_format),
            "exp_avg_sq": torch.zeros_like(weight, memory_format=torch.preserve_format),
        }
    return optimizer


def clip(net: nn.Module, limit: float | None) -> Tensor:
    """Scale all gradients to a joint norm of at most `limit`, and return the norm before: () tensor, not finite where
    any gradient is not."""
    weights = [weight for weight in net.parameters() if weight.grad is not None]
    norm = torch.nn.utils.get_total_norm([weight.grad for weight in weights if weight.grad is not None])
    if limit is not None:
        torch.nn.utils.clip_grads_with_norm_(weights, limit, norm)
    return norm


def apply(optimizer: torch.optim.Optimizer, lr: float, applied: Tensor) -> None:
    """Take one step at rate `lr` where `applied`, a () tensor, is 1; where it is 0 change nothing, bit for bit."""
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.grad_scale = None  # type: ignore[attr-defined]
    optimizer.found_inf = 1 - applied  # type: ignore[attr-defined]
    optimizer.step()


def moments(optimizer: torch.optim.Optimizer, net: nn.Module) -> dict[str, Tensor]:
    """Return the optimiser's state as named tensors: `exp_avg/NAME`, `exp_avg_sq/NAME`, `step/NAME`."""
    named = dict(net.named_parameters())
    return {f"{key}/{name}": optimizer.state[weight][key] for name, weight in named.items() for key in _MOMENTS}


@torch.no_grad()
def load_moments(optimizer: torch.optim.Optimizer, net: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Copy named tensors into the optimiser's state, in place, so that every moment keeps its layout."""
    for name, state in moments(optimizer, net).items():
        state.copy_(tensors[name])
