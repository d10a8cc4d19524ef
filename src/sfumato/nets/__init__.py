"""Networks: (x_t, time, labels) in, an image of the same shape out."""

from __future__ import annotations

from sfumato.nets import cost
from sfumato.nets.memory import keep_memory
from sfumato.nets.unet import UNet, UNetConfig

__all__ = ["NETS", "UNet", "UNetConfig", "cost", "keep_memory"]

NETS: dict[str, tuple[type[UNetConfig], type[UNet]]] = {"unet": (UNetConfig, UNet)}
"""Every network by name: its configuration's class and its own."""
