"""Training on values of other depths: what the network sees, and what the bound counts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from sfumato.codec.format import EIGHT, SIXTEEN, PixelFormat
from sfumato.data import Dataset
from sfumato.train.trainer import Learner

from .conftest import tiny


def deeper(data: Dataset, depth: PixelFormat) -> Dataset:
    """The same images in another depth, their values those that mean the same to the model."""
    x = EIGHT.to_model(torch.from_numpy(np.array(data.images)))
    return replace(data, images=depth.from_model(x).numpy(), depth=depth)


@pytest.mark.parametrize("depth", [SIXTEEN, PixelFormat("float", -300.0, 100.0)], ids=lambda depth: depth.kind)
def test_the_same_images_teach_the_same_in_every_depth(digits: Dataset, depth: PixelFormat) -> None:
    """257 k of 16 bits is what k is of 8: under the simple loss not even the rounding differs by much."""
    losses = []
    for data in (digits, deeper(digits, depth)):
        learner = Learner(tiny(digits, train__images="80"), data)
        losses.append([float(learner.step().terms.loss.mean()) for _ in range(3)])
        scores = learner.held_out()
        assert scores is not None
        losses[-1].append(float(scores.held_out.loss.mean()))
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.parametrize("objective", ["vlb", "hybrid"])
def test_the_bound_counts_the_datas_own_levels(digits: Dataset, objective: str) -> None:
    config = tiny(digits, diffusion__variance="learned", diffusion__objective=objective)
    for depth in (EIGHT, SIXTEEN, PixelFormat("float", 0.0, 1.0)):
        found = Learner(config, deeper(digits, depth)).objective
        assert getattr(found, "bound", found).levels == depth.levels
