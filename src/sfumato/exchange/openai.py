"""Checkpoints of OpenAI's improved-diffusion and guided-diffusion: a table of weights, nothing else.

The architecture follows from names and shapes. Not in the file are the heads of attention and the order of their rows,
the size of the images, the chain, what is predicted, and the unit of time. For the published models `CARDS` has them,
as the two projects' READMEs state them, and a file is recognised by its name; for others they are asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from sfumato.config.config import Config
from sfumato.config.diffusion import DiffusionConfig
from sfumato.config.train import TrainConfig
from sfumato.data.formats.torch_file import Stored, tensors_in
from sfumato.diffusion import SCHEDULES
from sfumato.errors import UserError, nearest
from sfumato.exchange.imports import Contents, Imported, Reference, classes, with_absent
from sfumato.exchange.unets import heads_inside, pointwise, renamed
from sfumato.nets.unet.general import GeneralUNetConfig

_ADM = {"size": 256, "head_width": 64, "schedule": "linear", "steps": 1000}
_IDDPM = {"heads": 4, "schedule": "cosine", "steps": 4000, "rescale": True}
CARDS: dict[str, dict[str, Any]] = {
    "64x64_diffusion": {
        "size": 64,
        "head_width": 64,
        "schedule": "cosine",
        "steps": 1000,
        "order": "new",
        "dropout": 0.1,
    },
    "128x128_diffusion": {"size": 128, "heads": 4, "schedule": "linear", "steps": 1000},
    "256x256_diffusion": _ADM,
    "256x256_diffusion_uncond": _ADM,
    "512x512_diffusion": _ADM | {"size": 512},
    "lsun_bedroom": _ADM | {"dropout": 0.1},
    "lsun_cat": _ADM | {"dropout": 0.1},
    "lsun_horse": _ADM | {"dropout": 0.1},
    "lsun_horse_nodropout": _ADM,
    "imagenet64_uncond_100M_1500K": _IDDPM | {"size": 64},
    "imagenet64_uncond_vlb_100M_1500K": _IDDPM | {"size": 64},
    "imagenet64_cond_270M_250K": _IDDPM | {"size": 64, "rescale": False},
    "cifar10_uncond_50M_500K": _IDDPM | {"size": 32, "dropout": 0.3},
    "cifar10_uncond_vlb_50M_500K": _IDDPM | {"size": 32, "dropout": 0.3},
    "lsun_uncond_100M_1200K_bs128": {"size": 256, "heads": 1, "schedule": "linear", "steps": 1000},
    "lsun_uncond_100M_2400K_bs64": {"size": 256, "heads": 1, "schedule": "linear", "steps": 1000},
}
"""The published models of pixels, by the names of their files, with what these do not say."""

_PARTS = {
    "in_layers.0": "norm_1", "in_layers.2": "conv_1", "emb_layers.1": "project", "out_layers.0": "norm_2",
    "out_layers.3": "conv_2", "skip_connection": "shortcut", "norm": "norm", "qkv": "qkv", "proj_out": "out",
    "op": "conv", "conv": "conv",
}  # fmt: skip
_WHOLE = {
    "time_embed.0": "time.first", "time_embed.2": "time.second", "input_blocks.0.0": "entrance", "out.0": "norm",
    "out.2": "exit", "label_emb": "condition.parts.0.table", "middle_block.0": "middle_1",
    "middle_block.1": "middle_attention", "middle_block.2": "middle_2",
}  # fmt: skip


@dataclass(frozen=True)
class Reader:
    """The reader of its checkpoints; what is None is asked for where there is no card.

    Attributes:
        card: the name of a published model whose values are taken; by default the file's own name.
        size: side of the images.
        heads: of every attention.
        head_width: channels of a head, in place of `heads`.
        order: of the rows of queries, keys and values: `legacy`, or `new` (--use_new_attention_order True).
        schedule: `linear` or `cosine`.
        steps: of the chain.
        rescale: whether the time is counted in thousandths of the chain (--rescale_timesteps True).
        predicts: `eps`, or `x0` (--predict_xstart True).
        variance: where it is not learned: `large`, or `small` (--sigma_small True).
        dropout: of its training, for training on.
    """

    card: str | None = None
    size: int | None = None
    heads: int | None = None
    head_width: int | None = None
    order: str = "legacy"
    schedule: str | None = None
    steps: int | None = None
    rescale: bool = False
    predicts: str = "eps"
    variance: str = "large"
    dropout: float = 0.0

    def __post_init__(self) -> None:
        for name, choices in (("order", ("legacy", "new")), ("schedule", (None, "linear", "cosine")),
                              ("predicts", ("eps", "x0")), ("variance", ("large", "small")),
                              ("card", (None, *CARDS))):  # fmt: skip
            value = getattr(self, name)
            if value not in choices:
                raise UserError(f"{name} is '{value}'{nearest(str(value), [c for c in choices if c])}")
        if self.heads and self.head_width:
            raise UserError("heads and head_width say the same: give one of them")

    @staticmethod
    def recognises(contents: Contents) -> bool:
        """A table with the names of its U-Net."""
        tree = contents.tree
        return isinstance(tree, dict) and {"time_embed.0.weight", "input_blocks.0.0.weight", "out.2.weight"} <= set(
            tree
        )

    def read(self, contents: Contents) -> Imported:
        """Read it; see `imports.Reader`."""
        tree: Mapping[str, Any] = contents.tree
        state = tensors_in(tree) if all(isinstance(v, Stored) for v in tree.values()) else dict(tree)
        name = self.card or contents.path.stem
        own = self._with_card(CARDS.get(name, {}))
        net, places, levels = _architecture(state, own)
        channels, out = state["input_blocks.0.0.weight"].shape[1], state["out.2.weight"].shape[0]
        if channels == 6:
            raise UserError("it takes 6 channels: it is an upsampler, which is not read")
        if out not in (channels, 2 * channels):
            raise UserError(f"its network takes {channels} channels and returns {out}, which is not read")
        if own.size is None or own.schedule is None or own.steps is None:
            raise UserError("the file does not say this: give --set size=PIXELS schedule=linear (or cosine) "
                "steps=1000, or "
                            f"card=NAME for a published model ({', '.join(CARDS)})")  # fmt: skip
        learned, count = out == 2 * channels, len(state.get("label_emb.weight", ()))
        ours = pointwise(_ours(state, places, net, own.order, levels))
        diffusion = DiffusionConfig(
            schedule=SCHEDULES[own.schedule](own.steps), parameterization=own.predicts,
            variance="learned" if learned else {"large": "fixedlarge"}.get(own.variance, own.variance),
            objective="hybrid" if learned else "simple",
        )  # fmt: skip
        train = TrainConfig(label_dropout=0.0) if count else TrainConfig()
        average = name in CARDS or contents.path.name.startswith("ema")
        notes = [f"taken as the published model {name}"] if name in CARDS else []
        notes += (
            ["it was trained with a class for every image: without --label the classes take turns"] if count else []
        )
        return Imported(
            Config(net=net, diffusion=diffusion, train=train), (channels, own.size, own.size), ours,
            classes(count), kind="ema" if average else "raw", notes=tuple(notes),
            reference=lambda: _reference(state, net, own), library="guided-diffusion",
        )  # fmt: skip

    def _with_card(self, card: Mapping[str, Any]) -> Reader:
        """The settings, those that were left at their defaults taken from a card."""
        defaults = {field.name: field.default for field in fields(self)}
        taken = {key: value for key, value in card.items() if getattr(self, key) == defaults[key]}
        if self.heads or self.head_width:
            taken = {key: value for key, value in taken.items() if key not in ("heads", "head_width")}
        return replace(self, **taken)


READER = Reader


def _architecture(state: Mapping[str, Tensor], own: Reader) -> tuple[GeneralUNetConfig, dict[str, str], list[int]]:
    """The configuration that names and shapes tell, their places and ours, and the levels with attention."""
    outputs = len({name.split(".")[1] for name in state if name.startswith("output_blocks.")})
    doubled = [k for k in range(outputs) for j in (1, 2) if f"output_blocks.{k}.{j}.conv.weight" in state]
    blocked = [k for k in range(outputs) for j in (1, 2) if f"output_blocks.{k}.{j}.in_layers.0.weight" in state]
    ends = doubled or blocked
    if ends:
        blocks = ends[0]
    else:  # no weights where it is resampled: its index is left out on the way down
        present = {int(name.split(".")[1]) for name in state if name.startswith("input_blocks.")}
        blocks = min(set(range(1, outputs + 1)) - present, default=outputs) - 1
    count = outputs // (blocks + 1)
    first = [1 + level * (blocks + 1) for level in range(count)]
    widths = [state[f"input_blocks.{k}.0.out_layers.3.weight"].shape[0] for k in first]
    levels = [level for level, k in enumerate(first) if f"input_blocks.{k}.1.qkv.weight" in state]
    embedding, time_width = state["time_embed.0.weight"].shape
    base = min(widths)
    if any(width % base for width in widths):
        raise UserError(f"widths of {widths} are not supported")
    if not own.heads and not own.head_width:
        raise UserError("the file does not say the heads of its attention: give --set heads=4 or head_width=64, or "
                        f"card=NAME for a published model ({', '.join(CARDS)})")  # fmt: skip
    project = state["input_blocks.1.0.emb_layers.1.weight"].shape[0]
    kind = "conv" if doubled else "block" if blocked else "none"
    config = GeneralUNetConfig(
        base=base, multipliers=tuple(width // base for width in widths), blocks=blocks, attention=tuple(levels),
        heads=own.heads or 1, head_width=own.head_width or 0, dropout=own.dropout,
        entrance=state["input_blocks.0.0.weight"].shape[0], time_width=time_width, embedding=embedding,
        time_scale=1000 / own.steps if own.rescale and own.steps else 1.0, cosine_first=True, frequency_shift=0,
        eps=1e-5,
        scale_shift=project == 2 * widths[0], halving={"none": "mean"}.get(kind, kind),
        doubling={"none": "nearest"}.get(kind, kind),
    )  # fmt: skip
    return config, _places(config), levels


def _places(config: GeneralUNetConfig) -> dict[str, str]:
    """Their places and ours. On the way up a level's last block is followed by what doubles, after its attention."""
    places, count = dict(_WHOLE), len(config.multipliers)
    for level in range(count):
        attends = level in config.attention
        for block in range(config.blocks):
            theirs = f"input_blocks.{1 + level * (config.blocks + 1) + block}"
            places |= {f"{theirs}.0": f"down.{level}.blocks.{block}", f"{theirs}.1": f"down.{level}.attention.{block}"}
        places[f"input_blocks.{(level + 1) * (config.blocks + 1)}.0"] = f"down.{level}.resample"
        for block in range(config.blocks + 1):
            place = count - 1 - level  # on the way up the lowest level is the first
            theirs = f"output_blocks.{place * (config.blocks + 1) + block}"
            places[f"{theirs}.0"] = f"up.{place}.blocks.{block}"
            if attends:
                places[f"{theirs}.1"] = f"up.{place}.attention.{block}"
            places[f"{theirs}.{2 if attends else 1}"] = f"up.{place}.resample"
    return places


def _ours(
    state: Mapping[str, Tensor], places: Mapping[str, str], net: GeneralUNetConfig, order: str, levels: list[int]
) -> dict[str, Tensor]:
    """The weights by our names, with the rows of attention in our order."""
    ours = renamed(state, places, _PARTS)
    for name, value in ours.items():
        if ".qkv." in name and order == "legacy":
            width = value.shape[0] // 3
            ours[name] = heads_inside(value, width // net.head_width if net.head_width else net.heads, "head")
    if (key := "condition.parts.0.table.weight") in ours:
        ours[key] = with_absent(ours[key])
    return ours


def _reference(state: Mapping[str, Tensor], net: GeneralUNetConfig, own: Reader) -> Reference:
    """The installed guided_diffusion's network with the file's own weights."""
    from guided_diffusion.unet import UNetModel  # type: ignore[import-not-found, unused-ignore]

    channels, out = state["input_blocks.0.0.weight"].shape[1], state["out.2.weight"].shape[0]
    theirs: Any = UNetModel(
        own.size, channels, net.time_width, out, net.blocks, tuple(2**level for level in net.attention),
        channel_mult=tuple(width / net.time_width for width in net.widths), conv_resample=net.halving == "conv",
        num_classes=len(state["label_emb.weight"]) if "label_emb.weight" in state else None, num_heads=net.heads,
        num_head_channels=net.head_width or -1, use_scale_shift_norm=net.scale_shift,
        resblock_updown=net.halving == "block", use_new_attention_order=own.order == "new",
    )  # fmt: skip
    theirs.load_state_dict({name: value.float() for name, value in state.items()})
    theirs.eval()
    with torch.no_grad():
        return lambda x, steps, rows: theirs(x, steps * net.time_scale, None if rows is None else rows[:, 0].long())
