"""The image as its own feature: no network, so it works for any data and its distances can be checked by hand.

Distances between distributions need the features' covariance, so an image of more than 1,024 numbers is averaged over
the smallest square blocks that bring it below. What survives is layout and colour, not texture.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from sfumato.codec.format import EIGHT, PixelFormat
from sfumato.evaluate.extractors.weights import fingerprint
from sfumato.evaluate.features import Shape

__all__ = ["LARGEST", "Pixels"]

LARGEST = 1024
"""The most numbers that describe an image."""


@dataclass(frozen=True)
class Pixels:
    """Images as vectors in [-1, 1].

    Attributes:
        shape: (C, H, W) of the images.
        depth: what their values are.
    """

    shape: Shape
    name: str = "pixels"
    depth: PixelFormat = EIGHT

    @property
    def block(self) -> int:
        """The side, in pixels, of the squares that are averaged; 1 leaves the image as it is."""
        channels, height, width = self.shape
        side = 1
        while channels * -(-height // side) * -(-width // side) > LARGEST:
            side += 1
        return side

    @property
    def dim(self) -> int:
        """C ceil(H / block) ceil(W / block)."""
        channels, height, width = self.shape
        return channels * -(-height // self.block) * -(-width // self.block)

    @property
    def recipe(self) -> str:
        """What is done to an image."""
        mean = f"means of {self.block}x{self.block} blocks" if self.block > 1 else "as they are"
        deep = "" if self.depth == EIGHT else f" ({self.depth.words})"
        return f"{'x'.join(map(str, self.shape))} pixels{deep} in [-1, 1], {mean}"

    @property
    def sha256(self) -> str:
        """The hash of the recipe."""
        return fingerprint(self.recipe)

    def __call__(self, images: Tensor) -> Tensor:
        """Return (B, dim) float32; a block that reaches over the edge is the mean of the pixels that are there."""
        assert tuple(images.shape[1:]) == self.shape, f"made for {self.shape}, not {tuple(images.shape[1:])}"
        x = F.avg_pool2d(self.depth.to_model(images), self.block, ceil_mode=True)
        return x.flatten(1)
