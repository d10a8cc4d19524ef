"""Network snapshots of EDM (NVlabs/edm, 2206.00364), `network-snapshot-*.pkl` and the published models.

    ema, loss_fn, augment_pipe, dataset_kwargs             each an object, pickled with the source of its class

Of an object three things are read: the name of its class, the arguments that it was made with, and its state, in which
modules hold modules and at last tensors. The source is not run.

Read are the architectures DDPM++ and NCSN++ (SongUNet) and ADM (DhariwalUNet), each preconditioned as EDM, VP or VE:
`net.kind=preconditioned`. The fourth, iDDPM's, is no preconditioning but that network itself, eps with a learned
variance on the cosine chain of 1,000 steps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from sfumato.config.config import Config
from sfumato.config.diffusion import DiffusionConfig
from sfumato.config.train import TrainConfig
from sfumato.data.formats.torch_file import Object, Stored
from sfumato.diffusion import Cosine
from sfumato.errors import UserError
from sfumato.exchange.imports import Contents, Imported, Reference, classes, unscaled, with_absent
from sfumato.exchange.unets import heads_inside, pointwise, renamed
from sfumato.nets.preconditioned import VP, PreconditionedConfig
from sfumato.nets.unet.general import GeneralUNetConfig


def _noise_vp(time: float) -> float:
    """The noise of the form `vp` at a time in [0, 1]."""
    low, rise, _ = VP
    return math.sqrt(math.expm1(rise * time**2 / 2 + low * time))


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
_KNOWN = {
    "embedding_type": ("positional", "fourier"),
    "encoder_type": ("standard", "residual", "skip"),
    "decoder_type": ("standard", "skip"),
}
"""Settings of which only some values are read."""
_VP_LEAST = 1e-3
"""The time at which Song et al. end sampling (2011.13456, App. C)."""
_RANGES = {
    "EDMPrecond": ("edm", 0.002, 80.0),
    "VEPrecond": ("ve", 0.02, 100.0),
    "VPPrecond": ("vp", _noise_vp(_VP_LEAST), _noise_vp(1.0)),
}
"""Preconditionings by their classes: ours, and the noise at which sampling ends and starts."""
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
        least: noise at which sampling ends; None is 0.002 of EDM, 0.02 of VE, 0.0105 of VP.
        most: noise at which it starts; None is 80, 100, 152.
        steps: of the chain between them.
    """

    least: float | None = None
    most: float | None = None
    steps: int = 1000

    @staticmethod
    def recognises(contents: Contents) -> bool:
        """A table with an averaged network of a class of its own."""
        tree = contents.tree
        return isinstance(tree, dict) and isinstance(tree.get("ema"), Object)

    def read(self, contents: Contents) -> Imported:
        """Read it; see `imports.Reader`."""
        form, outer, state = _opened(contents.tree["ema"])
        if form not in (*_RANGES, "iDDPMPrecond"):
            raise UserError(f"its network is preconditioned as {form[:60]}: only {', '.join(_RANGES)} and iDDPM's are")
        name, settings, _ = _opened(state["_modules"]["model"])
        if name not in _DEFAULTS:
            raise UserError(f"its network is a {name[:60]}: only {' and '.join(_DEFAULTS)} are read")
        settings = _DEFAULTS[name] | settings
        for key, known in _KNOWN.items():
            if settings.get(key, known[0]) not in known:
                raise UserError(f"{key} = {str(settings[key])[:40]} is not read (only {' and '.join(known)})")
        size, channels, labels = (
            int(outer.get(k, d)) for k, d in (("img_resolution", 0), ("img_channels", 3), ("label_dim", 0))
        )
        inner = _network(name, settings, size)
        config, note = self._process(form, inner, outer)
        theirs = {key: stored.tensor() for key, stored in _tensors(state["_modules"]["model"], "").items()}
        ours = _ours(theirs, inner, size, name)
        train = TrainConfig(label_dropout=float(settings["label_dropout"] or 0)) if labels else TrainConfig()
        prefix = "" if config.net is inner else "inner."
        return Imported(
            replace(config, train=train), (channels, size, size),
            {prefix + key: value for key, value in ours.items()}, classes(labels), notes=(f"{name}, {note}",),
            reference=lambda: _reference(form, outer, _tensors(contents.tree["ema"], ""), config), library="EDM",
        )  # fmt: skip

    def _process(self, form: str, inner: GeneralUNetConfig, outer: Mapping[str, Any]) -> tuple[Config, str]:
        """The network with its preconditioning and its chain, and a note on it."""
        usual = {"beta_d": 19.9, "beta_min": 0.1, "M": 1000, "C_1": 0.001, "C_2": 0.008}
        for name, value in usual.items():
            if outer.get(name, value) != value:
                raise UserError(f"{name} = {str(outer[name])[:40]} is not read (only {value} is)")
        if form == "iDDPMPrecond":
            if (self.least, self.most, self.steps) != (None, None, 1000):
                raise UserError("it has a chain of its own: leave out least, most and steps")
            process = DiffusionConfig(Cosine(1000), "eps", "learned", "hybrid")
            return Config(net=inner, diffusion=process), "which predicts eps on the cosine chain of 1,000 steps"
        ours, least, most = _RANGES[form]
        least, most = least if self.least is None else self.least, most if self.most is None else self.most
        s = float(outer.get("sigma_data", 0.5))
        net = PreconditionedConfig(inner, s, 0.25, least, most, self.steps, ours)
        process = DiffusionConfig(schedule=net.chain, parameterization="x0", loss_space="v")
        return Config(net=net, diffusion=process), f"sampled from a noise of {most:.4g} down to {least:.4g}"


READER = Reader


def _reference(form: str, outer: Mapping[str, Any], state: Mapping[str, Stored], config: Config) -> Reference:
    """EDM's own network with the file's weights, where its source is on Python's path."""
    try:
        from training import networks  # type: ignore[import-not-found, unused-ignore]
    except ModuleNotFoundError:
        raise ModuleNotFoundError(name="EDM") from None
    net: Any = getattr(networks, form)(**outer)
    net.load_state_dict({name: stored.tensor() for name, stored in state.items()})
    net.eval()

    def output(x: Tensor, steps: Tensor, rows: Tensor | None) -> Tensor:
        labels = None if rows is None else torch.eye(int(outer["label_dim"]))[rows[:, 0].long()]
        if not isinstance(config.net, PreconditionedConfig):
            return net.model(x, steps.float(), labels)  # type: ignore[no-any-return]
        y, sigma = unscaled(config.net.chain, x, steps)
        return net(y, sigma, labels)  # type: ignore[no-any-return]

    return output


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
    taps = tuple(int(n) for n in settings.get("resample_filter", (1, 1)))
    multipliers = tuple(int(n) for n in settings["channel_mult"])
    levels = tuple(k for k in range(len(multipliers)) if size >> k in settings["attn_resolutions"])
    return GeneralUNetConfig(
        base=width, multipliers=multipliers, blocks=int(settings["num_blocks"]), attention=levels,
        dropout=float(settings["dropout"]), groups=32, entrance=width if song else width * multipliers[0],
        time_width=width * int(settings.get("channel_mult_noise", 1)),
        embedding=width * int(settings["channel_mult_emb"]), cosine_first=not song,
        frequency_shift=int(song), early_condition=song, eps=1e-6 if song else 1e-5, least_group=4,
        scale_shift=not song, output_scale=0.5**0.5 if song else 1.0, halving="block", doubling="block", 
        resample_shortcut=song, head_width=0 if song else 64, up_attention="last" if song else "all",
        waves="random" if settings.get("embedding_type") == "fourier" else "powers", taps=taps,
        encoder=settings.get("encoder_type", "standard").replace("standard", "plain"),
        decoder=settings.get("decoder_type", "standard").replace("standard", "plain"),
    )  # fmt: skip


def _ours(state: dict[str, Tensor], net: GeneralUNetConfig, size: int, kind: str) -> dict[str, Tensor]:
    """The weights by our names: without those of alterations, classes as a table."""
    label, bias = state.pop("map_label.weight", None), state.pop("map_label.bias", None)
    waves = state.pop("map_noise.freqs", None)
    left_out = ("map_augment.", "map_noise.")
    kept = {n: v for n, v in state.items() if not n.startswith(left_out) and not n.endswith(".resample_filter")}
    ours = renamed(kept, _places(net, size), _PARTS)
    if waves is not None:
        ours["time.waves"] = waves
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
        places |= {f"enc.{side}_aux_{kind}": f"beside.{level - 1}.conv" for kind in ("residual", "skip")}
        places |= {f"dec.{side}_aux_{part}": f"exits.{place}.{part}" for part in ("norm", "conv")}
        block(f"dec.{side}_up", f"up.{place - 1}.resample")
    block(f"dec.{side}_in0", "middle_1", "middle_attention")
    block(f"dec.{side}_in1", "middle_2")
    first = f"{size}x{size}"
    return places | {f"enc.{first}_conv": "entrance", f"dec.{first}_aux_norm": "norm", f"dec.{first}_aux_conv": "exit"}
