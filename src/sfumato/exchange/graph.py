"""A model's network as an ONNX graph: exported by torch (its dynamo exporter), then run and compared.

The graph takes and gives what `session` says. In a compact graph every constant whose values are all numbers of float16
is stored as such, and converted back inside the graph: all arithmetic is float32, and nothing is lost. A runtime does
the conversion once, when it loads the graph. `rounded` makes such numbers of the weights of a model.
"""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sfumato.conditions.table import Attributes
from sfumato.errors import UserError
from sfumato.model import Model
from sfumato.session import INPUTS, MOST_BYTES, OUTPUT, num_attributes, open_session, run

OPSET = 18
TOLERANCE = 1e-4
"""The most by which the graph's output may differ from the network's, as a fraction of its largest value or of 1."""
_SMALL = 64
"""Constants with fewer values stay in float32."""


class _Tensors(nn.Module):
    """A network with tensors in the place of conditions."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, time: Tensor, condition: Tensor | None = None) -> Tensor:
        out: Tensor = self.net(x, time, None if condition is None else Attributes(condition))
        return out


def example(model: Model, num: int, seed: int = 0) -> tuple[Tensor, ...]:
    """Return inputs of the graph: noise, times from end to end of the chain, and every other attribute given."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(num, *model.shape, generator=generator)
    time = torch.rand(num, generator=generator) * (model.schedule.num_steps - 1)
    if not num_attributes(model.vocabulary):
        return x, time
    every = torch.tensor([attribute.every[-1] for attribute in model.attributes])
    given = torch.rand(num, len(every), generator=generator) < 0.5
    return x, time, every.where(given, torch.nan)


def graph(model: Model, compact: bool = False) -> bytes:
    """Return the network as a serialised ModelProto, for any batch of images of the model's size; `compact` stores
    constants in float16 where that changes none of their values. Raises `UserError` for conditions that are no
    attributes, and for a network that torch can't export or protobuf not hold."""
    inputs = example(model, 3)
    batch = torch.export.Dim("batch", min=1)
    with _quiet(), torch.no_grad():
        try:
            program = torch.export.export(
                _Tensors(model.net).eval(), inputs, dynamic_shapes=tuple({0: batch} for _ in inputs)
            )
            exported = torch.onnx.export(
                program, dynamo=True, opset_version=OPSET, verbose=False, input_names=INPUTS[: len(inputs)],
                output_names=[OUTPUT],
            )  # fmt: skip
        except Exception as error:  # torch has no base class of its errors
            reason = " ".join(str(error).split())[:300]
            raise UserError(f"torch can't export this network to ONNX ({reason})") from None
    assert exported is not None
    proto = exported.model_proto
    _strip(proto)
    if compact:
        _compact(proto)
    if proto.ByteSize() > MOST_BYTES - 2**24:
        raise UserError("an ONNX file holds two gigabytes at most, and this network needs more")
    content: bytes = proto.SerializeToString(deterministic=True)
    return content


def difference(model: Model, content: bytes) -> float:
    """Return the largest difference between the graph's output and the network's over batches of 1, 2 and 5, as a
    fraction of the largest output, or of 1 where that is smaller."""
    net, session, worst = _Tensors(model.net), open_session(content, Path("the exported graph")), 0.0
    for num in (1, 2, 5):
        inputs = example(model, num, seed=num)
        with torch.no_grad():
            expected = net(*inputs)
        output = run(session, inputs)
        worst = max(worst, float((output - expected).abs().max() / expected.abs().max().clamp(min=1.0)))
    return worst


def checked(model: Model, content: bytes) -> float:
    """Return the `difference`; raises `UserError` where it is above `TOLERANCE`."""
    off = difference(model, content)
    if not off <= TOLERANCE:
        raise UserError(f"onnxruntime gives other numbers than the network, by {off:.1e}: nothing is written")
    return off


def rounded(model: Model) -> Model:
    """Return the model with its weights rounded to float16; raises `UserError` where one is beyond its range."""
    net = copy.deepcopy(model.net)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(parameter.half())
            if not bool(parameter.isfinite().all()):
                raise UserError("a weight is beyond the range of float16: leave dtype=float16 out")
    return replace(model, net=net)


def _strip(proto: Any) -> None:
    """Remove what the exporter tells of this machine, such as the paths of its source files."""
    for part in (proto, proto.graph, *proto.graph.node, *proto.graph.initializer, *proto.graph.value_info):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    proto.graph.ClearField("value_info")


def _compact(proto: Any) -> None:
    """Store the large float32 constants of a graph that are numbers of float16 as such, and convert them back."""
    import onnx

    casts = []
    for tensor in proto.graph.initializer:
        if tensor.data_type != onnx.TensorProto.FLOAT or np.prod(tensor.dims) < _SMALL:
            continue
        values = onnx.numpy_helper.to_array(tensor)
        with np.errstate(over="ignore"):
            halves = values.astype(np.float16)
        if not np.array_equal(halves.astype(np.float32), values):
            continue
        name, stored = tensor.name, f"{tensor.name}.half"
        tensor.CopyFrom(onnx.numpy_helper.from_array(halves, stored))
        casts.append(onnx.helper.make_node("Cast", [stored], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *proto.graph.node]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's progress and advice to itself."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
