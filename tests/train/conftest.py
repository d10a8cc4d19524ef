"""A network and data small enough that a step takes milliseconds, for all that is about the loop around them."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sfumato.config.config import Config, to_dict
from sfumato.config.data import DataConfig
from sfumato.config.presets import resolve
from sfumato.data import Dataset, open_data
from sfumato.diffusion import Noised, Objective, Prediction
from sfumato.run.events import Stepped
from sfumato.run.folder import Run
from sfumato.run.log import read_events
from sfumato.train import train
from sfumato.train.trainer import Trainer

TINY = {
    "net.base": "4",
    "net.groups": "2",
    "net.multipliers": "1",
    "net.blocks": "1",
    "net.attention": "0",
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
TIMES = ("seconds", "cost")


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """The 8x8 digits, with labels."""
    return open_data(DataConfig("digits", labels="source"), tmp_path_factory.mktemp("cache"))


@pytest.fixture
def run(tmp_path) -> Run:
    return Run(tmp_path / "run")


def tiny(**overrides: str) -> Config:
    """A configuration whose steps take milliseconds; overrides are dotted keys with __ for the dots."""
    dotted = {key.replace("__", "."): value for key, value in overrides.items()}
    return resolve("small8", overrides={"data.labels": "source", **TINY, **dotted})


KINDS: list[dict[str, str]] = [
    {},
    {"augment__p": "0.5", "optim__name": "adamw"},
    {"diffusion__variance": "learned", "diffusion__objective": "hybrid"},
    {"diffusion__weighting__kind": "sigmoid"},
    {"diffusion__timesteps__kind": "importance"},
    {"net__kind": "transformer"},
]
"""What a device computes differently."""


def kind(**more: str) -> Config:
    """A configuration of `KINDS` with 8 images held out."""
    if more.get("net__kind") != "transformer":
        return tiny(train__held_out_images="8", **more)
    net = {"net.kind": "transformer", "net.width": "16", "net.depth": "2", "net.heads": "2"}
    rest = {key: value for key, value in TINY.items() if not key.startswith("net.")}
    dotted = {key.replace("__", "."): value for key, value in more.items()}
    return resolve("small8", overrides={"data.labels": "source", **rest, "train.held_out_images": "8", **dotted, **net})


def go(config, run: Run, data, steps: int | None = None, **more) -> list:
    """Train to the end, or close the generator after so many steps, and return the events."""
    events, seen = train(config, run, data, **more), []
    for event in events:
        seen.append(event)
        if isinstance(event, Stepped) and event.step == steps:
            events.close()
            break
    return seen


_FOLDER = tempfile.TemporaryDirectory()
_KEPT: dict[str, Run] = {}


def begun(config: Config, run: Run, data: Dataset, steps: int | None = None) -> None:
    """Leave the run folder that `go` leaves; one that was trained before, of the same data, is copied."""
    key = json.dumps([to_dict(config), data.digests[0], steps])
    if key in _KEPT:
        shutil.copytree(_KEPT[key].path, run.path)
        return
    go(config, run, data, steps)
    _KEPT[key] = Run(Path(tempfile.mkdtemp(dir=_FOLDER.name)) / "run")
    shutil.copytree(run.path, _KEPT[key].path)


def final(run: Run) -> dict[str, bytes]:
    """Every tensor file of the newest checkpoint, and the weights files, byte by byte."""
    files = [*run.list_checkpoints()[0].glob("*.safetensors"), *run.weights.iterdir()]
    return {f"{path.parent.name}/{path.name}": path.read_bytes() for path in files}


def log_of(run: Run) -> list[dict]:
    """The log without clocks and without the events of interruptions."""
    lines = [line for line in read_events(run.events_path) if line["event"] not in ("started", "saved")]
    return [{k: v for k, v in line.items() if k not in TIMES} for line in lines]


def tensors(trainer: Trainer) -> dict[str, Tensor]:
    """A copy of all that a trainer's state holds."""
    return {f"{kind}/{name}": t.clone() for kind, named in trainer.state().items() for name, t in named.items()}


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="session")
def whole(digits, tmp_path_factory) -> Run:
    """Twenty steps that nobody interrupted."""
    run = Run(tmp_path_factory.mktemp("whole") / "run")
    go(tiny(), run, digits)
    return run


@dataclass(frozen=True)
class Altered:
    """An objective whose losses go through a function before anybody sees them."""

    objective: Objective
    change: Callable[[Tensor], Tensor]

    def losses(self, prediction: Prediction, noised: Noised) -> Tensor:
        return self.change(self.objective.losses(prediction, noised))
