"""Network snapshots of EDM (NVlabs/edm, 2206.00364), `network-snapshot-*.pkl` and the published models.

    ema, loss_fn, augment_pipe, dataset_kwargs             each an object, pickled with the source of its class

Of an object three things are read: the name of its class, the arguments that it was made with, and its state, in which
modules hold modules and at last tensors. The source is not run. Read are networks preconditioned as EDM's own, with the
architectures DDPM++ (SongUNet with `positional` and `standard`) and ADM (DhariwalUNet).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sfumato.config.config import Config
from sfumato.config.diffusion import DiffusionConfig
from sfumato.config.train import TrainConfig
from sfumato.data.formats.torch_file import Object, Stored
from sfumato.errors import UserError
from sfumato.exchange.imports import Contents, Imported, with_absent
from sfumato.exchange.unets import heads_inside, pointwise, renamed
from sfumato.nets.preconditioned import PreconditionedConfig
from sfumato.nets.unet.general import GeneralUNetConfig

_PERSISTENT = "torch_utils.persistence _reconstruct_persistent_obj"
_DEEPEST = 8
"""Modules inside modules."""
_SONG = {
    "model_channels": 128, "channel_mult": [1, 2, 2, 2], "channel_mult_emb": 4, "num_blocks": 4,
    "attn_resolutions": [16], "dropout": 0.1, "label_dropout": 0, "embedding_type": "positional", 
    "channel_mult_noise": 1, "encoder_type": "standard", "decoder_type": "standard", "resample_filter": [1, 1],
}  # fmt: skip
_ADM = {
    "model_channels": 192, "channel_mult": [1, 2, 3, 4], "channel_mult_emb": 4, "num_blocks": 3,
    "attn_resolutions": [32, 16, 8], "dropout": 0.1, "label_dropout": 0,
}  # fmt: skip
_DEFAULTS: dict[str, dict[str, Any]] = {"SongUNet": _SONG, "DhariwalUNet": _ADM}
_FIXED = ("embedding_type", "encoder_type", "decoder_type", "resample_filter", "channel_mult_noise")
_PARTS = {
    "norm0": "norm_1",
    "conv0": "conv_1",
    "affine": "project",
    "norm1": "norm_2",
    "conv1": "conv_2",
    "skip": "shortcut",
}
_ATTENTION = {"norm2": "norm", "qkv": "qkv", "proj": "out"}
_WHOLE = {"map_layer0": "time.first", "map_layer1": "time.second", "out_norm": "norm", "out_conv": "exit"}


@dataclass(frozen=True)
class Reader:
    """The reader of snapshots.

    Attributes:
        least: noise at which sampling ends.
        most: noise at which it starts.
        steps: of the chain between them.
    """

    least: float = 0.002
    most: float = 80.0
    steps: int = 1000

    @staticmethod
    def recognises(contents: Contents) -> bool:
        """A table with an averaged network of a class of its own."""
        tree = contents.tree
        return isinstance(tree, dict) and isinstance(tree.get("ema"), Object)

    def read(self, contents: Contents) -> Imported:
        """Read it; see `imports.Reader`."""
        kind, outer, state = _opened(contents.tree["ema"])
        if kind != "EDMPrecond":
            raise UserError(f"its network is preconditioned as {kind[:60]}: only EDMPrecond is read")
        name, settings, _ = _opened(state["_modules"]["model"])
        if name not in _DEFAULTS:
            raise UserError(f"its network is a {name[:60]}: only {' and '.join(_DEFAULTS)} are read")
        settings = _DEFAULTS[name] | settings
        for key in _FIXED:
            if key in settings and settings[key] != _SONG[key]:
                raise UserError(f"{key} = {str(settings[key])[:40]} is not read (only {_SONG[key]} is)")
        size, channels, labels = (
            int(outer.get(k, d)) for k, d in (("img_resolution", 0), ("img_channels", 3), ("label_dim", 0))
        )
        inner = _network(name, settings, size)
        net = PreconditionedConfig(inner, float(outer.get("sigma_data", 0.5)), 0.25, self.least, self.most, self.steps)
        theirs = {key: stored.tensor() for key, stored in _tensors(state["_modules"]["model"], "").items()}
        ours = _ours(theirs, inner, size, name)
        diffusion = DiffusionConfig(schedule=net.chain, parameterization="x0", loss_space="v")
        train = TrainConfig(label_dropout=float(settings["label_dropout"] or 0)) if labels else TrainConfig()
        return Imported(
            Config(net=net, diffusion=diffusion, train=train), (channels, size, size),
            {f"inner.{key}": value for key, value in ours.items()}, tuple(map(str, range(labels))),
            notes=(f"{name}, sampled from a noise of {self.most:g} down to {self.least:g}",), library="EDM",
        )  # fmt: skip


READER = Reader


def _opened(thing: Any) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """The class, the arguments and the state of a persistent object; raises `UserError` for another."""
    if not isinstance(thing, Object) or thing.name != _PERSISTENT or not isinstance(thing.arguments[0], Mapping):
        raise UserError("its network is not an object of EDM's kind")
    told = thing.arguments[0]
    state = told["state"]
    if not isinstance(state, Mapping) or not isinstance(state.get("_init_kwargs", {}), Mapping):
        raise UserError("its network has no state")
    return str(told["class_name"]).rpartition(".")[2], dict(state.get("_init_kwargs", {})), dict(state)


def _tensors(module: Any, prefix: str, depth: int = 0) -> dict[str, Stored]:
    """The tensors of a module and of those in it, by their names."""
    if depth > _DEEPEST:
        raise UserError("its modules are nested too deep")
    state = module.arguments[0]["state"] if module.name == _PERSISTENT else module.state
    own = {**state.get("_parameters", {}), **state.get("_buffers", {})}
    found = {prefix + name: value for name, value in own.items() if isinstance(value, Stored)}
    for name, child in state.get("_modules", {}).items():
        if isinstance(child, Object):
            found |= _tensors(child, f"{prefix}{name}.", depth + 1)
    return found


def _network(kind: str, settings: Mapping[str, Any], size: int) -> GeneralUNetConfig:
    """The configuration of an architecture."""
    song, width = kind == "SongUNet", int(settings["model_channels"])
    multipliers = tuple(int(n) for n in settings["channel_mult"])
    levels = tuple(k for k in range(len(multipliers)) if size >> k in settings["attn_resolutions"])
    return GeneralUNetConfig(
        base=width, multipliers=multipliers, blocks=int(settings["num_blocks"]), attention=levels,
        dropout=float(settings["dropout"]), groups=32, entrance=width if song else width * multipliers[0],
        time_width=width, embedding=width * int(settings["channel_mult_emb"]), cosine_first=not song,
        frequency_shift=int(song), early_condition=song, eps=1e-6 if song else 1e-5, least_group=4,
        scale_shift=not song, output_scale=0.5**0.5 if song else 1.0, halving="block", doubling="block", 
        resample_shortcut=song, head_width=0 if song else 64, up_attention="last" if song else "all",
    )  # fmt: skip


def _ours(state: dict[str, Tensor], net: GeneralUNetConfig, size: int, kind: str) -> dict[str, Tensor]:
    """The weights by our names: without those of alterations and filters, classes as a table."""
    label, bias = state.pop("map_label.weight", None), state.pop("map_label.bias", None)
    left_out = ("map_augment.", "map_noise.")
    kept = {n: v for n, v in state.items() if not n.startswith(left_out) and not n.endswith(".resample_filter")}
    ours = renamed(kept, _places(net, size), _PARTS)
    for name, value in ours.items():
        if ".qkv." in name:
            width = value.shape[0] // 3
            ours[name] = heads_inside(value, width // net.head_width if net.head_width else net.heads, "channel")
    if label is not None:
        scale = label.shape[1] ** 0.5 if kind == "SongUNet" else 1.0
        absent = torch.zeros_like(label[:, 0]) if bias is None else bias
        ours["condition.parts.0.table.weight"] = with_absent(label.T * scale + absent, absent)
    return pointwise(ours)


def _places(net: GeneralUNetConfig, size: int) -> dict[str, str]:
    """Their places and ours; attention is a part of their blocks."""
    places, count = dict(_WHOLE), len(net.multipliers)

    def block(theirs: str, ours: str, attention: str = "") -> None:
        places[theirs] = ours
        places.update({f"{theirs}.{part}": f"{attention}.{name}" for part, name in _ATTENTION.items() if attention})

    for level in range(count):
        side, place = f"{size >> level}x{size >> level}", count - 1 - level
        for index in range(net.blocks):
            block(f"enc.{side}_block{index}", f"down.{level}.blocks.{index}", f"down.{level}.attention.{index}")
        for index in range(net.blocks + 1):
            block(f"dec.{side}_block{index}", f"up.{place}.blocks.{index}", f"up.{place}.attention.{index}")
        block(f"enc.{side}_down", f"down.{level - 1}.resample")
        block(f"dec.{side}_up", f"up.{place - 1}.resample")
    block(f"dec.{side}_in0", "middle_1", "middle_attention")
    block(f"dec.{side}_in1", "middle_2")
    first = f"{size}x{size}"
    return places | {f"enc.{first}_conv": "entrance", f"dec.{first}_aux_norm": "norm", f"dec.{first}_aux_conv": "exit"}
