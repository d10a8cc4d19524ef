"""ONNX files that describe themselves, and a network that runs one with onnxruntime.

The graph takes x (B, C, H, W), the time (B,) in steps of the chain, and, where the model has attributes, the condition
(B, A) with NaN for "not given"; it gives the network's output. B is any number, H and W are those of the model. The
metadata's entry "sfumato" is the header of a weights file (`weights`): configuration, shape, depth, vocabulary, kind,
images. Besides it has the cost of an image, the graph's length in bytes, and a SHA-256 of all.

Protocol buffers that follow one another are read as one message (protobuf's encoding, "Last One Wins"), so the file is
the graph's bytes followed by those of the metadata. The checksum is over the graph's bytes as they are in the file, and
is checked before onnxruntime reads them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sfumato.conditions.protocol import Vocabulary
from sfumato.conditions.table import Attributes
from sfumato.conditions.vocabulary import AttributeVocabulary
from sfumato.diffusion.condition import Condition
from sfumato.errors import UserError
from sfumato.files import read_regular
from sfumato.nets import Interface, Network
from sfumato.nets.cost import Cost
from sfumato.weights import ENTRY, VERSION, Facts, facts_of, unusable

SUFFIX = ".onnx"
INPUTS, OUTPUT = ("x", "time", "condition"), "output"
MOST_BYTES = 2**31 - 1
"""The largest message that protobuf reads."""
_METADATA = 14
"""The field metadata_props of an ONNX ModelProto: pairs of field 1, the key, and field 2, the value."""


def pack(graph: bytes, facts: Mapping[str, Any], cost: Cost) -> bytes:
    """Return the content of an ONNX file that describes itself.

    Args:
        graph: a serialised ModelProto without metadata.
        facts: as of `weights.pack`.
        cost: of an image.
    """
    entry = {"version": VERSION, **facts, "cost": vars(cost), "graph": len(graph)}
    text = json.dumps(entry | {"sha256": _digest(graph, entry)}).encode()
    pair = _field(1, ENTRY.encode()) + _field(2, text)
    return graph + _field(_METADATA, pair)


def read(file: Path) -> tuple[Facts, bytes, str]:
    """Return an ONNX file's facts, its content, and the SHA-256 of the file; raises `UserError` for no ONNX file of
    this library's, a truncated or altered one, or one of a later version."""
    try:
        content = read_regular(file, MOST_BYTES)
    except OSError as error:
        raise UserError(f"{file} can't be read: {error.strerror}") from None
    facts = facts_of(_entry(content), file)
    length = facts.get("graph")
    whole = type(length) is int and 0 < length < len(content)
    if not whole or facts.get("sha256") != _digest(content[:length], facts) or not _ends(content, facts["graph"]):
        raise UserError(f"{file} is damaged: its checksum is not that of its content; export it again")
    return facts, content, hashlib.sha256(content).hexdigest()


class SessionNetwork(Network):
    """A network that is an ONNX file; it runs on the CPU and has no gradients.

    Args:
        content: of the file.
        facts: of its header.
        interface: channels and vocabulary.
        shape: (C, H, W) of x_0.

    Raises:
        UserError: onnxruntime is not installed or can't run the graph, or the graph has other inputs than the facts
            tell of.
    """

    def __init__(
        self, content: bytes, facts: Facts, interface: Interface, shape: tuple[int, int, int], file: Path
    ) -> None:
        super().__init__()
        self.interface, self.shape, self.file = interface, shape, file
        try:
            self.counted = Cost(*(int(facts["cost"][name]) for name in Cost.__dataclass_fields__))
        except (KeyError, TypeError, ValueError) as error:
            raise unusable(file, error) from None
        self.session = open_session(content, file)
        self.num_attributes = num_attributes(interface.vocabulary)
        inputs = [(each.name, list(each.shape)[1:]) for each in self.session.get_inputs()]
        expected = [("x", list(shape)), ("time", []), ("condition", [self.num_attributes])]
        if inputs != expected[: 3 if self.num_attributes else 2]:
            raise UserError(f"{file}: its inputs are not those of the model in its header: export it again")
        self.nothing = nn.Parameter(torch.empty(0), requires_grad=False)  # says where the network is: on the CPU

    def forward(
        self, x: Tensor, time: Tensor, condition: Condition | None = None, augment: Tensor | None = None
    ) -> Tensor:
        """Predict; raises `UserError` for another size, or where a gradient is asked for."""
        if x.requires_grad and torch.is_grad_enabled():
            raise UserError(f"{self.file} has no gradients, which this needs: give the run or its weights file")
        if tuple(x.shape[1:]) != self.shape:
            size, own = ("x".join(map(str, each)) for each in (x.shape[1:], self.shape))
            raise UserError(f"{self.file} takes images of {own}, not {size}: give the run or its weights file")
        values = [x, time.to(x)]
        if self.num_attributes:
            table = condition.table if isinstance(condition, Attributes) else None
            values.append(torch.full((len(x), self.num_attributes), torch.nan) if table is None else table)
        elif condition is not None:
            raise UserError("the network was trained without labels: leave the label out")
        return run(self.session, values).to(x)

    def cost(self, height: int, width: int) -> Cost:
        """Return what was counted when the file was written."""
        return self.counted

    def summary(self) -> str:
        """Return where it runs."""
        return f"an ONNX graph of {'x'.join(map(str, self.shape))}, run by onnxruntime"


def num_attributes(vocabulary: Vocabulary | None) -> int:
    """Return the columns of the graph's input `condition`, 0 without it; raises `UserError` for other conditions."""
    if vocabulary is not None and not isinstance(vocabulary, AttributeVocabulary):
        raise UserError(
            "an ONNX graph takes attributes as its condition, and this model has conditions of another kind"
        )
    return 0 if vocabulary is None else len(vocabulary.attributes)


def run(session: Any, values: Sequence[Tensor]) -> Tensor:
    """Return a session's output, float32, for x, the time, and the condition where there is one."""
    arrays = [np.ascontiguousarray(value.detach().float().cpu().numpy()) for value in values]
    (output,) = session.run([OUTPUT], dict(zip(INPUTS, arrays, strict=False)))
    return torch.from_numpy(output)


def open_session(content: bytes, file: Path) -> Any:
    """Return an inference session on the CPU with as many threads as torch has; raises `UserError` where onnxruntime is
    not installed, or can't run the graph."""
    try:
        import onnxruntime
    except ImportError:
        raise UserError(f"{file} needs the package onnxruntime: pip install 'sfumato[onnx]'") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = torch.get_num_threads(), 3
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has no base class of its errors
        raise UserError(f"{file}: onnxruntime can't run it ({' '.join(str(error).split())[:200]})") from None


def _digest(graph: bytes, facts: Mapping[str, Any]) -> str:
    """SHA-256 of the facts and the graph."""
    described = {name: value for name, value in facts.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode() + graph).hexdigest()


def _varint(number: int) -> bytes:
    parts = bytearray()
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    return bytes([*parts, number])


def _field(number: int, value: bytes) -> bytes:
    """A field of protobuf whose value is bytes."""
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _fields(message: bytes) -> dict[int, tuple[int, bytes]]:
    """The last field of bytes of each number, and where it begins; raises ValueError for what is not protobuf."""
    found, at = {}, 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while shift < 64:
            if at >= len(message):
                raise ValueError("cut short")
            byte = message[at]
            value, at, shift = value | (byte & 127) << shift, at + 1, shift + 7
            if byte < 128:
                return value
        raise ValueError("a number is too long")

    while at < len(message):
        begin, tag = at, varint()
        if tag & 7 == 0:
            varint()
            continue
        length = {1: 8, 5: 4}.get(tag & 7) or (varint() if tag & 7 == 2 else -1)
        if not 0 <= length <= len(message) - at:
            raise ValueError("not a message")
        if tag & 7 == 2:
            found[tag >> 3] = (begin, message[at : at + length])
        at += length
    return found


def _entry(content: bytes) -> str | None:
    """The metadata's entry; None where the content is no ONNX file, or has none."""
    try:
        _, pair = _fields(content)[_METADATA]
        fields = _fields(pair)
        return fields[2][1].decode() if fields[1][1] == ENTRY.encode() else None
    except (KeyError, ValueError):
        return None


def _ends(content: bytes, length: int) -> bool:
    """Whether the metadata follows the graph at once, and nothing follows them: all bytes are checked."""
    begin, pair = _fields(content)[_METADATA]
    return begin == length and len(content) == length + len(_field(_METADATA, pair))
