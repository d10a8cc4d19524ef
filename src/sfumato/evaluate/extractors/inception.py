"""The Inception-v3 of the Frechet Inception distance (Heusel et al. 2017, 1706.08500), from its published weights.

The distance is defined by one file of weights, TensorFlow's `inception-2015-12-05`, which pytorch-fid publishes under
torch's names as `pt_inception-2015-12-05-6726825d.pth`. That network differs in small ways from the Inception-v3 in
torchvision (Szegedy et al. 2015, arXiv 1512.00567), and the published numbers carry them:

- average pooling inside a block leaves the padding out of its mean;
- the last block, Mixed_7c, pools by maximum where the others average;
- the last layer has 1,008 classes (it is not used).

Each block is a set of paths that start at its input and are joined along the channels; a path is a chain of
convolutions, each with batch normalisation and ReLU. The features are the 2,048 means over the last block's 8x8 places.

Images are brought to 299x299 by bilinear interpolation, antialiased where it shrinks, and to [-1, 1]. For images up to
299 pixels that is pytorch-fid's rule exactly; larger ones are not antialiased there, which makes its numbers depend on
aliasing (Parmar, Zhang and Zhu 2022, arXiv 2104.11222).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sfumato.errors import UserError
from sfumato.evaluate.extractors.weights import fill, fingerprint, read_state, resized

__all__ = ["Inception", "InceptionFeatures", "open_inception"]

RECIPE = "bilinear to 299x299 (antialiased where it shrinks), 3 channels, [-1, 1]"
SIDE = 299
DIM = 2048

Kernel = int | tuple[int, int]
Step = tuple[str, int, Kernel] | tuple[str, int, Kernel, int] | str
"""A convolution (name, channels out, kernel, stride if not 1), or `mean`, `max`, `halve`: pooling over 3x3."""
Paths = Sequence[Sequence[Step]]


class Convolution(nn.Module):
    """Convolution, batch normalisation, ReLU; padded to keep the size where the stride is 1 and `padded`."""

    def __init__(self, ins: int, outs: int, kernel: Kernel, stride: int = 1, padded: bool = True) -> None:
        super().__init__()
        sides = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (sides[0] // 2, sides[1] // 2) if stride == 1 and padded else (0, 0)
        self.conv = nn.Conv2d(ins, outs, sides, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outs, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        """(B, ins, H, W) -> (B, outs, H', W')."""
        return F.relu(self.bn(self.conv(x)))


class Block(nn.Module):
    """Paths from one input, joined along the channels; paths that begin alike share their beginning."""

    def __init__(self, ins: int, paths: Paths) -> None:
        super().__init__()
        self.paths = paths
        for path in paths:
            width = ins
            for step in path:
                if not isinstance(step, str):
                    name, outs, *rest = step
                    if not hasattr(self, name):
                        self.add_module(name, Convolution(width, outs, *rest))  # type: ignore[arg-type]
                    width = outs

    def forward(self, x: Tensor) -> Tensor:
        """(B, ins, H, W) -> (B, the paths' channels, H', W')."""
        known: dict[tuple[Step, ...], Tensor] = {(): x}
        for path in self.paths:
            for end in range(1, len(path) + 1):
                key = tuple(path[:end])
                if key not in known:
                    known[key] = self._step(known[key[:-1]], path[end - 1])
        return torch.cat([known[tuple(path)] for path in self.paths], 1)

    def _step(self, x: Tensor, step: Step) -> Tensor:
        """Take one step of a path."""
        if step == "mean":
            return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)
        if step == "max":
            return F.max_pool2d(x, 3, stride=1, padding=1)
        if step == "halve":
            return F.max_pool2d(x, 3, stride=2)
        out: Tensor = self.get_submodule(step[0])(x)
        return out


def _a(pool: int) -> Paths:
    """35x35 places: 1x1, 5x5, two 3x3, and pooling."""
    return (
        (("branch1x1", 64, 1),),
        (("branch5x5_1", 48, 1), ("branch5x5_2", 64, 5)),
        (("branch3x3dbl_1", 64, 1), ("branch3x3dbl_2", 96, 3), ("branch3x3dbl_3", 96, 3)),
        ("mean", ("branch_pool", pool, 1)),
    )


def _b() -> Paths:
    """From 35x35 to 17x17 places."""
    return (
        (("branch3x3", 384, 3, 2),),
        (("branch3x3dbl_1", 64, 1), ("branch3x3dbl_2", 96, 3), ("branch3x3dbl_3", 96, 3, 2)),
        ("halve",),
    )


def _c(width: int) -> Paths:
    """17x17 places: 7x7 convolutions taken apart into 1x7 and 7x1."""
    row, column = (1, 7), (7, 1)
    double: list[Step] = [(f"branch7x7dbl_{n}", width, k) for n, k in ((1, 1), (2, column), (3, row), (4, column))]
    return (
        (("branch1x1", 192, 1),),
        (("branch7x7_1", width, 1), ("branch7x7_2", width, row), ("branch7x7_3", 192, column)),
        (*double, ("branch7x7dbl_5", 192, row)),
        ("mean", ("branch_pool", 192, 1)),
    )


def _d() -> Paths:
    """From 17x17 to 8x8 places."""
    seven: list[Step] = [(f"branch7x7x3_{n}", 192, k) for n, k in ((1, 1), (2, (1, 7)), (3, (7, 1)))]
    return (
        (("branch3x3_1", 192, 1), ("branch3x3_2", 320, 3, 2)),
        (*seven, ("branch7x7x3_4", 192, 3, 2)),
        ("halve",),
    )


def _e(pool: str) -> Paths:
    """8x8 places: 3x3 convolutions fork into 1x3 and 3x1."""
    double: list[Step] = [("branch3x3dbl_1", 448, 1), ("branch3x3dbl_2", 384, 3)]
    return (
        (("branch1x1", 320, 1),),
        (("branch3x3_1", 384, 1), ("branch3x3_2a", 384, (1, 3))),
        (("branch3x3_1", 384, 1), ("branch3x3_2b", 384, (3, 1))),
        (*double, ("branch3x3dbl_3a", 384, (1, 3))),
        (*double, ("branch3x3dbl_3b", 384, (3, 1))),
        (pool, ("branch_pool", 192, 1)),
    )


_BLOCKS: dict[str, tuple[int, Paths]] = {
    "Mixed_5b": (192, _a(32)),
    "Mixed_5c": (256, _a(64)),
    "Mixed_5d": (288, _a(64)),
    "Mixed_6a": (288, _b()),
    "Mixed_6b": (768, _c(128)),
    "Mixed_6c": (768, _c(160)),
    "Mixed_6d": (768, _c(160)),
    "Mixed_6e": (768, _c(192)),
    "Mixed_7a": (768, _d()),
    "Mixed_7b": (1280, _e("mean")),
    "Mixed_7c": (2048, _e("max")),
}
"""Each block's channels in, and its paths."""


class Inception(nn.Module):
    """The network up to its last pooling, its tensors named as in the published file."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = Convolution(3, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = Convolution(32, 32, 3, padded=False)
        self.Conv2d_2b_3x3 = Convolution(32, 64, 3)
        self.Conv2d_3b_1x1 = Convolution(64, 80, 1)
        self.Conv2d_4a_3x3 = Convolution(80, 192, 3, padded=False)
        for name, (ins, paths) in _BLOCKS.items():
            self.add_module(name, Block(ins, paths))

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, 2048) of images (B, 3, 299, 299) in [-1, 1]."""
        x = F.max_pool2d(self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x))), 3, stride=2)
        x = F.max_pool2d(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x)), 3, stride=2)
        for name in _BLOCKS:
            x = self.get_submodule(name)(x)
        return x.mean((2, 3))


@dataclass(frozen=True, eq=False)
class InceptionFeatures:
    """The 2,048 pool features.

    Attributes:
        sha256: of the file and the recipe.
        net: the network, in evaluation mode.
        device: where it works.
    """

    sha256: str
    net: Inception
    device: str = "cpu"
    name: str = "inception"
    dim: int = DIM
    recipe: str = RECIPE

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Return (B, 2048) float32, none negative."""
        features: Tensor = self.net(2 * resized(images.to(self.device), SIDE, "bilinear") - 1)
        return features


def open_inception(path: Path, device: str = "cpu") -> InceptionFeatures:
    """Open the network with the weights in a file.

    Args:
        path: the published file, or its tensors as safetensors.
        device: where the network works.

    Raises:
        UserError: no such file, or other weights than the published ones' names and shapes.
    """
    state, digest = read_state(path)
    last = state.pop("fc.weight", None)
    state.pop("fc.bias", None)
    if last is not None and len(last) != 1008:
        raise UserError(
            f"'{path}' is an Inception-v3 of {len(last)} classes and the Frechet Inception distance is defined by "
            "another, of 1,008: give pt_inception-2015-12-05-6726825d.pth"
        )
    with torch.device("meta"):
        net = Inception()
    net = fill(net, state, path, "FID's Inception-v3").to(device)
    return InceptionFeatures(fingerprint(RECIPE, digest), net, device)
