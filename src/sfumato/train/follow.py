"""The ranks that follow rank 0: they open the images that it opens, build the trainer that it builds, and do what its
trainer does."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from sfumato.config.config import Config, from_dict, to_dict
from sfumato.config.data import DataConfig
from sfumato.data import Dataset, open_data
from sfumato.errors import UserError
from sfumato.ranks import World
from sfumato.train.requests import ignored
from sfumato.train.trainer import Trainer

if TYPE_CHECKING:
    from sfumato.data.store.build import Progress


def open_together(config: DataConfig, world: World = World(), on_progress: Progress | None = None) -> Dataset:
    """Open images on rank 0, as `open_data` does, while the others open them too: they decode a part each, or the store
    of their own machine. It ends when all have them."""
    with world.ordered("images", config=to_dict(replace(Config(), data=config))):
        data = open_data(config, on_progress=on_progress)
        world.assemble()
    return data


def follow(world: World, device: torch.device | str, data: Dataset | None = None) -> int:
    """Follow rank 0 to the end of its job, and return the job's exit code.

    Args:
        world: this rank's.
        device: its own.
        data: the images; None opens those of the configuration that rank 0 trains.

    Raises:
        UserError: the images here are not those of rank 0.
    """
    with ignored():
        return _follow(world, device, data)


def _follow(world: World, device: torch.device | str, data: Dataset | None) -> int:
    trainer: Trainer | None = None
    code = 0
    for name, values in world.orders():
        if name == "end":
            code = int(values["code"])
        elif name == "images":
            open_data(from_dict(values["config"]).data)
            world.assemble()
        elif name == "trainer":
            config = from_dict(values["config"])
            if data is None:
                data = open_data(config.data)
            if data.fingerprint != values["fingerprint"]:
                raise UserError(
                    f"the images of {config.data.source} are not the same here as at rank 0: give every machine the "
                    "same images under the same path"
                )
            trainer = None  # the memory of the last one is free before the next is built
            trainer = Trainer(config, data, device, world)
        else:
            getattr(trainer, name)(**values)
    return code
