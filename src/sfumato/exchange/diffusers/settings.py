"""The settings of diffusers' UNet2DModel as ours, and back.

Its blocks are named by type. Those that a U-Net of denoising diffusion is made of are read: `DownBlock2D`,
`AttnDownBlock2D`, `ResnetDownsampleBlock2D` and their counterparts on the way up; and `SkipDownBlock2D` and its like,
which are NCSN++, a score network.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sfumato.errors import UserError
from sfumato.nets.unet.general import GeneralUNetConfig
from sfumato.nets.unet.unet import UNetConfig

DEFAULTS: dict[str, Any] = {
    "center_input_sample": False,
    "time_embedding_type": "positional",
    "time_embedding_dim": None,
    "freq_shift": 0,
    "flip_sin_to_cos": True,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
    "mid_block_type": "UNetMidBlock2D",
    "up_block_types": ("AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (224, 448, 672, 896),
    "layers_per_block": 2,
    "mid_block_scale_factor": 1,
    "downsample_padding": 1,
    "downsample_type": "conv",
    "upsample_type": "conv",
    "dropout": 0.0,
    "act_fn": "silu",
    "attention_head_dim": 8,
    "norm_num_groups": 32,
    "attn_norm_num_groups": None,
    "norm_eps": 1e-5,
    "resnet_time_scale_shift": "default",
    "add_attention": True,
    "class_embed_type": None,
    "num_class_embeds": None,
}
"""UNet2DModel's own defaults, which its configuration files may leave out."""

_DOWN = {"DownBlock2D": False, "AttnDownBlock2D": True, "ResnetDownsampleBlock2D": False}
_UP = {"UpBlock2D": False, "AttnUpBlock2D": True, "ResnetUpsampleBlock2D": False}
_SKIP_DOWN = {"SkipDownBlock2D": False, "AttnSkipDownBlock2D": True}
_SKIP_UP = {"SkipUpBlock2D": False, "AttnSkipUpBlock2D": True}
"""Types of blocks, and whether they attend."""
_FIXED = {
    "center_input_sample": (False,),
    "time_embedding_type": ("positional",),
    "mid_block_type": ("UNetMidBlock2D",),
    "mid_block_scale_factor": (1, 1.0),
    "act_fn": ("silu", "swish"),
    "class_embed_type": (None,),
}
"""Settings of which only some values are read."""


def to_ours(table: Mapping[str, Any], patch: int = 1, time_scale: float = 1.0) -> UNetConfig:
    """Return our configuration of a `UNet2DModel`: a `UNetConfig` where it is the DDPM's network, which is faster.

    Args:
        table: its config.json.
        patch: side of the squares of pixels that are one pixel to it.
        time_scale: the time is multiplied by it before.

    Raises:
        UserError: a setting that our networks don't have.
        KeyError, TypeError, ValueError: not such a table.
    """
    settings = _settings(table, _FIXED, "")
    widths = [int(width) for width in settings["block_out_channels"]]
    down, up = _attends(settings["down_block_types"], _DOWN), _attends(settings["up_block_types"], _UP)
    if not len(widths) == len(down) == len(up) or down != up[::-1]:
        raise UserError("its blocks on the way up do not mirror those on the way down, which is not supported")
    base = math.gcd(*widths)
    groups, head = int(settings["norm_num_groups"]), settings["attention_head_dim"]
    attention_groups = settings["attn_norm_num_groups"]
    scale_shift = settings["resnet_time_scale_shift"] == "scale_shift"
    if (attention_groups or (None if scale_shift and settings["add_attention"] else groups)) != groups:
        raise UserError(
            f"attn_norm_num_groups = {attention_groups} differs from norm_num_groups, which is not supported"
        )
    config = GeneralUNetConfig(
        base=base, multipliers=tuple(width // base for width in widths), blocks=int(settings["layers_per_block"]),
        attention=tuple(level for level, attends in enumerate(down) if attends), dropout=float(settings["dropout"]),
        groups=groups, entrance=widths[0], time_width=widths[0],
        embedding=int(settings["time_embedding_dim"] or 4 * widths[0]), cosine_first=bool(settings["flip_sin_to_cos"]),
        frequency_shift=int(settings["freq_shift"]), eps=float(settings["norm_eps"]), scale_shift=scale_shift,
        halving=_halving(settings), doubling=_resampling(settings, "up"), head_width=0 if head is None else int(head),
        attend_middle=bool(settings["add_attention"]), patch=patch, time_scale=time_scale,
    )  # fmt: skip
    return _plain(config)


_SCORE = {
    "center_input_sample": (True,),
    "time_embedding_type": ("fourier",),
    "mid_block_type": ("UNetMidBlock2D",),
    "norm_num_groups": (None, 32),
    "attn_norm_num_groups": (None,),
    "resnet_time_scale_shift": ("default",),
    "act_fn": ("silu", "swish"),
    "class_embed_type": (None,),
    "num_class_embeds": (None,),
    "add_attention": (True,),
}
"""What the settings of a score network must be, which is what those that were published have."""


def is_score(table: Mapping[str, Any]) -> bool:
    """Return whether a network gives the score at a noise level: NCSN++ (Song et al. 2021, 2011.13456)."""
    return str(table.get("time_embedding_type")) == "fourier" or any("Skip" in str(kind) for kind in _types(table))


def _types(table: Mapping[str, Any]) -> list[Any]:
    return [*(table.get("down_block_types") or ()), *(table.get("up_block_types") or ())]


def score_to_ours(table: Mapping[str, Any]) -> GeneralUNetConfig:
    """Return our configuration of an NCSN++ without its preconditioning; arguments and errors as `to_ours`."""
    settings = _settings(table, _SCORE, " in a score network")
    widths, half = [int(width) for width in settings["block_out_channels"]], 0.5**0.5
    down, up = _attends(settings["down_block_types"], _SKIP_DOWN), _attends(settings["up_block_types"], _SKIP_UP)
    if not len(widths) == len(down) == len(up) or down != up[::-1] or int(table.get("in_channels", 3)) != 3:
        raise UserError("its blocks on the way up do not mirror those on the way down, or its images are not of colour")
    if not math.isclose(1 / float(settings["mid_block_scale_factor"]), half, rel_tol=1e-6):
        raise UserError("mid_block_scale_factor is not sqrt(2), which is not supported in a score network")
    if min(widths) < 64 or min([128, *(width for width, attends in zip(widths, down, strict=True) if attends)]) < 128:
        raise UserError("a level has less than 64 channels, or less than 128 with attention, which is not supported")
    base, head = math.gcd(*widths), settings["attention_head_dim"]
    return GeneralUNetConfig(
        base=base, multipliers=tuple(width // base for width in widths), blocks=int(settings["layers_per_block"]),
        attention=tuple(level for level, attends in enumerate(down) if attends), dropout=float(settings["dropout"]),
        groups=32, least_group=4, entrance=widths[0], time_width=2 * widths[0],
        embedding=int(settings["time_embedding_dim"] or 4 * widths[0]), eps=float(settings["norm_eps"]),
        output_scale=half, halving="block", doubling="block", resample_shortcut=True, up_attention="last",
        head_width=0 if head is None else int(head), waves="random", taps=(1, 3, 3, 1), encoder="skip", decoder="skip",
    )  # fmt: skip


def _settings(table: Mapping[str, Any], known: Mapping[str, tuple[Any, ...]], where: str) -> dict[str, Any]:
    """A network's settings with the defaults, after a check of those of which only some values are read."""
    settings = DEFAULTS | {name: table[name] for name in DEFAULTS if name in table}
    for name, allowed in known.items():
        if settings[name] not in allowed:
            raise UserError(f"{name} = {settings[name]!r} is not supported{where} (only {allowed[0]!r} is)")
    return settings


def _plain(config: GeneralUNetConfig) -> UNetConfig:
    """The same network as a `UNetConfig`, where it is one."""
    attending = {config.widths[level] for level in (*config.attention, len(config.widths) - 1)}
    if config.head_width and len(attending) > 1:
        return config
    heads = attending.pop() // config.head_width if config.head_width else 1
    try:
        plain = UNetConfig(
            config.widths[0], tuple(width // config.widths[0] for width in config.widths), config.blocks,
            config.attention, heads, config.dropout, config.patch, config.groups,
        )  # fmt: skip
    except UserError:
        return config
    return plain if general(plain) == replace(config, heads=heads, head_width=0) else config


def general(config: UNetConfig) -> GeneralUNetConfig:
    """Return a U-Net's configuration with every option written out, `head_width` in place of `heads` where all heads
    have one width."""
    if isinstance(config, GeneralUNetConfig):
        return config
    base = math.gcd(*config.widths)
    return GeneralUNetConfig(
        base, tuple(width // base for width in config.widths), config.blocks, config.attention, config.heads,
        config.dropout, config.patch, config.groups,
        entrance=config.entrance, time_width=config.time_width, embedding=config.embedding,
    )  # fmt: skip


def _attends(types: Any, known: Mapping[str, bool]) -> list[bool]:
    for kind in types:
        if kind not in known:
            raise UserError(f"a block of type {str(kind)[:40]!r} is not supported (only {', '.join(known)} are)")
    return [known[kind] for kind in types]


def _halving(settings: Mapping[str, Any]) -> str:
    kind = _resampling(settings, "down")
    return {0: "low", 1: "conv"}[int(settings["downsample_padding"])] if kind == "conv" else kind


def _resampling(settings: Mapping[str, Any], way: str) -> str:
    """Whether all levels on the way `down` or `up` are resampled by a convolution (`conv`) or a residual block
    (`block`)."""
    own, types = settings[f"{way}sample_type"], settings[f"{way}_block_types"][:-1]
    block, attends = f"Resnet{way.title()}sampleBlock2D", f"Attn{way.title()}Block2D"
    if own not in ("conv", "resnet"):
        raise UserError(f"{way}sample_type = {own!r} is not supported (only 'conv' and 'resnet' are)")
    kinds = {"block" if kind == block or (kind == attends and own == "resnet") else "conv" for kind in types}
    if len(kinds) > 1:
        raise UserError(
            f"some of its levels are {way}sampled by residual blocks and others not, which is not supported"
        )
    return kinds.pop() if kinds else "conv"


def to_theirs(config: UNetConfig) -> dict[str, Any]:
    """Return the settings of the `UNet2DModel` with a configuration's function, without sizes and channels; raises
    `UserError` where it has none. `patch` and `time_scale` concern its input and are left to the caller."""
    wide = general(config)
    refused = {
        "output_scale": wide.output_scale != 1,
        "early_condition": wide.early_condition,
        "waves": wide.waves != "powers",
        "taps": wide.taps != (1, 1),
        "encoder": wide.encoder != "plain",
        "decoder": wide.decoder != "plain",
        "halving": wide.halving == "mean",
        "doubling": wide.doubling == "nearest",
        "up_attention": wide.up_attention == "last" and bool(wide.attention),
        "resample_shortcut": wide.resample_shortcut and "block" in (wide.halving, wide.doubling),
        "time_width": not wide.time_width == wide.entrance == wide.widths[0],
    }
    for name, refuse in refused.items():
        if refuse:
            raise UserError(
                f"UNet2DModel can't have this network's {name} ({getattr(wide, name)}): use --to safetensors"
            )
    attending = [wide.widths[level] for level in {*wide.attention, *([len(wide.widths) - 1] * wide.attend_middle)}]
    head = {wide.head_width or width // wide.heads for width in attending}
    groups = {min(wide.groups, width // wide.least_group) for width in (wide.entrance, *wide.widths)}
    if len(head) > 1 and (wide.head_width or wide.heads > 1):
        raise UserError(
            "UNet2DModel needs heads of one width, and net.heads = "
            f"{wide.heads} splits levels of {sorted(set(attending))} channels: use --to safetensors"
        )
    if len(groups) > 1:
        raise UserError("UNet2DModel needs one number of groups in every normalisation: use --to safetensors")
    kinds = [level in wide.attention for level in range(len(wide.widths))]
    plain = [
        "ResnetDownsampleBlock2D" if wide.halving == "block" else "DownBlock2D",
        "ResnetUpsampleBlock2D" if wide.doubling == "block" else "UpBlock2D",
    ]
    head_width = None if wide.heads == 1 and not wide.head_width else head.pop() if head else 8
    settings = {
        "time_embedding_dim": None if wide.embedding == 4 * wide.widths[0] else wide.embedding,
        "freq_shift": wide.frequency_shift,
        "flip_sin_to_cos": wide.cosine_first,
        "down_block_types": ["AttnDownBlock2D" if attends else plain[0] for attends in kinds],
        "up_block_types": ["AttnUpBlock2D" if attends else plain[1] for attends in reversed(kinds)],
        "block_out_channels": list(wide.widths),
        "layers_per_block": wide.blocks,
        "downsample_padding": 1 if wide.halving == "conv" else 0,
        "downsample_type": "resnet" if wide.halving == "block" else "conv",
        "upsample_type": "resnet" if wide.doubling == "block" else "conv",
        "dropout": wide.dropout,
        "attention_head_dim": head_width,
        "norm_num_groups": groups.pop(),
        "norm_eps": wide.eps,
        "resnet_time_scale_shift": "scale_shift" if wide.scale_shift else "default",
        "add_attention": wide.attend_middle,
    }
    settings["attn_norm_num_groups"] = settings["norm_num_groups"] if wide.scale_shift else None
    return {**DEFAULTS, **settings}
