"""The package denoising-diffusion-pytorch, for its networks and checkpoints: what it needs for other things (reading
images, several processes, the Frechet distance) is stood for by empty modules where it is not installed."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from typing import Any

import pytest

_UNUSED = {
    "torchvision": (), "torchvision.transforms": (), "torchvision.utils": (), "accelerate": ("Accelerator",),
    "pytorch_fid": (), "pytorch_fid.fid_score": ("calculate_frechet_distance",),
    "pytorch_fid.inception": ("InceptionV3",),
}  # fmt: skip


def package() -> Any:
    """Its module of networks; the tests are skipped where it is not installed."""
    if importlib.util.find_spec("denoising_diffusion_pytorch") is None:
        pytest.skip("denoising-diffusion-pytorch is not installed", allow_module_level=True)
    missing = [name for name in _UNUSED if importlib.util.find_spec(name.split(".")[0]) is None]
    for name in missing:
        module = types.ModuleType(name)
        vars(module).update(dict.fromkeys(_UNUSED[name]))
        sys.modules[name] = module
        parent, _, leaf = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], leaf, module)
    try:
        return importlib.import_module("denoising_diffusion_pytorch.denoising_diffusion_pytorch")
    finally:
        for name in missing:
            del sys.modules[name]
