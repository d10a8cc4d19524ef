"""The ranks that follow rank 0: they build the trainer that it builds, and do what its trainer does."""

from __future__ import annotations

import torch

from sfumato.config.config import from_dict
from sfumato.data import Dataset, open_data
from sfumato.errors import UserError
from sfumato.ranks import World
from sfumato.train.trainer import Trainer


def follow(world: World, device: torch.device | str, data: Dataset | None = None) -> int:
    """Follow rank 0 to the end of its job, and return the job's exit code.

    Args:
        world: this rank's.
        device: its own.
        data: the images; None opens those of the configuration that rank 0 trains.

    Raises:
        UserError: the images here are not those of rank 0.
    """
    trainer: Trainer | None = None
    code = 0
    for name, values in world.orders():
        if name == "end":
            code = int(values["code"])
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
