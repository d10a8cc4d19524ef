"""The Inception-v3 of the Frechet Inception distance (Heusel et al. 2017, 1706.08500), from its published weights.

The distance is defined by one file of weights, TensorFlow's `inception-2015-12-05`, which pytorch-fid publishes under
torch's names. That network differs in small ways from torchvision's Inception-v3 (Szegedy et al. 2015, arXiv
1512.00567), and the published numbers carry them: average pooling inside a block leaves the padding out of its mean;
the last block pools by maximum where the others average; the last layer, not used, has 1,008 classes. The features are
the 2,048 means over the last block's 8x8 positions.

Images are brought to 299x299 by bilinear interpolation, antialiased where it shrinks, and to [-1, 1]. For images up to
299 pixels that is pytorch-fid's rule exactly; larger ones are not antialiased there, which makes its numbers depend on
aliasing (Parmar, Zhang and Zhu 2022, arXiv 2104.11222).
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sfumato.codec.format import PixelFormat
from sfumato.errors import UserError
from sfumato.evaluate.extractors.weights import fill, fingerprint, read_state, resized
from sfumato.evaluate.features import Extractor, Shape

RECIPE = "bilinear to 299x299 (antialiased where it shrinks), 3 channels, [-1, 1]"
SIDE, DIM = 299, 2048

_A = """branch1x1 64 1x1
branch5x5_1 48 1x1, branch5x5_2 64 5x5
branch3x3dbl_1 64 1x1, branch3x3dbl_2 96 3x3, branch3x3dbl_3 96 3x3
mean, branch_pool {} 1x1"""
_B = """branch3x3 384 3x3/2
branch3x3dbl_1 64 1x1, branch3x3dbl_2 96 3x3, branch3x3dbl_3 96 3x3/2
halve"""
_C = """branch1x1 192 1x1
branch7x7_1 {0} 1x1, branch7x7_2 {0} 1x7, branch7x7_3 192 7x1
branch7x7dbl_1 {0} 1x1, branch7x7dbl_2 {0} 7x1, branch7x7dbl_3 {0} 1x7, branch7x7dbl_4 {0} 7x1, branch7x7dbl_5 192 1x7
mean, branch_pool 192 1x1"""
_D = """branch3x3_1 192 1x1, branch3x3_2 320 3x3/2
branch7x7x3_1 192 1x1, branch7x7x3_2 192 1x7, branch7x7x3_3 192 7x1, branch7x7x3_4 192 3x3/2
halve"""
_E = """branch1x1 320 1x1
branch3x3_1 384 1x1, branch3x3_2a 384 1x3
branch3x3_1 384 1x1, branch3x3_2b 384 3x1
branch3x3dbl_1 448 1x1, branch3x3dbl_2 384 3x3, branch3x3dbl_3a 384 1x3
branch3x3dbl_1 448 1x1, branch3x3dbl_2 384 3x3, branch3x3dbl_3b 384 3x1
{}, branch_pool 192 1x1"""

_BLOCKS = {
    "Mixed_5b": (192, _A.format(32)),
    "Mixed_5c": (256, _A.format(64)),
    "Mixed_5d": (288, _A.format(64)),
    "Mixed_6a": (288, _B),
    "Mixed_6b": (768, _C.format(128)),
    "Mixed_6c": (768, _C.format(160)),
    "Mixed_6d": (768, _C.format(160)),
    "Mixed_6e": (768, _C.format(192)),
    "Mixed_7a": (768, _D),
    "Mixed_7b": (1280, _E.format("mean")),
    "Mixed_7c": (2048, _E.format("max")),
}
"""Each block's channels in, and its paths, one a line: chains of convolutions (name, channels out, kernel / stride) and
of pooling over 3x3 (mean, max, halve). They start at the block's input and are joined along the channels; paths that
begin alike share its convolutions."""
POOLS = {
    "mean": nn.AvgPool2d(3, 1, 1, count_include_pad=False),
    "max": nn.MaxPool2d(3, 1, 1),
    "halve": nn.MaxPool2d(3, 2),
}


class Convolution(nn.Module):
    """Convolution, batch normalisation, ReLU; padded to keep the size where the stride is 1 and `padded`."""

    def __init__(self, ins: int, outs: int, kernel: tuple[int, int], stride: int = 1, padded: bool = True) -> None:
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2) if stride == 1 and padded else (0, 0)
        self.conv = nn.Conv2d(ins, outs, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outs, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        """(B, ins, H, W) -> (B, outs, H', W')."""
        return F.relu(self.bn(self.conv(x)))


class Block(nn.Module):
    """Paths from one input, joined along the channels."""

    def __init__(self, ins: int, paths: str) -> None:
        super().__init__()
        self.paths: list[nn.Sequential] = []  # of the modules below, not modules of their own
        for line in paths.splitlines():
            width, path = ins, nn.Sequential()
            for name, *spec in (step.split() for step in line.split(", ")):
                if spec and not hasattr(self, name):
                    kernel, _, stride = spec[1].partition("/")
                    height, across = map(int, kernel.split("x"))
                    self.add_module(name, Convolution(width, int(spec[0]), (height, across), int(stride or 1)))
                path.append(self.get_submodule(name) if spec else POOLS[name])
                width = int(spec[0]) if spec else width
            self.paths.append(path)

    def forward(self, x: Tensor) -> Tensor:
        """(B, ins, H, W) -> (B, the paths' channels, H', W')."""
        return torch.cat([path(x) for path in self.paths], 1)


class Inception(nn.Module):
    """The network up to its last pooling, its tensors named as in the published file."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = Convolution(3, 32, (3, 3), stride=2)
        self.Conv2d_2a_3x3 = Convolution(32, 32, (3, 3), padded=False)
        self.Conv2d_2b_3x3 = Convolution(32, 64, (3, 3))
        self.Conv2d_3b_1x1 = Convolution(64, 80, (1, 1))
        self.Conv2d_4a_3x3 = Convolution(80, 192, (3, 3), padded=False)
        for name, (ins, paths) in _BLOCKS.items():
            self.add_module(name, Block(ins, paths))

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, 2048) of images (B, 3, 299, 299) in [-1, 1]."""
        x = F.max_pool2d(self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x))), 3, stride=2)
        x = F.max_pool2d(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x)), 3, stride=2)
        for name in _BLOCKS:
            x = self.get_submodule(name)(x)
        return x.mean((2, 3))


def open_features(path: Path, shape: Shape, device: str, format: PixelFormat) -> Extractor:
    """Open the network with the weights in a file: the published one, or its tensors as safetensors."""
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

    def features(images: Tensor) -> Tensor:
        out: Tensor = net(2 * resized(images, SIDE, "bilinear") - 1)
        return out

    return Extractor("inception", fingerprint(RECIPE, digest), DIM, RECIPE, features, device=device)
