"""A network and data small enough that a step takes milliseconds, for everything that is about the loop around them."""

from __future__ import annotations

import pytest
import torch

from sfumato.config import Config, fit, resolve
from sfumato.data import Dataset, open_data
from sfumato.data.source import DataConfig

TINY = {
    "net.base": "8",
    "net.groups": "4",
    "net.multipliers": "1,2",
    "net.blocks": "1",
    "net.attention": "1",
    "net.dropout": "0.1",
    "diffusion.schedule.num_steps": "50",
    "train.batch": "8",
    "train.images": "160",
    "train.grids": "2",
    "train.grid_images": "4",
    "train.grid_steps": "2",
    "train.held_outs": "2",
    "train.held_out_images": "16",
    "train.save_every": "1e9",
}


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """The 8x8 digits, with labels."""
    return open_data(DataConfig("digits", labels=True), tmp_path_factory.mktemp("cache"))


def tiny(digits: Dataset, **overrides: str) -> Config:
    """A configuration whose steps take milliseconds; overrides are dotted keys with __ for the dots."""
    dotted = {key.replace("__", "."): value for key, value in overrides.items()}
    config = resolve("digits", overrides={"data.labels": "true", **TINY, **dotted})
    return fit(config, digits.shape, digits.classes)
