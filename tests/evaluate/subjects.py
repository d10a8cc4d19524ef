"""Models that are known exactly, and images to hold them against, as an evaluation's subject."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sfumato.config import Config
from sfumato.data import DataConfig, Dataset, to_model
from sfumato.diffusion import Cosine, GaussianOracle, Prediction, Schedule
from sfumato.evaluate.evaluation import Evaluation
from sfumato.evaluate.settings import Settings
from sfumato.evaluate.subject import Subject
from sfumato.nets import UNet, UNetConfig
from sfumato.weights import Model

SCHEDULE, SHAPE, STD = Cosine(num_steps=50), (1, 3, 4), 0.25
ORACLE = GaussianOracle(SCHEDULE, torch.zeros(SHAPE), torch.full(SHAPE, STD**2))


def gaussian_bytes(num: int, seed: int) -> Tensor:
    raw = STD * torch.randn(num, *SHAPE, generator=torch.Generator().manual_seed(seed))
    return ((raw + 1) * 127.5).round().clamp(0, 255).byte()


def dataset(images: Tensor, train: int, labels: list[int] | None = None, classes: tuple[str, ...] = ()) -> Dataset:
    """A data set in memory, its first images those that train."""
    return Dataset(
        config=DataConfig(source="digits", labels=labels is not None),
        source_name="digits",
        images=images.numpy(),
        labels=np.array(labels if labels is not None else [-1] * len(images)),
        classes=classes,
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
    model = Model(net, config, denoiser, data.shape, data.classes, 1000, "ema", FILE)
    return Subject(model, data, own=True, device=torch.device("cpu"))


def measure(of: Subject, folder: Path, kind: str, batch: int = 64, **settings: Any) -> dict[str, Any]:
    return Evaluation(of, Settings(**settings), folder, batch).perform([kind])[kind]


def changed(of: Subject, **data: Any) -> Subject:
    return replace(of, data=replace(of.data, **data))


@dataclass(frozen=True)
class Told:
    """Knows the image from its label alone: all pixels at 40 + 50 label; without one, grey."""

    schedule: Schedule = SCHEDULE

    def __call__(self, x_t: Tensor, t: Tensor | float, condition: Tensor | None = None) -> Prediction:
        assert condition is not None
        assert len(condition) == len(x_t)
        grey = torch.where(condition < 0, 127, 40 + 50 * condition).byte()
        x0 = to_model(grey).reshape(-1, 1, 1, 1).expand_as(x_t)
        return Prediction(x0, x_t).with_x0(x0, x_t, self.schedule(t))


def gaussian_subject() -> Subject:
    """The Gaussian oracle and 600 of its images, half of them held out."""
    return subject(ORACLE, dataset(gaussian_bytes(600, 0), 300))


def told_subject() -> Subject:
    """`Told` and images of four classes, 40 of 240 held out."""
    labels = [n % 4 for n in range(200)] + [n % 3 for n in range(40)]
    images = (40 + 50 * torch.tensor(labels)).byte().reshape(-1, 1, 1, 1).expand(-1, *SHAPE).contiguous()
    return subject(Told(), dataset(images, 200, labels, ("a", "b", "c", "d")))
