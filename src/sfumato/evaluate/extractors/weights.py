"""Foreign weights, read without running any code and checked against their network; and resized images.

A file is safetensors, or what `torch.save` wrote. The latter is read by `data.formats.torch_file`, which runs
nothing and refuses everything but named tensors.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import safetensors
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sfumato.data.formats.plain_pickle import NotPlain
from sfumato.data.formats.torch_file import read_torch, tensors_in
from sfumato.errors import UserError, similar

Net = TypeVar("Net", bound=nn.Module)


def read_state(path: Path) -> tuple[dict[str, Tensor], str]:
    """Return a file's tensors by name, and the SHA-256 of the file; raises `UserError` where there is no such file, or
    it holds anything but named tensors."""
    if not path.is_file():
        raise UserError(
            f"there is no file of weights '{path}': give the path of one that you have{similar(path, Path.is_file)}"
        )
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if path.suffix == ".safetensors":
            return dict(safetensors.torch.load_file(path)), digest
        return tensors_in(read_torch(path)), digest
    except NotPlain as error:
        raise UserError(f"'{path}' holds {error}: give the file of weights as its authors publish it") from None
    except UserError as error:
        raise UserError(f"{error}; give the file of weights as its authors publish it") from None
    except (OSError, safetensors.SafetensorError) as error:
        reason = " ".join(str(error).split())[:100]
        raise UserError(f"'{path}' is not a file of weights ({reason}): see --help") from None


def fill(net: Net, state: Mapping[str, Tensor], path: Path, name: str) -> Net:
    """Give a network, built on the meta device, its weights, and return it ready to be used; raises `UserError` that
    names the first tensor that is missing, too many, or of another shape."""
    expected = {key: tuple(t.shape) for key, t in net.state_dict().items() if not key.endswith("num_batches_tracked")}
    present = {key: tuple(t.shape) for key, t in state.items() if not key.endswith("num_batches_tracked")}
    for key in [*expected, *present]:
        if expected.get(key) != present.get(key):
            what = f"'{key}' is {present.get(key, 'missing')}, expected {expected.get(key, 'no such tensor')}"
            raise UserError(f"'{path}' does not hold the weights of {name}: {what}; give the published file")
    net.load_state_dict({key: state[key].float() for key in expected}, strict=False, assign=True)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            module.num_batches_tracked = torch.tensor(0)
    return net.eval().requires_grad_(False)


def fingerprint(recipe: str, digest: str = "") -> str:
    """Return the SHA-256 of a recipe and of the weights' own digest."""
    return hashlib.sha256(f"{recipe}\n{digest}".encode()).hexdigest()


def resized(images: Tensor, side: int, mode: str) -> Tensor:
    """Return bytes (B, 1 or 3, H, W) as published networks take them: (B, 3, side, side) in [0, 1].

    The filter is antialiased where it shrinks and is plain interpolation, pixel centres at half-integers, where it
    enlarges. `bicubic` may overshoot [0, 1] a little.
    """
    x = images.float().div_(255)
    x = F.interpolate(x, (side, side), mode=mode, align_corners=False, antialias=True)
    return x.expand(-1, 3, -1, -1)
