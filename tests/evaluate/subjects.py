"""Models that are known exactly, and images to hold them against, as an evaluation's subject."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sfumato.codec.pixels import to_model
from sfumato.conditions.attributes import Attribute
from sfumato.config.config import Config
from sfumato.config.data import DataConfig
from sfumato.data import Dataset
from sfumato.diffusion import Cosine, GaussianOracle, Prediction, Schedule
from sfumato.evaluate.evaluation import Evaluation
from sfumato.evaluate.settings import Settings
from sfumato.evaluate.subject import Subject
from sfumato.model import Model
from sfumato.nets.unet.unet import UNet, UNetConfig

SCHEDULE, SHAPE, STD = Cosine(num_steps=50), (1, 3, 4), 0.25
ORACLE = GaussianOracle(SCHEDULE, torch.zeros(SHAPE), torch.full(SHAPE, STD**2))


def gaussian_bytes(num: int, seed: int) -> Tensor:
    raw = STD * torch.randn(num, *SHAPE, generator=torch.Generator().manual_seed(seed))
    return ((raw + 1) * 127.5).round().clamp(0, 255).byte()


def dataset(
    images: Tensor, train: int, conditions: Tensor | None = None, attributes: tuple[Attribute, ...] = ()
) -> Dataset:
    """A data set in memory, its first images those that train."""
    told = torch.zeros(len(images), 0) if conditions is None else conditions
    return Dataset(
        config=DataConfig(source="digits", labels="source" if attributes else "none"),
        source_name="digits",
        images=images.numpy(),
        attributes=attributes,
        conditions=told.float().numpy(),
        origins=(),
        digests=tuple(hashlib.sha256(image.numpy().tobytes()).hexdigest() for image in images),
        train=np.arange(train),
        held_out=np.arange(train, len(images)),
        quarantined=[],
        notes=(),
    )


FILE = Path(__file__)
"""What stands for a file of weights: only its hash is asked for."""


def subject(denoiser: Any, data: Dataset) -> Subject:
    """An oracle in the place of a network."""
    config = Config(net=UNetConfig(1, base=8, multipliers=(1,), blocks=1, attention=(), groups=4))
    net = UNet(config.net)
    model = Model(net, config, denoiser, data.shape, data.attributes, 1000, "ema", FILE)
    return Subject(model, data, own=True, device=torch.device("cpu"))


def measure(of: Subject, folder: Path, kind: str, batch: int = 64, **settings: Any) -> dict[str, Any]:
    return Evaluation(of, Settings(**settings), folder, batch).perform([kind])[kind]


def changed(of: Subject, **data: Any) -> Subject:
    return replace(of, data=replace(of.data, **data))


@dataclass(frozen=True)
class Told:
    """Knows the image from its condition alone: all pixels at 40 + 50 kind + 4 shade."""

    schedule: Schedule = SCHEDULE

    def __call__(self, x_t: Tensor, t: Tensor | float, condition: Tensor | None = None) -> Prediction:
        assert condition is not None
        assert len(condition) == len(x_t)
        x0 = to_model((40 + 50 * condition[:, 0] + 4 * condition[:, 1]).byte()).reshape(-1, 1, 1, 1).expand_as(x_t)
        return Prediction(x0, x_t).with_x0(x0, x_t, self.schedule(t))


def gaussian_subject() -> Subject:
    """The Gaussian oracle and 600 of its images, half of them held out."""
    return subject(ORACLE, dataset(gaussian_bytes(600, 0), 300))


def told_subject() -> Subject:
    """`Told` and images of four kinds and a shade, 40 of 240 held out; kind 3 has only the shades -1 and 0."""
    kind = torch.tensor([n % 4 for n in range(200)] + [n % 3 for n in range(40)]).float()
    shade = torch.arange(240) % 7 % 3 - 1.0
    shade = torch.where(kind == 3, shade.clamp(max=0), shade)
    images = (40 + 50 * kind + 4 * shade).byte().reshape(-1, 1, 1, 1).expand(-1, *SHAPE).contiguous()
    attributes = (Attribute("kind", ("a", "b", "c", "d")), Attribute("shade", mean=2.0, std=0.5))
    return subject(Told(), dataset(images, 200, torch.stack([kind, shade], 1), attributes))
