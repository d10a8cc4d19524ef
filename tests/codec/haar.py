"""A second codec: the coefficients of one level of the orthonormal 2x2 Haar transform, four channels for each of an
image's, at half its size. Nothing outside this file knows of it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from sfumato.codec.format import PixelFormat
from sfumato.codec.pixels import Pixels
from sfumato.codec.registry import CODECS
from sfumato.diffusion import Gaussian
from sfumato.diffusion.decoder import Decoder
from sfumato.errors import UserError

SIGNS = torch.tensor([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]) / 2
"""Rows: mean, left - right, above - below, diagonal; orthogonal and symmetric."""


@dataclass(frozen=True)
class HaarConfig:
    """Pixels are modelled as Haar coefficients."""

    def build(self, format: PixelFormat, shape: tuple[int, int, int]) -> Haar:
        if shape[1] % 2 or shape[2] % 2:
            raise UserError(f"codec haar needs an even height and width; the images are {shape[1]}x{shape[2]}")
        return Haar(Pixels(format, shape))


@dataclass(frozen=True)
class Haar:
    """x_0 = W p, W orthonormal, p pixels in [-1, 1]."""

    pixels: Pixels
    range = None
    linear = True

    @property
    def format(self) -> PixelFormat:
        return self.pixels.format

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self.pixels.image_shape

    @property
    def shape(self) -> tuple[int, int, int]:
        channels, height, width = self.image_shape
        return 4 * channels, height // 2, width // 2

    @property
    def bits_offset(self) -> float:
        return self.pixels.bits_offset  # the transform keeps volumes

    @property
    def scale(self) -> float:
        return self.pixels.scale

    @property
    def decoder(self) -> Decoder:
        """Each pixel is a sum of four coefficients, +-1/2 each: its mean is theirs transformed, its variance the mean
        of theirs."""

        def nats(gaussian: Gaussian, x_0: Tensor) -> Tensor:
            mean = self.to_pixels(gaussian.mean.expand_as(x_0))
            variance = gaussian.logvar.exp().expand_as(x_0).unflatten(1, (-1, 4)).mean(2, keepdim=True)
            spread = F.pixel_shuffle(variance.expand(-1, -1, 4, -1, -1).flatten(1, 2), 2)
            # the stored value's own point: a transform there and back would miss it by rounding
            exact = self.pixels.encode(self.pixels.decode(self.to_pixels(x_0))).to(x_0)
            return F.pixel_unshuffle(self.pixels.decoder(Gaussian(mean, spread.log()), exact), 2)  # of x_0's shape

        return nats

    def encode(self, values: Tensor) -> Tensor:
        return self.from_pixels(self.pixels.encode(values))

    def decode(self, x: Tensor) -> Tensor:
        return self.pixels.decode(self.to_pixels(x))

    def to_pixels(self, x: Tensor) -> Tensor:
        blocks = torch.einsum("kp,bckhw->bcphw", SIGNS.to(x), x.unflatten(1, (-1, 4)))
        return F.pixel_shuffle(blocks.flatten(1, 2), 2)

    def from_pixels(self, pixels: Tensor) -> Tensor:
        blocks = F.pixel_unshuffle(pixels, 2).unflatten(1, (-1, 4))
        return torch.einsum("kp,bcphw->bckhw", SIGNS.to(pixels), blocks).flatten(1, 2)

    def clip(self, x: Tensor) -> Tensor:
        return self.from_pixels(self.to_pixels(x).clamp(-1, 1))

    def shown(self, x: Tensor) -> Tensor:
        return self.pixels.shown(self.to_pixels(x))


CODECS["haar"] = HaarConfig
