"""What is measured: a model out of its weights, and the images that it is held against.

A conditional model is measured with labels throughout, since that is what it was trained for: an image is drawn for
what is known of a training image, chosen by the address (seed, LABEL, image), and a held-out image is scored given what
is known of itself. A model without attributes has none of this.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sfumato.conditions.attributes import Attribute
from sfumato.config.data import DataConfig
from sfumato.data import Dataset, open_data
from sfumato.data.store.store import Progress
from sfumato.diffusion import Denoiser, Prediction, Schedule
from sfumato.diffusion.condition import Condition
from sfumato.diffusion.noise import Purpose, uniform
from sfumato.errors import UserError
from sfumato.evaluate.cache import split_rows
from sfumato.model import Model, load
from sfumato.run.folder import Run

__all__ = ["Counted", "Subject", "open_subject", "place"]

WEIGHTS = ("ema", "raw", "best")
"""The weights that a run may have."""


@dataclass(frozen=True)
class Counted:
    """A denoiser that tells how many images it was asked about.

    Attributes:
        denoiser: what makes the prediction.
        tick: called with the size of each batch.
    """

    denoiser: Denoiser
    tick: Callable[[int], None]

    @property
    def schedule(self) -> Schedule:
        """The wrapped denoiser's schedule."""
        return self.denoiser.schedule

    def __call__(self, x_t: Tensor, t: Tensor | float, condition: Condition | None = None) -> Prediction:
        """Predict and tell."""
        prediction = self.denoiser(x_t, t, condition)
        self.tick(len(x_t))
        return prediction


@dataclass(frozen=True, eq=False)
class Subject:
    """A model and images.

    Attributes:
        model: the model.
        data: the images.
        own: whether they are what the model was trained on, rather than named by the user.
        device: where the model lives.
    """

    model: Model
    data: Dataset
    own: bool
    device: torch.device

    @cached_property
    def sha256(self) -> str:
        """The hash of the file of weights."""
        with self.model.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    @property
    def conditional(self) -> bool:
        """Whether the model knows attributes."""
        return bool(self.model.attributes)

    def held_out(self, num: int) -> Tensor:
        """Return the rows of up to `num` held-out images, in random order.

        Raises:
            UserError: none is held out.
        """
        if not len(self.data.held_out):
            raise UserError(
                f"no image of {self.data.source_name} is held out, so neither bits nor memorisation can be measured: "
                "train with data.held_out=0.05, or measure --quality alone"
            )
        return split_rows(self.data, "held_out")[:num]

    def conditions(self, seed: int, first: int, count: int) -> Tensor | None:
        """Return what drawn images `first` .. `first + count - 1` of a seed are asked to be, (count, A), or None.

        Each is what is known of one training image, drawn by address, so that attributes come together as often as they
        do among the images.
        """
        if not self.conditional:
            return None
        u = uniform(seed, Purpose.LABEL, torch.arange(first, first + count))
        rows = self.data.train[(u * len(self.data.train)).long().numpy()]
        return torch.from_numpy(self.data.conditions[rows])


def open_subject(
    source: Path,
    weights: str | None = None,
    data: str | None = None,
    device: torch.device | str = "cpu",
    on_progress: Progress | None = None,
) -> Subject:
    """Load a model and open its images.

    Args:
        source: a run folder, or a file of weights.
        weights: which of a run's: `ema` (when None), `raw` or `best`.
        data: a built-in name or a path, in place of what the model was trained on.
        device: where the model shall live.
        on_progress: called while images are decoded.

    Raises:
        UserError: no such weights, images that can't be opened, or labels that the model doesn't know.
    """
    model = load(_file(source, weights), device)
    images = _recoded(_open(model, data, on_progress), model.attributes)
    return Subject(model, images, data is None, torch.device(device))


def place(source: Path) -> Path:
    """Return the folder that keeps what is measured of a source: a run's own, or one beside a file of weights."""
    if source.is_dir():
        return source / "evaluation"
    run = source.absolute().parent.parent
    inside = source.absolute().parent.name == "weights" and Run(run).exists()
    return (run if inside else source.parent) / "evaluation"


def _file(source: Path, weights: str | None) -> Path:
    """The file of weights that is meant."""
    if weights is None:
        return source
    assert weights in WEIGHTS, weights
    if not source.is_dir():
        raise UserError(f"--weights {weights} chooses between the weights of a run: give the run folder, or leave it")
    file = source / "weights" / f"{weights}.safetensors"
    if not file.is_file():
        there = [name for name in WEIGHTS if file.with_name(f"{name}.safetensors").is_file()]
        raise UserError(f"{source} has no '{weights}' weights; it has {', '.join(there) or 'none yet'}")
    return file


def _open(model: Model, data: str | None, on_progress: Progress | None) -> Dataset:
    """Open images and bring them to the model's size and depth, if they haven't got them of themselves."""
    config: DataConfig = model.config.data if data is None else replace(model.config.data, source=data)
    channels, height, width = model.shape
    deep = model.depth
    reach = None if deep.levels else (deep.low, deep.high)
    sized = replace(config, size=(height, width), channels=channels, depth=deep.kind, range=reach)
    if data is not None:
        return open_data(sized, on_progress=on_progress)
    try:
        images = open_data(config, on_progress=on_progress)
    except UserError as error:
        raise UserError(f"the model's own images can't be opened ({error}): name them with --data") from None
    alike = (images.shape, images.depth) == (model.shape, deep)
    return images if alike else open_data(sized, on_progress=on_progress)


def _recoded(data: Dataset, attributes: tuple[Attribute, ...]) -> Dataset:
    """Return images whose conditions count values and scale numbers as a model's attributes do.

    Raises:
        UserError: the images lack an attribute, or have a value that the model doesn't know.
    """
    if data.attributes == attributes:
        return data
    own = {attribute.name: attribute for attribute in data.attributes}
    columns = []
    for attribute in attributes:
        here = own.get(attribute.name)
        if here is None or bool(here.values) != bool(attribute.values):
            raise UserError(
                f"{data.source_name} has the attributes {_some(tuple(own))} and the model knows "
                f"{_some(tuple(known.name for known in attributes))}: give --data that has the model's own"
            )
        column = data.conditions[:, data.attributes.index(here)]
        if strange := [value for value in here.values if value not in attribute.values]:
            raise UserError(
                f"{data.source_name} has {here.name} = {_some(tuple(strange))}, and the model knows "
                f"{_some(attribute.values)}: give --data with the model's own values"
            )
        if here.values:
            places = np.array([attribute.values.index(value) for value in here.values], np.float32)
            columns.append(np.where(np.isnan(column), np.nan, places[np.nan_to_num(column).astype(np.int64)]))
        else:
            columns.append((here.mean + here.std * column - attribute.mean) / attribute.std)
    table = np.stack(columns, 1) if columns else data.conditions[:, :0]
    return replace(data, attributes=attributes, conditions=table.astype(np.float32))


def _some(names: tuple[str, ...]) -> str:
    """The first few names."""
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "") or "none"
