"""diffusers' `UNet2DModel` beside ours: the same settings, and where each of its weights stands in our network.

Both follow the published network and keep the same weights; only the names differ, and diffusers splits one dense layer
into to_q, to_k and to_v that we hold as a single qkv.
"""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor

from sfumato.nets.unet.unet import UNetConfig

BLOCK = {
    "norm1": "norm_1",
    "conv1": "conv_1",
    "time_emb_proj": "project",
    "norm2": "norm_2",
    "conv2": "conv_2",
    "conv_shortcut": "shortcut",
}
ATTENTION = {"group_norm": "norm", "to_out.0": "out"}
WHOLE = {
    "time_embedding.linear_1": "time.first",
    "time_embedding.linear_2": "time.second",
    "conv_in": "entrance",
    "conv_norm_out": "norm",
    "conv_out": "exit",
}


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


def to_ours(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the weights of a `UNet2DModel` to those of `UNet`, joining q, k and v.

    Raises:
        KeyError: a name that the published network doesn't have.
    """
    ours: dict[str, Tensor] = {}
    for name, value in state.items():
        module, leaf = name.rsplit(".", 1)
        if module.endswith((".to_k", ".to_v")):
            continue
        if module.endswith(".to_q"):
            parts = [state[name.replace(".to_q.", f".to_{letter}.")] for letter in "qkv"]
            ours[f"{_attention(module.removesuffix('.to_q'))}.qkv.{leaf}"] = _pointwise(torch.cat(parts))
        elif module.endswith(".to_out.0"):
            ours[f"{_module(module)}.{leaf}"] = _pointwise(value)
        else:
            ours[f"{_module(module)}.{leaf}"] = value
    return ours


def _pointwise(value: Tensor) -> Tensor:
    """Make the weight of a dense layer that of the 1x1 convolution which does the same; leave a bias as it is."""
    return value[:, :, None, None] if value.ndim == 2 else value


def _module(name: str) -> str:
    """Return our name of one of diffusers' modules."""
    if name in WHOLE:
        return WHOLE[name]
    if ".resnets." in name:
        place, index, part = _split(name, ".resnets.")
        stands = f"middle_{int(index) + 1}" if place == "mid_block" else f"{_stage(place)}.blocks.{index}"
        return f"{stands}.{BLOCK[part]}"
    if ".attentions." in name:
        place, index, part = _split(name, ".attentions.")
        return f"{_attention(f'{place}.attentions.{index}')}.{ATTENTION[part]}"
    place = name.split(".downsamplers.")[0].split(".upsamplers.")[0]
    return f"{_stage(place)}.resample.conv"


def _attention(name: str) -> str:
    place, index = name.split(".attentions.")
    return "middle_attention" if place == "mid_block" else f"{_stage(place)}.attention.{index}"


def _stage(place: str) -> str:
    """down_blocks.i -> down.i, up_blocks.i -> up.i: both count in the order of the computation."""
    way, index = place.split(".")
    return f"{ {'down_blocks': 'down', 'up_blocks': 'up'}[way] }.{index}"


def _split(name: str, middle: str) -> tuple[str, str, str]:
    place, rest = name.split(middle)
    index, part = rest.split(".", 1)
    return place, index, part


def _without_broken_torchvision() -> None:
    """Let diffusers load beside a torchvision built for another torch: it imports one where it finds one."""
    try:
        importlib.import_module("torchvision")
    except ModuleNotFoundError:
        return
    except (ImportError, OSError, RuntimeError):
        importlib.import_module("diffusers.utils.import_utils")._torchvision_available = False  # type: ignore[attr-defined]
