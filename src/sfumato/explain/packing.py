"""Values for the page: arrays become base64 of little-endian numbers, everything else plain JSON.

    {"$": "u8", "shape": [8, 3, 16, 16], "data": "..."}                       bytes
    {"$": "i16", "shape": [...], "scale": 0.0001, "data": "..."}              value = scale * integer
    {"$": "f32" | "f64", "shape": [...], "data": "..."}

A prediction needs more digits than a byte has and fewer than a float: 16 bits of the largest magnitude.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

_TYPES = {"u8": "<u1", "i16": "<i2", "f32": "<f4", "f64": "<f8"}


@dataclass(frozen=True, eq=False)
class Array:
    """Numbers for the page: `values` times `scale`, stored as `kind`."""

    kind: str
    values: NDArray[Any]
    scale: float = 1.0

    def plain(self) -> dict[str, Any]:
        """Return what the page's script reads."""
        raw = np.ascontiguousarray(self.values.astype(_TYPES[self.kind])).tobytes()
        table = {"$": self.kind, "shape": list(self.values.shape), "data": base64.b64encode(raw).decode("ascii")}
        return table | ({"scale": self.scale} if self.scale != 1.0 else {})


def _numpy(values: Any) -> NDArray[Any]:
    array: NDArray[Any] = values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)
    return array


def u8(values: Any) -> Array:
    """Return bytes."""
    return Array("u8", _numpy(values))


def f32(values: Any) -> Array:
    """Return floats of 32 bits."""
    return Array("f32", _numpy(values))


def f64(values: Any) -> Array:
    """Return floats of 64 bits."""
    return Array("f64", _numpy(values))


def i16(values: Any) -> Array:
    """Return floats as 16-bit integers and a scale; what is not finite is 0."""
    array = np.nan_to_num(_numpy(values).astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    scale = float(np.abs(array).max(initial=0.0)) / 32767 or 1.0
    return Array("i16", np.rint(array / scale), scale)


def unit(values: Any, low: float = 0.0, high: float = 1.0) -> Array:
    """Return values of low .. high as the bytes 0 .. 255, clamped."""
    array = (_numpy(values).astype(np.float64) - low) / (high - low)
    return Array("u8", np.rint(255 * np.clip(np.nan_to_num(array), 0, 1)))


def plain(value: Any, arrays: bool = True) -> Any:
    """Return a value as JSON has it; what is not finite is null. Without `arrays` only their shapes are kept."""
    if isinstance(value, Array):
        return value.plain() if arrays else {"shape": list(value.values.shape)}
    if isinstance(value, Mapping):
        return {str(name): plain(inner, arrays) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner, arrays) for inner in value]
    if isinstance(value, torch.Tensor | np.ndarray | np.generic):
        return plain(value.tolist(), arrays)
    return None if isinstance(value, float) and not math.isfinite(value) else value


def embedded(value: Any) -> str:
    """Return JSON that can stand in a script element: no `<`, so no end tag and no comment."""
    text = json.dumps(plain(value), ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
