"""diffusers' `UNet2DModel` of our settings, written without the code that converts between them."""

from __future__ import annotations

import importlib
from typing import Any

from sfumato.nets.unet.unet import UNetConfig


def unet_2d_model(config: UNetConfig, channels: int = 3) -> Any:
    """Build diffusers' network from our settings (no conditions, no patches: it has neither in our form)."""
    assert config.patch == 1
    assert config.heads == 1
    _without_broken_torchvision()
    from diffusers import UNet2DModel

    kinds = [level in config.attention for level in range(len(config.widths))]
    return UNet2DModel(
        in_channels=channels,
        out_channels=channels,
        block_out_channels=config.widths,
        layers_per_block=config.blocks,
        down_block_types=tuple("AttnDownBlock2D" if attends else "DownBlock2D" for attends in kinds),
        up_block_types=tuple("AttnUpBlock2D" if attends else "UpBlock2D" for attends in reversed(kinds)),
        downsample_padding=0,
        flip_sin_to_cos=False,
        freq_shift=1,
        norm_eps=1e-6,
        norm_num_groups=config.groups,
        attention_head_dim=None,
        dropout=config.dropout,
    )


def _without_broken_torchvision() -> None:
    """Let diffusers load beside a torchvision built for another torch: it imports one where it finds one."""
    try:
        importlib.import_module("torchvision")
    except ModuleNotFoundError:
        return
    except (ImportError, OSError, RuntimeError):
        importlib.import_module("diffusers.utils.import_utils")._torchvision_available = False  # type: ignore[attr-defined]
