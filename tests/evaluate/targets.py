"""Models that are known exactly, and images to compare them with, as an evaluation's target."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sfumato.codec.format import EIGHT
from sfumato.codec.pixels import Pixels, to_bytes, to_model
from sfumato.codec.protocol import Codec
from sfumato.conditions.attributes import Attribute
from sfumato.conditions.table import Attributes
from sfumato.conditions.vocabulary import AttributeVocabulary
from sfumato.config.config import Config
from sfumato.config.data import DataConfig
from sfumato.data import Dataset
from sfumato.diffusion import Cosine, GaussianOracle, Prediction, Schedule
from sfumato.evaluate.evaluation import Evaluation
from sfumato.evaluate.settings import Settings
from sfumato.evaluate.target import Target
from sfumato.generate.recipe import Recipe
from sfumato.model import Model

SCHEDULE, SHAPE, STD = Cosine(num_steps=50), (1, 3, 4), 0.25
ORACLE = GaussianOracle(SCHEDULE, torch.zeros(SHAPE), torch.full(SHAPE, STD**2))
CODEC = Pixels(EIGHT, SHAPE)
TRUTH = math.log2(127.5 * STD) + 0.5 * math.log2(2 * math.pi * math.e)
"""Entropy of the rounded Gaussian, whose bins are fine, in bits."""
FILE = Path(__file__)
"""What stands for a file of weights: only its hash is asked for."""


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gaussian_bytes(num: int, seed: int, shape: tuple[int, ...] = SHAPE) -> Tensor:
    return to_bytes(STD * torch.randn(num, *shape, generator=torch.Generator().manual_seed(seed)))


def dataset(images: Tensor, train: int, table: Tensor | None = None, attributes: tuple[Attribute, ...] = ()) -> Dataset:
    """A data set in memory, its first images those that train."""
    return Dataset(
        config=DataConfig(source="digits", labels="source" if attributes else "none"),
        source_name="digits",
        images=images.numpy(),
        vocabulary=AttributeVocabulary(attributes) if attributes else None,
        conditions=None if table is None else Attributes(table.float()),
        origins=(),
        digests=tuple(hashlib.sha256(image.numpy().tobytes()).hexdigest() for image in images),
        train=np.arange(train),
        held_out=np.arange(train, len(images)),
        skipped=[],
        notes=(),
    )


def target(denoiser: Any, data: Dataset, codec: Codec | None = None) -> Target:
    """An oracle in the place of a network, of pixels by default."""
    codec, net = codec or Pixels(data.format, data.shape), nn.Linear(1, 1)
    model = Model(net, Config(), denoiser, codec, data.vocabulary, 1000, "ema", FILE)  # type: ignore[arg-type]
    return Target(model, data, own=True)


def asked(**settings: Any) -> Settings:
    """Settings, those of the recipe among them."""
    ours = {field.name for field in fields(Settings)}
    recipe = Recipe(**{name: value for name, value in settings.items() if name not in ours})
    return Settings(recipe=recipe, **{name: value for name, value in settings.items() if name in ours})


def evaluation(of: Target, folder: Path, batch: int = 64, **settings: Any) -> Evaluation:
    return Evaluation(of, asked(**settings), folder, batch)


def measure(of: Target, folder: Path, kind: str, batch: int = 64, **settings: Any) -> dict[str, Any]:
    return evaluation(of, folder, batch, **settings).perform([kind])[kind]


def changed(of: Target, **data: Any) -> Target:
    return replace(of, data=replace(of.data, **data))


def relabelled(of: Target, table: np.ndarray) -> Target:
    return changed(of, conditions=Attributes(torch.from_numpy(table.astype(np.float32))))


def drawn_as(table: Tensor) -> Tensor:
    """The byte of every pixel of an image of a condition."""
    return (40 + 50 * table[:, 0] + 4 * table[:, 1]).byte()


@dataclass(frozen=True)
class Conditional:
    """Knows the image from its condition alone."""

    schedule: Schedule = SCHEDULE

    def __call__(self, x_t: Tensor, t: Tensor | float, condition: Attributes | None = None) -> Prediction:
        assert condition is not None
        assert len(condition) == len(x_t)
        x0 = to_model(drawn_as(condition.table)).reshape(-1, 1, 1, 1).expand_as(x_t)
        return Prediction(x0, x_t).with_x0(x0, x_t, self.schedule(t))


def gaussian_target() -> Target:
    """The Gaussian oracle and 600 of its images, half of them held out."""
    return target(ORACLE, dataset(gaussian_bytes(600, 0), 300))


def conditional_target() -> Target:
    """`Conditional` and images of four kinds and a shade, 40 of 240 held out; kind 3 has only the shades -1 and 0."""
    kind = torch.tensor([n % 4 for n in range(200)] + [n % 3 for n in range(40)]).float()
    shade = torch.arange(240) % 7 % 3 - 1.0
    table = torch.stack([kind, torch.where(kind == 3, shade.clamp(max=0), shade)], 1)
    images = drawn_as(table).reshape(-1, 1, 1, 1).expand(-1, *SHAPE).contiguous()
    attributes = (Attribute("kind", ("a", "b", "c", "d")), Attribute("shade", mean=2.0, std=0.5))
    return target(Conditional(), dataset(images, 200, table, attributes))
