"""The judge of generated images: one fixed extractor of features for every contestant.

For 28x28 clothes and 8x8 digits it is the classifier that Sfumato ships. For another labelled set it is a small
classifier trained here on the set's labels, seeded and on one thread, kept beside the results; for a set without labels
the pixels themselves, which see layout and colour only. The distance is `sfumato.evaluate`'s Frechet distance to as
many real images, with its interval, and beside it real images against other real ones.

A judge that was trained on a set knows that set only: its distances can be compared within one set, never with
published ones.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sfumato.data import Dataset, open_data
from sfumato.diffusion.noise import Purpose, permutation
from sfumato.errors import UserError
from sfumato.evaluate import Extractor, open_extractor
from sfumato.files import write_atomic

SEED, BATCH, STEPS, RATE, WIDTH = 0, 64, 1500, 2e-3, 64
SHIPPED = ("digits", "fashion", "fashion-full")
"""Built-in sets that a shipped classifier is for."""
LOG = logging.getLogger("sfumato")


def open_judge(data: Dataset, folder: Path) -> Extractor:
    """Return the extractor for a set, trained where there is none yet.

    Args:
        data: the set, with or without its labels.
        folder: where a trained judge is kept.
    """
    if data.source_name in SHIPPED:
        return open_extractor("classifier", data.shape, format=data.format)
    labelled = _with_labels(data)
    classes = [len(attribute.values) for attribute in labelled.attributes if attribute.values]
    if not classes:
        print(f"{data.source_name} has no classes: judged by its pixels, which see layout and colour, not texture")
        return open_extractor("pixels", data.shape, format=data.format)
    path = folder / f"judge-{labelled.fingerprint[:16]}.safetensors"
    if not path.exists():
        net, accuracy = train(labelled, classes)
        print(f"judge: {path.name}, {accuracy:.1%} right on held-out images")
        write_atomic(path, safetensors.torch.save(net.state_dict(), {"accuracy": f"{accuracy:.4f}"}))
    net = network(data.shape[0], sum(classes))
    net.load_state_dict(safetensors.torch.load_file(path))
    return Extractor(
        name="classifier trained on the set",
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        dim=WIDTH,
        recipe="pixels in [-1, 1], as they are",
        features=lambda images: net.eval()[:-1](data.format.to_model(images)),
        format=data.format,
    )


def network(channels: int, outputs: int) -> nn.Sequential:
    """Return four convolutions down to 2x2, a layer of `WIDTH` features, and the logits of all attributes."""
    return nn.Sequential(
        nn.Conv2d(channels, 32, 3, padding=1),
        nn.GroupNorm(8, 32),
        nn.SiLU(),
        nn.Conv2d(32, 64, 3, stride=2, padding=1),
        nn.GroupNorm(8, 64),
        nn.SiLU(),
        nn.Conv2d(64, 64, 3, stride=2, padding=1),
        nn.GroupNorm(8, 64),
        nn.SiLU(),
        nn.Conv2d(64, 64, 3, padding=1),
        nn.SiLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(256, WIDTH),
        nn.SiLU(),
        nn.Linear(WIDTH, outputs),
    )


def train(data: Dataset, classes: list[int]) -> tuple[nn.Sequential, float]:
    """Train a classifier on a set's attributes with values, all at once; return it with its held-out accuracy.

    AdamW, a rate that falls linearly to zero, cross-entropy summed over the attributes; a missing value is left out.
    """
    columns = [i for i, attribute in enumerate(data.attributes) if attribute.values]
    labels = torch.from_numpy(np.nan_to_num(data.table[:, columns], nan=-100.0)).long()
    torch.manual_seed(SEED)
    net = network(data.shape[0], sum(classes))
    optimiser = torch.optim.AdamW(net.parameters(), RATE)
    rows = torch.from_numpy(data.train)
    for step in range(STEPS):
        epoch, within = divmod(step * BATCH, len(rows))
        order = permutation(SEED, Purpose.ORDER, len(rows), epoch)
        index = rows[order[within : within + BATCH]]
        optimiser.param_groups[0]["lr"] = RATE * (1 - step / STEPS)
        parts = net(_images(data, index)).split(classes, 1)
        loss = sum(_loss(part, labels[index, column]) for column, part in enumerate(parts))
        optimiser.zero_grad()
        loss.backward()  # type: ignore[union-attr]
        optimiser.step()
    return net.eval(), _accuracy(net, data, labels, classes)


def _loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy over the labels that are given; 0 where there is none."""
    return F.cross_entropy(logits, labels, reduction="sum") / (labels >= 0).sum().clamp(min=1)


@torch.no_grad()
def _accuracy(net: nn.Module, data: Dataset, labels: Tensor, classes: list[int]) -> float:
    """The fraction of right classes over all attributes of the held-out images."""
    rows = torch.from_numpy(data.held_out)
    right = [
        part.argmax(1) == labels[index, column]
        for index in rows.split(500)
        for column, part in enumerate(net(_images(data, index)).split(classes, 1))
    ]
    given = (labels[rows] >= 0).sum()
    return float(torch.cat(right).sum() / given)


def _images(data: Dataset, index: Tensor) -> Tensor:
    return data.format.to_model(data.rows(index)[0])


def _with_labels(data: Dataset) -> Dataset:
    """Open a set again with its own labels; the set itself where it has none."""
    try:
        return open_data(replace(data.config, labels="source", attributes=()))
    except UserError as error:
        LOG.debug("no labels: %s", error)
        return data
