r"""The precision that a network computes in while it trains: less of it is faster on cards that have units for it.

    fp32    float32 throughout
    tf32    float32 whose products have 10 bits of mantissa, on NVIDIA cards from Ampere on
    bf16    autocast to bfloat16: its range is float32's, its mantissa has 7 bits; with tf32 where the card has it
    fp16    autocast to float16: 10 bits, and a small range, so the loss is scaled (`LossScale`)

Only the network's layers are cast, and its normalisations compute in float32. Weights, moments, average, noise, levels
and loss are of the same precision as ever.

**Loss scaling** (Micikevicius et al. 2017, 1710.03740). Gradients below 6e-8 vanish in float16. The loss is multiplied
by s before the gradient is taken, which is divided by s again in float32. A gradient that is not finite halves s, and
the step is skipped; after 2,000 good steps s is doubled. Where s is 1 already, such a gradient is a fault.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from sfumato.errors import UserError

_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Precision:
    """How a network computes: the type its layers are cast to, None for none, and whether products may be TF32."""

    name: str
    cast: torch.dtype | None
    tf32: bool

    def casting(self, device: torch.device) -> AbstractContextManager[object]:
        """Return the block in which the network is called."""
        return nullcontext() if self.cast is None else torch.autocast(device.type, dtype=self.cast)

    def network(self, net: Callable[..., Tensor], device: torch.device) -> Callable[..., Tensor]:
        """Return a network that computes in this precision, and whose outputs are float32."""
        if self.cast is None:
            return net

        def cast(*args: object, **values: object) -> Tensor:
            with self.casting(device):
                out = net(*args, **values)
            return out.float()

        return cast


def resolve_precision(name: str, device: torch.device) -> Precision:
    """Return the precision that `train.precision` means on a device, and have float32 products be TF32 or not; raises
    `UserError` where the device can't compute so.

    `auto` is bf16 on NVIDIA cards that have it, fp16 on those from Volta on, and fp32 elsewhere.
    """
    capability = torch.cuda.get_device_capability(device) if device.type == "cuda" else (0, 0)
    tf32 = capability >= (8, 0)
    if name == "auto":
        name = "bf16" if tf32 else "fp16" if capability >= (7, 0) else "fp32"
    if name == "tf32" and not tf32:
        raise UserError(f"train.precision is tf32, which {device} does not have: choose fp32, or auto")
    if name in _TYPES and device.type == "mps":
        raise UserError("train.precision: on mps only fp32 is supported: choose fp32, or auto")
    precision = Precision(name, _TYPES.get(name), tf32 and name != "fp32")
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = precision.tf32
        torch.backends.cudnn.allow_tf32 = precision.tf32
    return precision


def slow_here(precision: Precision, device: torch.device) -> str:
    """Say that a CPU has no units for a precision, and computes slower in it than in float32; empty otherwise."""
    if device.type != "cpu" or precision.cast is None:
        return ""
    flags = _processor_flags()
    fast = {"bf16": ("avx512_bf16", "amx_bf16", "bf16"), "fp16": ("avx512_fp16", "amx_fp16")}[precision.name]
    if not flags or any(flag in flags for flag in fast):
        return ""
    return f"this processor has no units for {precision.name}, which is slower on it than train.precision=fp32"


def _processor_flags() -> set[str]:
    """What the processor says it can do; empty where that is not known."""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        return set()
    return next((set(line.split()) for line in lines if line.startswith(("flags", "Features"))), set())


class LossScale:
    """The factor of the loss in float16, on the device; in other precisions it is 1 and does nothing."""

    first, longest = 2.0**16, 2000

    def __init__(self, precision: Precision, device: torch.device) -> None:
        self.on = precision.cast == torch.float16
        self.scale = torch.tensor(self.first if self.on else 1.0, device=device)
        self.good = torch.zeros((), device=device)

    def scaled(self, loss: Tensor) -> Tensor:
        """Return the loss to take the gradient of."""
        return loss * self.scale if self.on else loss

    @torch.no_grad()
    def unscale(self, gradients: Iterable[Tensor | None]) -> None:
        """Divide gradients by the factor, in place."""
        if self.on:
            torch._foreach_mul_([gradient for gradient in gradients if gradient is not None], 1 / self.scale)

    @torch.no_grad()
    def update(self, finite: Tensor) -> Tensor:
        """Adapt the factor to a step whose gradient was finite (1) or not (0); return 1 where it was not because the
        factor was too great, which is no fault."""
        if not self.on:
            return torch.zeros_like(finite)
        too_great = (1 - finite) * (self.scale > 1)
        good = (self.good + 1) * finite
        grown = good >= self.longest
        factor = torch.where(grown, 2.0, 1.0) * torch.where(finite > 0, 1.0, 0.5)
        self.scale.copy_((self.scale * factor).clamp(1.0, 2.0**24))
        self.good.copy_(good * ~grown)
        return too_great

    def state(self) -> dict[str, Tensor]:
        """Return the tensors that a checkpoint keeps; none where the factor is always 1."""
        return {"scale/factor": self.scale, "scale/good": self.good} if self.on else {}

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Copy the tensors of a checkpoint in place; one that was written in another precision has none."""
        for name, tensor in self.state().items():
            if name in tensors:
                tensor.copy_(tensors[name])
