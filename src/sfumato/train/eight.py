r"""AdamW with moments of eight bits, by the library bitsandbytes (Dettmers et al. 2022, 2110.02861).

Each moment is stored as one byte an entry, a code of 256 values between -1 and 1, or 0 and 1, that lie closer together
near 0, and one scale for every 256 entries: 2.03 bytes a parameter in place of 8. Weights, gradients and the step are
float32. Small tensors, whose moments cost little and matter more, keep float32 moments.

A step that is not finite changes neither weights nor codes nor scales; it does count in Adam's bias correction, since
the library takes the number of steps from the processor, which does not know yet whether the step was finite.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from sfumato.config.train import OptimConfig
from sfumato.errors import UserError
from sfumato.lazy import quietly

NAME = "adamw8bit"
SMALL = 4096
"""Entries below which a tensor keeps float32 moments, as in bitsandbytes."""
BLOCK = 256
"""Entries with one scale."""


def check_eight(name: str, device: torch.device) -> None:
    """Raise `UserError` where an optimiser needs bitsandbytes and that is not there, or does not know the device."""
    if name != NAME:
        return
    if device.type not in ("cpu", "cuda"):
        raise UserError(
            f"optim.name={NAME} runs on NVIDIA GPUs and on CPUs, not on {device.type}: set optim.name=adamw"
        )
    try:
        _library()
    except (ImportError, OSError) as error:
        raise UserError(
            f"optim.name={NAME} needs bitsandbytes, which can't be used here ({' '.join(str(error).split())[:120]}): "
            "pip install 'sfumato[8bit]', or set optim.name=adamw"
        ) from None


def _library() -> Any:
    """Return bitsandbytes' functions; raises `ImportError` where it is not installed."""
    with quietly():
        return import_module("bitsandbytes.functional")


class EightBit:
    """The state of AdamW for some weights, zero at first.

    Args:
        weights: by name, float32, on a CPU or an NVIDIA GPU.
    """

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        self._weights = dict(weights)
        self._steps = torch.zeros((), dtype=torch.int64)
        self._codes: dict[str, tuple[Tensor, Tensor]] = {}
        self._scales: dict[str, tuple[Tensor, Tensor]] = {}
        self._values: dict[str, Tensor] = {}
        for name, weight in weights.items():
            blocks = -(-weight.numel() // BLOCK)
            self._codes[name] = torch.zeros_like(weight, dtype=torch.uint8), torch.zeros_like(weight, dtype=torch.uint8)
            self._scales[name] = tuple(torch.zeros(blocks, device=weight.device) for _ in range(2))  # type: ignore[assignment]
            if not self._values:
                maps = {"signed": True, "unsigned": False}
                self._values = {
                    key: _library().create_dynamic_map(signed).to(weight.device) for key, signed in maps.items()
                }

    @torch.no_grad()
    def step(self, config: OptimConfig, lr: float | Tensor, applied: Tensor) -> None:
        """Take one step at rate `lr` where `applied`, a () tensor, is 1; where it is 0 change no weight and moment."""
        self._steps += 1
        for name, weight in self._weights.items():
            gradient = weight.grad
            assert gradient is not None
            if gradient.stride() != weight.stride():
                gradient = torch.empty_like(weight).copy_(gradient)
            changed = [weight.detach(), *self._codes[name], *self._scales[name]]
            before = [tensor.clone() for tensor in changed]
            flat = [_in_memory(tensor) for tensor in changed]
            _library().optimizer_update_8bit_blockwise(
                "adam",  # whose weight decay is decoupled, as AdamW's
                _in_memory(gradient), flat[0], flat[1], flat[2],
                config.beta1, config.beta2, 0.0, 0.0, config.eps, int(self._steps), float(lr),
                self._values["signed"], self._values["unsigned"], flat[3], flat[4], config.weight_decay,
            )  # fmt: skip
            for tensor, old in zip(changed, before, strict=True):
                tensor.copy_(torch.where(applied > 0, tensor, old))

    def state(self) -> dict[str, Tensor]:
        """Return the state as named tensors: codes and scales of both moments, and the number of steps."""
        if not self._weights:
            return {}
        codes = {f"code{k}/{name}": code for name, both in self._codes.items() for k, code in enumerate(both, 1)}
        scales = {f"scale{k}/{name}": scale for name, both in self._scales.items() for k, scale in enumerate(both, 1)}
        return codes | scales | {"steps8": self._steps}


def _in_memory(tensor: Tensor) -> Tensor:
    """Return a dense tensor's entries in the order of its memory, as the kernels run through it."""
    return tensor.as_strided((tensor.numel(),), (1,))
