"""Weights alone: one safetensors file that this library loads as a model and any other as named tensors."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from sfumato.errors import UserError, nearest
from sfumato.exchange.formats import Written
from sfumato.files import write_synced
from sfumato.model import Model, packed
from sfumato.report.text import size

_TYPES = {"float32": torch.float32, "float16": torch.float16}


@dataclass(frozen=True)
class Tensors:
    """A folder with model.safetensors; sfumato.json beside it has the configuration and the noise levels.

    Attributes:
        dtype: of the weights, `float32` or `float16`.
    """

    dtype: str = "float32"

    def __post_init__(self) -> None:
        if self.dtype not in _TYPES:
            raise UserError(f"dtype is '{self.dtype}'{nearest(self.dtype, _TYPES)}")

    def write(self, model: Model, out: Path) -> Written:
        """Write the folder; raises `UserError` for weights beyond float16's range."""
        state = {name: tensor.to(_TYPES[self.dtype]) for name, tensor in model.net.state_dict().items()}
        if not all(bool(tensor.isfinite().all()) for tensor in state.values()):
            raise UserError("a weight is beyond the range of float16: use dtype=float32")
        content = packed(state, model.config, model.codec, model.vocabulary, model.kind, model.images, model.origin)
        out.mkdir()
        write_synced(out / "model.safetensors", content)
        what = f"{len(state):,} tensors, {self.dtype}, {size(len(content))}"
        return Written((what,), {"tensors": len(state), "bytes": len(content), "dtype": self.dtype})


FORMAT = Tensors
