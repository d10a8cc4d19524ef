"""What the tests of measurement share: data sets decoded once, and networks with random weights."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sfumato.config.data import DataConfig
from sfumato.data import Dataset, open_data
from sfumato.evaluate.target import Target

from .targets import conditional_target, gaussian_target


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder that nobody else sees."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def fashion(cache: Path) -> Dataset:
    return open_data(DataConfig(source="fashion", labels="source"), cache)


@pytest.fixture(scope="session")
def faces(cache: Path) -> Dataset:
    return open_data(DataConfig(source="faces"), cache)


@pytest.fixture
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SFUMATO_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def gaussian(_own_cache: None) -> Target:
    return gaussian_target()


@pytest.fixture
def conditional(_own_cache: None) -> Target:
    return conditional_target()


def images_of(data: Dataset, first: int, count: int) -> Tensor:
    """Return training images, spread over the set: (count, C, H, W) uint8."""
    rows = data.train[(first + 7 * torch.arange(count).numpy()) % len(data.train)]
    return torch.tensor(data.images[rows])


def blurred(images: Tensor, times: int = 1) -> Tensor:
    """Images after a binomial filter of 3x3, so many times."""
    channels = images.shape[1]
    kernel = (torch.tensor([1.0, 2.0, 1.0])[:, None] * torch.tensor([1.0, 2.0, 1.0]) / 16).expand(channels, 1, 3, 3)
    x = images.float()
    for _ in range(times):
        x = F.conv2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), kernel, groups=channels)
    return x.round().byte()


def random_bytes(*shape: int) -> Tensor:
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def randomise(net: nn.Module, seed: int = 0) -> nn.Module:
    """Give a network random weights that keep activations at a usual size, and random running means and variances."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in net.state_dict().items():
        if name.endswith("num_batches_tracked"):
            continue
        z = torch.randn(tensor.shape, generator=generator)
        if name.endswith("running_var") or (tensor.ndim == 1 and name.endswith("weight")):
            z = 1 + 0.3 * z.tanh()
        elif tensor.ndim > 1:
            z = z * (2 / tensor[0].numel()) ** 0.5
        else:
            z = 0.1 * z
        tensor.copy_(z)
    return net.eval()


_LIBRARIES: list[Any] = []


def pytorch_fid(module: str) -> Any:
    """Return a module of pytorch-fid, or skip the test where it, or the torchvision that it needs, is missing.

    A torchvision built for CUDA doesn't find its compiled operators beside a torch without, and stops at once over two
    that its own Python code describes. Inception needs neither, so they are declared and the import tried again.
    """
    pytest.importorskip("scipy")
    try:
        importlib.import_module("torchvision")
    except ImportError:
        pytest.skip("torchvision is not installed")
    except RuntimeError:
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        _LIBRARIES.append(torch.library.Library("torchvision", "DEF"))  # it lasts as long as it is held
        for name in ("nms", "qnms"):
            _LIBRARIES[-1].define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return pytest.importorskip(f"pytorch_fid.{module}", exc_type=(ImportError, RuntimeError))
