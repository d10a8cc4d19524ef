"""The interface of a codec: stored values to the x_0 of diffusion and back.

    stored values (B, C, H, W) of a `PixelFormat`  --encode-->  x_0, float32  --decode-->  stored values

Pixels in [-1, 1] are one codec (`pixels`), latents of an autoencoder would be another. Everything that depends on the
meaning of x_0 is a method here: the clipping of predictions, the likelihood of a stored value, previews. A new codec is
one file that defines the two classes below, and one line in `registry`.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from sfumato.codec.format import PixelFormat
from sfumato.diffusion.decoder import Decoder


class Codec(Protocol):
    """Converts stored values to x_0 and back; a frozen value.

    Attributes:
        format: of the stored values.
        image_shape: (C, H, W) of a stored image.
        shape: (C, H, W) of x_0.
        range: the least and the greatest value of a coordinate of x_0; None where there is no such range.
        linear: whether `to_pixels` is linear and orthonormal, as editing with operators on pixels needs.
        decoder: -log p(stored value | Gaussian over x_0) in nats a coordinate, the bound's L_0.
        bits_offset: added to bits a dimension: 0 for probabilities, log2 of `scale` for densities.
        scale: units of the stored values that one unit of x_0 stands for.
    """

    @property
    def format(self) -> PixelFormat: ...  # noqa: D102
    @property
    def image_shape(self) -> tuple[int, int, int]: ...  # noqa: D102
    @property
    def shape(self) -> tuple[int, int, int]: ...  # noqa: D102
    @property
    def range(self) -> tuple[float, float] | None: ...  # noqa: D102
    @property
    def linear(self) -> bool: ...  # noqa: D102
    @property
    def decoder(self) -> Decoder: ...  # noqa: D102
    @property
    def bits_offset(self) -> float: ...  # noqa: D102
    @property
    def scale(self) -> float: ...  # noqa: D102

    def encode(self, values: Tensor) -> Tensor:
        """Return x_0, float32 (B, *shape), of stored values (B, *image_shape)."""
        ...

    def decode(self, x: Tensor) -> Tensor:
        """Return stored values (B, *image_shape) of x (B, *shape); integers are rounded and clamped."""
        ...

    def to_pixels(self, x: Tensor) -> Tensor:
        """Return x (B, *shape) as pixels in the range -1 to 1 (B, *image_shape), neither rounded nor clamped."""
        ...

    def from_pixels(self, pixels: Tensor) -> Tensor:
        """Return pixels (B, *image_shape) in the range -1 to 1 as x (B, *shape), in their dtype."""
        ...

    def clip(self, x: Tensor) -> Tensor:
        """Return the nearest x that is an image: pixels are clamped to -1 .. 1."""
        ...

    def shown(self, x: Tensor) -> Tensor:
        """Return x (B, *shape) as bytes to look at, uint8 (B, *image_shape)."""
        ...


class CodecConfig(Protocol):
    """The configuration of a codec; a frozen dataclass, a leaf of `config.codec`."""

    def build(self, format: PixelFormat, shape: tuple[int, int, int]) -> Codec:
        """Return the codec of stored images.

        Args:
            format: of their values.
            shape: (C, H, W).

        Raises:
            UserError: it does not support such images.
        """
        ...
