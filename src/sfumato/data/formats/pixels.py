"""Bytes to the model's range and back: `depth.Depth` for the depth that pictures are looked at in, 8 bits.

A byte k in 0 .. 255 becomes x = 2 k / 255 - 1 in [-1, 1] (Ho et al. 2020, section 3.3: "linearly scaled to [-1, 1]"),
and a model's output goes back to the nearest byte. Going there and back changes no byte. Images of other depths are
looked at through the model's range: -1 is black and 1 is white whatever their values are.
"""

from __future__ import annotations

from torch import Tensor

from sfumato.codec.pixels import EIGHT

__all__ = ["to_bytes", "to_model"]


def to_model(x: Tensor) -> Tensor:
    """Scale bytes to the model's range, x = 2 k / 255 - 1.

    Args:
        x: uint8 of any shape.

    Returns:
        float32 of the same shape, in [-1, 1]; 0 is exactly -1 and 255 exactly 1.
    """
    return EIGHT.to_model(x)


def to_bytes(x: Tensor) -> Tensor:
    """Scale the model's range to bytes, k = round(255 (x + 1) / 2), clamped to 0 .. 255.

    Args:
        x: float of any shape and dtype; values beyond [-1, 1] are clamped, NaN becomes 0 (no byte stands for it).

    Returns:
        uint8 of the same shape.
    """
    return EIGHT.from_model(x)
