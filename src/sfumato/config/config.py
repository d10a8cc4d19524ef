"""The configuration: one tree of frozen dataclasses.

    Config
      data       DataConfig        which images, and how they are read
      codec      a CodecConfig     how stored values become x_0; chosen by `kind`
      net        a NetworkConfig   the network; chosen by `kind`
      diffusion  DiffusionConfig   schedule, what the network predicts, variance, objective
      optim      OptimConfig       the optimiser, its rate and decay
      ema        EMAConfig         the average of the weights
      train      TrainConfig       length, batches, seed, how often to sample and validate
      augment    AugmentConfig     how training images are altered

Values come from a preset, a TOML file over it, and `key=value` from the command line over both (`presets.resolve`). The
result is written whole into the run folder and into the header of every weights file, so later defaults change nothing
about a model. Every value is checked by its own dataclass, combinations of them here.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from sfumato.codec.pixels import PixelsConfig
from sfumato.codec.protocol import CodecConfig
from sfumato.codec.registry import CODECS
from sfumato.conditions.protocol import Vocabulary
from sfumato.config import tree
from sfumato.config.augment import NUMBERS, AugmentConfig
from sfumato.config.data import DataConfig
from sfumato.config.diffusion import DiffusionConfig
from sfumato.config.train import EMAConfig, OptimConfig, TrainConfig
from sfumato.diffusion import CHAINS, PARAMETERIZATIONS, TIMESTEPS, WEIGHTINGS, Importance, Timesteps, Weighting
from sfumato.diffusion.schedule import Chain
from sfumato.errors import UserError, similar
from sfumato.nets import NETWORKS, Interface, NetworkConfig
from sfumato.plugins import files_of

CHOICES: tree.Choices = {
    Chain: CHAINS,
    Weighting: WEIGHTINGS,
    Timesteps: TIMESTEPS,
    NetworkConfig: NETWORKS,
    CodecConfig: CODECS,
}
"""The abstract types of the tree, and which dataclasses a table's `kind` may name for them."""

DERIVED = ("channels", "conditions", "augment", "learned_variance", "num_classes")
"""Keys of `net` in configurations of earlier versions; today they follow from the data and the process."""


CHANGEABLE = (
    "optim.",
    "ema.",
    "train.",
    "augment.",
    "diffusion.timesteps.",
    "diffusion.weighting",
    "diffusion.loss_space",
)
"""Keys that may be changed while a run is under way begin so, but for those of `FIXED`."""
FIXED = ("optim.name", "ema.snapshots", "train.batch", "train.seed")


@dataclass(frozen=True)
class Config:
    """Everything that determines a run. See the module's docstring for its branches.

    Where `data.flip` mirrors images, mirror images are part of the data: `x-flip` is removed from the augmentation,
    since the network need not be told of it.
    """

    data: DataConfig = DataConfig()
    codec: CodecConfig = PixelsConfig()
    net: NetworkConfig = NETWORKS["unet"]()
    diffusion: DiffusionConfig = DiffusionConfig()
    optim: OptimConfig = OptimConfig()
    ema: EMAConfig = EMAConfig()
    train: TrainConfig = TrainConfig()
    augment: AugmentConfig = AugmentConfig()

    def __post_init__(self) -> None:
        steps = self.train.grid_steps
        if steps is not None and steps > self.diffusion.schedule.num_steps:
            raise UserError(
                f"train.grid_steps = {steps} on a chain of {self.diffusion.schedule.num_steps} steps: "
                "choose at most as many"
            )
        chain = getattr(self.net, "chain", None)
        if chain is not None and self.diffusion.build_schedule() != chain:
            raise UserError(
                f"this network knows its noise levels by a chain of its own: diffusion.schedule must be {chain}"
            )
        if self.augment.on and self.data.flip:
            kinds = tuple(kind for kind in self.augment.kinds if kind != "x-flip")
            object.__setattr__(self, "augment", replace(self.augment, kinds=kinds))

    def __repr__(self) -> str:
        """The values that are not the defaults."""
        own, usual = tree.flatten(to_dict(self)), tree.flatten(to_dict(Config()))
        return f"Config({', '.join(f'{key}={own[key]}' for key in own if own[key] != usual.get(key))})"

    def interface(self, channels: int, vocabulary: Vocabulary | None = None) -> Interface:
        """Return what the network must fit: the channels of x_0, and the data's vocabulary, None without conditions."""
        numbers = NUMBERS if self.augment.on else 0
        return Interface(channels, vocabulary, numbers, self.diffusion.variance == "learned")


def to_dict(config: Config) -> dict[str, Any]:
    """Return the configuration as nested dicts that JSON can hold."""
    table: dict[str, Any] = tree.plain(config, CHOICES)
    return table


def own_files(config: Config) -> dict[str, str]:
    """Return the user's own files that a configuration needs: their names with SHA-256."""
    diffusion = config.diffusion
    spaces = [PARAMETERIZATIONS.get(name) for name in (diffusion.parameterization, diffusion.space)]
    return files_of([*_nodes(config), *filter(None, spaces)])


def _nodes(value: Any) -> Iterator[Any]:
    """Yield the dataclasses of a tree."""
    if is_dataclass(value):
        yield value
        for field in fields(value):
            yield from _nodes(getattr(value, field.name))


def from_dict(table: Mapping[str, Any]) -> Config:
    """Build a configuration from nested dicts, missing keys with their defaults; raises `UserError` for an unknown key,
    a wrong type, or a value or combination that can't work."""
    config: Config = tree.convert(Config, table, CHOICES)
    return config


def from_stored(table: Mapping[str, Any]) -> Config:
    """Build the configuration of a run folder or a weights file, also of an earlier version; errors as `from_dict`."""
    stored = without_derived(table)
    if "codec" not in stored and isinstance(stored.get("net"), Mapping):  # from when there was one network
        stored["net"] = {"kind": "unet", **stored["net"]}
    return from_dict(stored)


def without_derived(table: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration's table with the keys of earlier versions renamed or left out."""
    renewed, net, diffusion, data = dict(table), table.get("net"), table.get("diffusion"), table.get("data")
    if isinstance(data, Mapping) and isinstance(data.get("labels"), bool):  # from when there was one class
        renewed["data"] = {**data, "labels": "source" if data["labels"] else "none"}
    if isinstance(net, Mapping):
        kept = {"patch" if key == "fold" else key: value for key, value in net.items() if key not in DERIVED}
        renewed["net"] = kept
    if isinstance(diffusion, Mapping):
        off = {"importance", "least_sigma"} if diffusion.get("least_sigma") == 0 else {"importance"}
        kept = {key: value for key, value in diffusion.items() if key not in off}
        by_history = {"timesteps": {"kind": "importance"}} if diffusion.get("importance") is True else {}
        renewed["diffusion"] = kept | by_history
    return renewed


def to_toml(config: Config) -> str:
    """Return the configuration as TOML, every value written out; "none" stands for None."""
    return tree.to_toml(to_dict(config))


def digest(config: Config) -> str:
    """Return the SHA-256 of a configuration, in hexadecimal."""
    return hashlib.sha256(json.dumps(to_dict(config), sort_keys=True).encode()).hexdigest()


def difference(old: Config, new: Config) -> str:
    """Return the differences of two configurations as `key old -> new, key old -> new`; empty where they are equal."""
    return ", ".join(tree.difference(to_dict(old), to_dict(new)))


def differences(old: Config, new: Config) -> list[str]:
    """Return what `difference` does as a list: what a run can't go on with first, the network before the rest."""

    def order(change: str) -> tuple[bool, bool]:
        return _changeable(change.partition(" ")[0]), not change.startswith("net.")

    return sorted(tree.difference(to_dict(old), to_dict(new)), key=order)


def _changeable(key: str) -> bool:
    return key.startswith(CHANGEABLE) and key not in FIXED


def may_change(old: Config, new: Config) -> bool:
    """Whether a run can go on with another configuration: what differs changes neither tensors nor images nor keys."""
    a, b = tree.flatten(to_dict(old)), tree.flatten(to_dict(new))
    keys = [key for key in a.keys() | b.keys() if a.get(key) != b.get(key)]
    by_history = [isinstance(config.diffusion.timesteps, Importance) for config in (old, new)]
    return all(map(_changeable, keys)) and old.augment.on == new.augment.on and by_history[0] == by_history[1]


def read_toml(path: Path) -> dict[str, Any]:
    """Return the tables of a TOML file; raises `UserError` where it can't be read, or is not TOML (the line is
    named)."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        hint = "" if path.exists() else similar(path, Path.is_file)
        raise UserError(f"{path} can't be read: {getattr(error, 'strerror', None) or 'it is not text'}{hint}") from None
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path} is not a TOML file: {error}") from None
