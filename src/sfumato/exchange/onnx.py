"""A model as one ONNX file that describes itself, checked with onnxruntime before it is written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnx  # noqa: F401  needed by torch's exporter; where one is missing, the message names it
import onnxruntime  # noqa: F401
import onnxscript  # noqa: F401

from sfumato.errors import UserError, command, nearest
from sfumato.exchange.export import facts
from sfumato.exchange.formats import Written
from sfumato.exchange.graph import OPSET, checked, graph, rounded
from sfumato.files import write_synced
from sfumato.model import Model
from sfumato.report.text import size
from sfumato.session import pack

_TYPES = ("float32", "float16")


@dataclass(frozen=True)
class Onnx:
    """The file; `session` says what is in it.

    Attributes:
        dtype: in which the weights are stored, `float32` or `float16`; the arithmetic is float32 in both.
    """

    dtype: str = "float32"

    def __post_init__(self) -> None:
        if self.dtype not in _TYPES:
            raise UserError(f"dtype is '{self.dtype}'{nearest(self.dtype, _TYPES)}")

    def write(self, model: Model, out: Path) -> Written:
        """Write the file; raises `UserError` where the graph can't be made, or gives other numbers than the network."""
        half = self.dtype == "float16"
        model = rounded(model) if half else model
        described, cost = facts(model, "onnx"), model.net.cost(*model.shape[1:])
        header = model.header() | {key: described[key] for key in ("predicts", "abar")}
        content = pack(graph(model, compact=half), header, cost)
        off = checked(model, content)
        write_synced(out, content)
        inside = "x".join(map(str, model.shape))
        lines = (
            f"opset {OPSET}, {self.dtype} weights, {size(len(content))}; images of {inside}, any number at once",
            f"onnxruntime's output is the network's to {off:.1e}",
            command("sample", out),
        )
        return Written(lines, {"dtype": self.dtype, "opset": OPSET, "bytes": len(content), "difference": off})


FORMAT = Onnx
