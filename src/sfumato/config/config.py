"""The configuration: one tree of frozen dataclasses, each of them beside what it builds.

    Config
      data       DataConfig       which images, and how they are read                   data/
      net        UNetConfig       the network                                           nets/
      diffusion  DiffusionConfig  schedule, what the network predicts, variance         here
      optim      OptimConfig      Adam, its rate and decay                              train/
      ema        EMAConfig        the average of the weights                            train/
      train      TrainConfig      length, batches, seed, how often to look              train/
      augment    AugmentConfig    how training images are altered                       train/

Values come from three places, each laid over the one before: a preset, a TOML file, `key=value` from the command line.
The result is written whole into the run folder and into the header of every weights file, so nothing about a model is
ever a matter of what the defaults were that day.

Every value is checked by its own dataclass; combinations that can't work are refused here, before anything is written.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sfumato.conditions.attributes import Attribute
from sfumato.config import tree
from sfumato.config.augment import NUMBERS, AugmentConfig
from sfumato.config.data import DataConfig
from sfumato.config.diffusion import DiffusionConfig
from sfumato.config.train import EMAConfig, OptimConfig, TrainConfig
from sfumato.diffusion import SCHEDULES, WEIGHTINGS, Weighting
from sfumato.diffusion.schedule import Chain
from sfumato.errors import UserError
from sfumato.nets import UNetConfig

__all__ = ["Config", "difference", "digest", "fit", "from_dict", "read_toml", "to_dict", "to_toml"]

CHOICES: tree.Choices = {Chain: SCHEDULES, Weighting: WEIGHTINGS}
"""The abstract types of the tree, and which dataclasses a table's `kind` may name for them."""


@dataclass(frozen=True)
class Config:
    """Everything that decides what a run will be. See the module's docstring for its branches."""

    data: DataConfig = DataConfig()
    net: UNetConfig = UNetConfig()
    diffusion: DiffusionConfig = DiffusionConfig()
    optim: OptimConfig = OptimConfig()
    ema: EMAConfig = EMAConfig()
    train: TrainConfig = TrainConfig()
    augment: AugmentConfig = AugmentConfig()

    def __post_init__(self) -> None:
        if self.train.grid_steps > self.diffusion.schedule.num_steps:
            raise UserError(
                f"train.grid_steps = {self.train.grid_steps} on a chain of {self.diffusion.schedule.num_steps} steps: "
                f"choose at most as many"
            )


def to_dict(config: Config) -> dict[str, Any]:
    """Return the configuration as nested dicts that JSON can hold."""
    table: dict[str, Any] = tree.plain(config, CHOICES)
    return table


def from_dict(table: Mapping[str, Any]) -> Config:
    """Build a configuration from nested dicts; missing keys take their defaults.

    Raises:
        UserError: an unknown key, a wrong type, or a value or combination that can't work.
    """
    return tree.convert(Config, table, CHOICES)


def to_toml(config: Config) -> str:
    """Return the configuration as TOML, every value written out; "none" stands for None."""
    return tree.to_toml(to_dict(config))


def digest(config: Config) -> str:
    """Return the SHA-256 of a configuration, in hexadecimal."""
    return hashlib.sha256(json.dumps(to_dict(config), sort_keys=True).encode()).hexdigest()


def difference(old: Config, new: Config) -> str:
    """Return where two configurations differ, as `key old -> new, key old -> new`; empty where they are the same."""
    return ", ".join(tree.difference(to_dict(old), to_dict(new)))


def read_toml(path: Path) -> dict[str, Any]:
    """Return the tables of a TOML file.

    Raises:
        UserError: no such file, not readable, or not TOML; the line is named.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} can't be read: {getattr(error, 'strerror', None) or 'it is not text'}") from None
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path} is not a TOML file: {error}") from None


def fit(config: Config, shape: Sequence[int], attributes: Sequence[Attribute] = ()) -> Config:
    """Return the configuration with the network's channels and conditions as data and diffusion have them.

    With `data.flip` a mirror image is an image like any other, which leaves nothing to tell the network about x-flip:
    it is taken out of the augmentation.

    Args:
        config: what was asked for.
        shape: (C, H, W) of the data.
        attributes: what the data knows of its images, which is what the network learns.
    """
    conditions, learned = tuple(len(a.values) for a in attributes), config.diffusion.variance == "learned"
    augment = config.augment
    if augment.on and config.data.flip:
        augment = replace(augment, kinds=tuple(kind for kind in augment.kinds if kind != "x-flip"))
    net = replace(
        config.net,
        channels=shape[0],
        conditions=conditions,
        augment=NUMBERS if augment.on else 0,
        learned_variance=learned,
    )
    return replace(config, net=net, augment=augment)
