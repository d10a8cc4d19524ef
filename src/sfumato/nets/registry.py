"""Every network by the name that `config.net.kind` gives it."""

from __future__ import annotations

from sfumato.nets.hourglass import HourglassConfig
from sfumato.nets.lucid import LucidConfig
from sfumato.nets.preconditioned import PreconditionedConfig
from sfumato.nets.protocol import NetworkConfig
from sfumato.nets.transformer.transformer import TransformerConfig
from sfumato.nets.unet.general import GeneralUNetConfig
from sfumato.nets.unet.unet import UNetConfig

NETWORKS: dict[str, type[NetworkConfig]] = {
    "unet": UNetConfig,
    "general": GeneralUNetConfig,
    "hourglass": HourglassConfig,
    "lucid": LucidConfig,
    "preconditioned": PreconditionedConfig,
    "transformer": TransformerConfig,
}
