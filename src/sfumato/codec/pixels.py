"""Pixels as x_0: stored values scaled to [-1, 1] (DDPM, Sec. 3.3)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from sfumato.codec.format import EIGHT, PixelFormat
from sfumato.diffusion.decoder import Decoder, Discretized, density


@dataclass(frozen=True)
class PixelsConfig:
    """The configuration of the codec of pixels, which has no options."""

    def build(self, format: PixelFormat, shape: tuple[int, int, int]) -> Pixels:
        """Return the codec; it takes any image."""
        return Pixels(format, shape)


@dataclass(frozen=True)
class Pixels:
    """Stored values v of a format, (C, H, W) an image, as x = 2 (v - low) / (high - low) - 1; satisfies `Codec`."""

    format: PixelFormat
    image_shape: tuple[int, int, int]
    range = (-1.0, 1.0)
    linear = True

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of x_0: the image's own."""
        return self.image_shape

    @property
    def decoder(self) -> Decoder:
        """The mass of each integer's bin (DDPM Eq. 13), or the density of floats."""
        return density if self.format.levels is None else Discretized(self.format.levels)

    @property
    def bits_offset(self) -> float:
        """Added to bits a dimension of x_0 to get those of the stored values."""
        return self.format.bits_offset

    @property
    def scale(self) -> float:
        """Units of the stored values in one unit of x_0."""
        return self.format.scale

    def encode(self, values: Tensor) -> Tensor:
        """Return values in [-1, 1], float32."""
        return self.format.to_model(values)

    def decode(self, x: Tensor) -> Tensor:
        """Return the nearest stored values."""
        return self.format.from_model(x)

    def to_pixels(self, x: Tensor) -> Tensor:
        """Return x: it is pixels."""
        return x

    def from_pixels(self, pixels: Tensor) -> Tensor:
        """Return the pixels as they are."""
        return pixels

    def clip(self, x: Tensor) -> Tensor:
        """Clamp to [-1, 1]."""
        return x.clamp(*self.range)

    def shown(self, x: Tensor) -> Tensor:
        """Return bytes: -1 is black and 1 is white, whatever the format."""
        return to_bytes(x)


def to_model(x: Tensor) -> Tensor:
    """Scale bytes of any shape to [-1, 1], x = 2 k / 255 - 1, float32; 0 is exactly -1 and 255 exactly 1."""
    return EIGHT.to_model(x)


def to_bytes(x: Tensor) -> Tensor:
    """Scale [-1, 1] to bytes, k = round(255 (x + 1) / 2) clamped to 0 .. 255; NaN becomes 0. Any shape and dtype."""
    return EIGHT.from_model(x)
