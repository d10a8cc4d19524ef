"""Models with random weights, and diffusers' noise replaced by ours."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from sfumato.codec.format import EIGHT, PixelFormat
from sfumato.codec.pixels import Pixels
from sfumato.conditions.protocol import Vocabulary
from sfumato.config.config import Config
from sfumato.diffusion import Noise
from sfumato.model import Model, load, save

NET = {"kind": "unet", "base": 8, "multipliers": [1, 2], "blocks": 1, "attention": [1], "groups": 4, "dropout": 0.0}
"""A small U-Net as a table."""


def randomise(net: nn.Module, seed: int = 0) -> None:
    """Fill every weight so that activations keep their size and none stays at zero or one."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.ndim > 1:
                bound = (3 / parameter[0].numel()) ** 0.5
                parameter.uniform_(-bound, bound)
            else:
                parameter.uniform_(-0.5, 0.5)
        for module in net.modules():
            if isinstance(module, nn.GroupNorm):
                module.weight += 1


def random_model(
    path: Path,
    config: Config,
    shape: tuple[int, int, int] = (3, 8, 8),
    vocabulary: Vocabulary | None = None,
    format_: PixelFormat = EIGHT,
) -> Model:
    """A model of a configuration, loaded from a weights file that was written for it."""
    net = config.net.build(config.interface(shape[0], vocabulary))
    randomise(net)
    save(path, net.state_dict(), config, Pixels(format_, shape), vocabulary=vocabulary, images=1)
    return load(path)


class OurNoise:
    """Stands for diffusers' `randn_tensor`: our prior first, then our noise of each step."""

    def __init__(self, noise: Noise) -> None:
        self.noise, self.calls = noise, 0

    def __call__(self, shape: Any, **options: Any) -> torch.Tensor:
        self.calls += 1
        drawn = self.noise.prior() if self.calls == 1 else self.noise.step(self.calls - 2)
        assert tuple(shape) == tuple(drawn.shape)
        return drawn


def replace_noise(monkeypatch: pytest.MonkeyPatch, noise: Noise, *modules: Any) -> OurNoise:
    """Have diffusers' pipelines and schedulers draw our noise."""
    ours = OurNoise(noise)
    names = ("diffusers.pipelines.ddpm.pipeline_ddpm", "diffusers.schedulers.scheduling_ddpm")
    for module in (*map(importlib.import_module, names), *modules):
        monkeypatch.setattr(module, "randn_tensor", ours)
    return ours
