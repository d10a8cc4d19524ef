r"""Pixel formats: the type of a stored value v, and its value x in [-1, 1].

    x = 2 (v - low) / (high - low) - 1            8 bits: low 0, high 255      16 bits: 0, 65535      floats: recorded

(DDPM, Sec. 3.3, for bytes: "linearly scaled to [-1, 1]"). On the way back integers are rounded and clamped to low ..
high; floats are left as they are. The round trip changes no integer.

A likelihood depends on the format too. Integers are the middles of `levels` bins, so they have probabilities. Floats
have only a density, which depends on the unit: with dx = dv / scale in each of the D values of an image,

    log p(v) = log p(x) - D log scale,      scale = (high - low) / 2
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch
    from torch import Tensor

DEPTHS = ("8", "16", "float")
"""The kinds of format, as `data.depth` names them."""
_DTYPES = {"8": "|u1", "16": "<u2", "float": "<f4"}
_LEVELS = {"8": 256, "16": 65536, "float": None}


@dataclass(frozen=True)
class PixelFormat:
    """The format of stored values.

    Attributes:
        kind: `8` (uint8), `16` (uint16) or `float` (float32).
        low: the value at x = -1.
        high: the value at x = 1.

    Raises:
        ValueError: no such kind, or an empty or unbounded range.
    """

    kind: str = "8"
    low: float = 0.0
    high: float = 255.0

    def __post_init__(self) -> None:
        if self.kind not in DEPTHS:
            raise ValueError(f"depth '{self.kind}' is unknown: choose from {', '.join(DEPTHS)}")
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(
                f"the range of this depth is {self.low} to {self.high}: give a lower and a greater finite number"
            )
        if self.levels is not None and (self.low, self.high) != (0, self.levels - 1):
            raise ValueError(f"{self.kind} bits go from 0 to {self.levels - 1}, not from {self.low} to {self.high}")

    @property
    def levels(self) -> int | None:
        """How many values there are: 256, 65536, or None for floats."""
        return _LEVELS[self.kind]

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of an array of such values."""
        return np.dtype(_DTYPES[self.kind])

    @property
    def tensor_dtype(self) -> torch.dtype:
        """The type of a tensor of such values."""
        import torch

        return {"8": torch.uint8, "16": torch.uint16, "float": torch.float32}[self.kind]

    @property
    def scale(self) -> float:
        """(high - low) / 2: how many units of the values one unit of the model is."""
        return (self.high - self.low) / 2

    @property
    def bits_offset(self) -> float:
        """Added to bits a dimension of x_0 to get those of the stored values: log2 scale for a density, else 0."""
        return math.log2(self.scale) if self.levels is None else 0.0

    @property
    def words(self) -> str:
        """A short description: "8-bit", "16-bit", "floating-point, -0.2 to 1.3"."""
        return f"{self.kind}-bit" if self.levels else f"floating-point, {self.low:.5g} to {self.high:.5g}"

    def to_model(self, values: Tensor) -> Tensor:
        """Return values of any shape as x, float32."""
        import torch

        shifted = values.to(torch.float32, copy=True)
        if self.low:
            return shifted.sub_(self.low).div_(self.scale).sub_(1.0)
        return shifted.div_(self.scale).sub_(1.0)  # of bytes: exactly -1 at 0 and 1 at 255

    def from_model(self, x: Tensor) -> Tensor:
        """Return x of any shape and dtype as values; integers are rounded and clamped, and NaN becomes the lowest."""
        import torch

        values = x.to(torch.float32).add(1.0).mul_(self.scale)
        if self.levels is None:
            return values.add_(self.low)
        whole = values.nan_to_num_(nan=0.0).round_().clamp_(0.0, float(self.levels - 1))
        return whole.to(self.tensor_dtype)

    def shown(self, values: Any) -> Any:
        """Return values, an array or a tensor, as uint8 to look at: black at `low`, white at `high`."""
        import torch

        if self.kind == "8":
            return values
        tensor = values if isinstance(values, torch.Tensor) else torch.from_numpy(np.array(values))
        bytes_ = EIGHT.from_model(self.to_model(tensor))
        return bytes_ if isinstance(values, torch.Tensor) else bytes_.numpy()


EIGHT = PixelFormat()
SIXTEEN = PixelFormat("16", 0.0, 65535.0)


def format_of(kind: str, low: float = 0.0, high: float = 1.0) -> PixelFormat:
    """Return the format of a kind. The range is for floats only; one of a single value is widened by 1."""
    if kind == "float":
        return PixelFormat("float", low, high if high > low else low + 1.0)
    return {"8": EIGHT, "16": SIXTEEN}[kind]


def plain(depth: PixelFormat) -> dict[str, Any]:
    """Return a format as JSON has it."""
    return {"kind": depth.kind, "low": depth.low, "high": depth.high}


def from_plain(table: dict[str, Any] | None) -> PixelFormat:
    """Return the inverse of `plain`, 8 bits for None; ValueError, KeyError or TypeError where it is not a format."""
    return EIGHT if table is None else PixelFormat(str(table["kind"]), float(table["low"]), float(table["high"]))
