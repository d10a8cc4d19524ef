"""The options that describe a training, the same for `train` and `plan`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional

from sfumato.cli.options import Device, Json, Overrides, option
from sfumato.config.keys import SHORT
from sfumato.errors import UserError

if TYPE_CHECKING:
    from sfumato.train.extend import More


@dataclass(frozen=True)
class TrainingOptions:
    """Options of a verb that trains, or plans a training."""

    data: Annotated[str | None, Positional, option("DATA")] = None
    """a built-in name (see `sfumato data`), or a folder of images"""
    run: Annotated[Path | None, option("DIR")] = None
    """the run folder; runs/DATA by default"""
    init: Annotated[str | None, option("WEIGHTS")] = None
    """begin with the weights of a run, RUN@200k, a file, or a model that comes along; what fits is taken over"""
    preset: Annotated[str | None, option("NAME")] = None
    """small32, medium64, large256 ..., or published settings: cifar10-ddpm, cifar10-iddpm, celeba64-ddpm ...
    (docs/training.md lists all); chosen by default"""
    budget: Annotated[str | None, option("[+]TIME")] = None
    """time for the whole training, such as 2m or 1h30m; its length is planned from the measured speed; +1h goes on
    for so long with a run that was begun"""
    images: Annotated[str | None, option("[+]COUNT")] = None
    """how many images to train on, such as 500k; the preset's length by default; +500k goes on for so many with a run
    that was begun"""
    seed: Annotated[int | None, option("N")] = None
    """seed of the weights, the order, the noise; 0 by default"""
    lr: Annotated[str | None, option("X")] = None
    """learning rate (optim.lr); the preset's by default"""
    batch: Annotated[str | None, option("N")] = None
    """images a step (train.batch); the preset's by default"""
    size: Annotated[str | None, option("N|WxH")] = None
    """width and height to which images are cropped and resized (data.size); chosen by the images by default"""
    labels: Annotated[str | None, option("source|FILE|none")] = None
    """train with labels: of the source, such as its sub-folders, or of a CSV or JSON Lines file (data.labels); the
    source's classes by default, where every image has one"""
    config: Annotated[Path | None, option("FILE.toml")] = None
    """a TOML file, whose values replace the preset's"""
    device: Device = "auto"
    json: Json = False
    overrides: Overrides = ()

    def given(self) -> dict[str, str]:
        """Return the options that set a dotted key, but for the length."""
        values = {} if self.seed is None else {"train.seed": str(self.seed)}
        dotted = dict(self.overrides)
        for name, key in SHORT.items():
            if (value := getattr(self, name)) is not None:
                if key in dotted:
                    raise UserError(f"--{name} and --{key} are the same value: give one")
                values[key] = value
        return values | dotted


def length(more: More | None) -> dict[str, str]:
    """Return the values that a length is in the configuration of a new run."""
    if more is None or more.added:
        return {}
    if more.images is not None:
        return {"train.images": str(more.images), "train.budget": "none"}
    return {"train.budget": str(more.seconds), "train.images": "none"}


def with_source(reason: str) -> str:
    """Return why a preset was chosen, `NAME: ...`, and in a second line where its values come from."""
    from sfumato.config.presets import PRESETS

    preset = PRESETS.get(reason.partition(":")[0])
    return reason if preset is None else f"{reason}\n{preset.source}"
