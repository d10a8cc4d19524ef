"""The target of an evaluation: a model, and the images that it is compared with.

A conditional model is always measured with conditions: an image is generated for the condition of a training image,
chosen at random by the image's index, and a held-out image is scored given its own.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from sfumato.codec.format import PixelFormat
from sfumato.config.data import DataConfig
from sfumato.data import Dataset, open_data
from sfumato.data.sources.opening import may_be_data
from sfumato.diffusion.condition import Condition
from sfumato.diffusion.noise import Purpose, uniform
from sfumato.errors import UserError, similar
from sfumato.evaluate.cache import split_rows
from sfumato.evaluate.jobs import Progress
from sfumato.model import Model, load
from sfumato.run.places import is_gone

LOG = logging.getLogger("sfumato")


@dataclass(frozen=True, eq=False)
class Target:
    """A model and images; `own` where these are its training data and not given by the user."""

    model: Model
    data: Dataset
    own: bool

    def __repr__(self) -> str:
        return f"Target({self.model!r}, {self.data!r})"

    @property
    def conditional(self) -> bool:
        """Whether the model takes conditions."""
        return self.model.vocabulary is not None

    def rows(self, rows: Tensor) -> tuple[Tensor, Condition | None]:
        """Return stored values of images by row, and their conditions where the model takes any."""
        values, condition = self.data.rows(rows)
        return values, condition if self.conditional else None

    def encoded(self, rows: Tensor) -> tuple[Tensor, Condition | None]:
        """Return x_0 of images by row and their conditions, on the model's device."""
        values, condition = self.rows(rows)
        device = self.model.device
        return self.model.codec.encode(values.to(device)), None if condition is None else condition.to(device)

    def held_out(self, num: int) -> Tensor:
        """Return the rows of up to `num` held-out images, in random order; raises `UserError` where none is."""
        if not len(self.data.held_out):
            raise UserError(
                f"no image of {self.data.source_name} is held out, so bits and memorisation can't be measured: "
                "train with data.held_out=0.05, or measure --quality alone"
            )
        return split_rows(self.data, "held_out")[:num]

    def condition(self, seed: int, num: int) -> Condition | None:
        """Return the conditions of the first `num` generated images of a seed, or None.

        Each is that of one training image chosen at random, so that combinations of attributes are as frequent as among
        the images.
        """
        if self.data.conditions is None or not self.conditional:
            return None
        u = uniform(seed, Purpose.LABEL, torch.arange(num))
        rows = self.data.train[(u * len(self.data.train)).long().numpy()]
        return self.data.conditions.take(torch.from_numpy(rows))


def open_target(
    source: Path,
    weights: str = "ema",
    data: str | None = None,
    device: torch.device | str = "cpu",
    on_progress: Progress | None = None,
) -> Target:
    """Load a model, as `load`, and open its images, or those that `data` names, in its size, format and vocabulary.
    Raises `UserError` for no such weights, images that can't be opened, or labels that the model doesn't have."""
    model = load(source, weights, device)
    images = _open(model, data, on_progress)
    if images.vocabulary == model.vocabulary:
        return Target(model, images, data is None)
    if model.vocabulary is None:
        return Target(model, replace(images, vocabulary=None, conditions=None), data is None)
    if data is None and type(images.vocabulary) is not type(model.vocabulary):
        LOG.warning("the model's labels are not in its data's configuration: it is measured without labels")
        return Target(model, replace(images, vocabulary=model.vocabulary, conditions=None), True)
    try:
        conditions = model.vocabulary.recode(images.conditions, images.vocabulary)
    except UserError as error:
        raise UserError(f"{images.source_name} has other labels than {source} ({error}): give other --data") from None
    return Target(model, replace(images, vocabulary=model.vocabulary, conditions=conditions), data is None)


def _open(model: Model, data: str | None, on_progress: Progress | None) -> Dataset:
    """Open images and bring them to the model's size and format, if they don't have them already."""
    format = model.codec.format
    config = brought_to(model.data_config(data), model.codec.image_shape, format)
    if data is not None:
        return open_data(config, on_progress=on_progress)
    try:
        images = model.data(on_progress=on_progress)
    except UserError as error:
        if is_gone(own := model.data_config().source):
            hint = similar(own, may_be_data)
            raise UserError(f"the model's own images are not at {own} any more: name them with --data{hint}") from None
        raise UserError(f"the model's own images can't be opened ({error}): name them with --data") from None
    alike = (images.shape, images.format) == (model.codec.image_shape, format)
    return images if alike else open_data(config, on_progress=on_progress)


def brought_to(config: DataConfig, shape: tuple[int, int, int], format: PixelFormat) -> DataConfig:
    """Return a configuration that crops and resizes images to a shape (C, H, W) and stores them in a format."""
    reach = None if format.levels else (format.low, format.high)
    return replace(config, channels=shape[0], size=shape[1:], depth=format.kind, range=reach)
