"""Files of `torch.save` and pickled networks, read without running them.

Such a file is a pickle whose tensors refer to storages: members of a zip archive (torch 1.6 and later), or bytes after
the pickle (earlier). `plain_pickle` runs its program on a machine that imports and calls nothing; here the machine also
knows what stands for tensors. They come as `Stored`, which reads its bytes when it is asked, so of a checkpoint only
what is used is read: no moments of an optimiser.

Networks that were pickled whole (EDM's) are objects of classes that the file names. They become `Object`, a name with
the values that the file gives it; the classes' own source, which such files carry, is text like any other.

A file decides neither how long reading it takes nor how much memory: instructions are counted, members of an archive
must be stored as they are, and a tensor can't be larger than its storage.
"""

from __future__ import annotations

import io
import math
import struct
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from sfumato.data.formats.plain_pickle import Machine, Name, NotPlain, run_machine
from sfumato.data.sources.protocol import printable
from sfumato.errors import UserError

MOST_INSTRUCTIONS = 3_000_000
"""Of a pickle; each takes at most a few hundred bytes. A checkpoint of a large network has some 50,000."""
MOST_PICKLE = 2**26
"""The most bytes of a pickle whose tensors are elsewhere."""
MOST_BYTES = 2**34
"""The most bytes of a file."""
_LEGACY = 0x1950A86A20F9469CFC6C
"""The number that files of torch before 1.6 begin with."""
_REBUILD = ("torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_tensor", "torch._utils _rebuild_parameter")
_FROM_TYPE = "torch._tensor _rebuild_from_type_v2"
_FROM_BYTES = "torch.storage _load_from_bytes"
_DICTS = ("collections OrderedDict", "collections defaultdict", "builtins dict")
_VALUES = ("torch Size", "torch device", "builtins set", "builtins list", "builtins dict", "builtins int",
           "builtins float")  # fmt: skip
_SCALAR = ("numpy.core.multiarray scalar", "numpy._core.multiarray scalar")
_ARRAY = ("numpy.core.multiarray _reconstruct", "numpy._core.multiarray _reconstruct")
_NUMPY = (*_SCALAR, *_ARRAY, "numpy dtype", "numpy ndarray", "_codecs encode")
_TYPES = {
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
_DTYPES = frozenset(str(dtype).replace(".", " ") for dtype in _TYPES.values())
"""`torch float32` and so on, which checkpoints hold as values."""


@dataclass
class _Storage:
    """Numbers of one type, `count` of them; `bytes` reads them."""

    dtype: torch.dtype
    count: int
    bytes: Callable[[], bytes] | None = None

    def tensor(self) -> Tensor:
        assert self.bytes is not None
        content = self.bytes()
        if len(content) != self.count * self.dtype.itemsize:
            raise NotPlain("a storage of another size than its tensor says")
        return torch.frombuffer(bytearray(content), dtype=self.dtype) if content else torch.empty(0, dtype=self.dtype)


@dataclass(frozen=True)
class Stored:
    """A tensor in a file."""

    storage: _Storage = field(repr=False)
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    def __post_init__(self) -> None:
        numbers = (self.offset, *self.shape, *self.stride)
        if not all(type(n) is int and 0 <= n < 2**48 for n in numbers) or len(self.shape) != len(self.stride):
            raise NotPlain("a tensor of impossible shape")
        last = self.offset + sum((n - 1) * step for n, step in zip(self.shape, self.stride, strict=True))
        if 0 not in self.shape and (last >= self.storage.count or math.prod(self.shape) > self.storage.count):
            raise NotPlain("a tensor that is larger than its storage")

    def tensor(self) -> Tensor:
        """Read it; raises `NotPlain` where its bytes are not there."""
        return self.storage.tensor().as_strided(self.shape, self.stride, self.offset).contiguous()


class Object(dict[Any, Any]):
    """An object of a class that is not built.

    Attributes:
        name: `module class`.
        arguments: with which it would be made.
        state: of its attributes; None where it has none. As a dict it holds its items, where it is a kind of dict.
    """

    def __init__(self, name: str, arguments: tuple[Any, ...]) -> None:
        super().__init__()
        self.name, self.arguments, self.state = name, arguments, None


class _Kind(str):
    """numpy's name of a type of numbers, such as f8."""


class _TorchMachine(Machine):
    """The machine of torch's files: `storage` brings (type, key, count) to a storage; a class whose name begins as one
    of `objects` becomes an `Object`, and any other unknown name is an error."""

    def __init__(self, storage: Callable[[Any, Any, Any], _Storage], objects: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.storage, self.objects, self.count = storage, objects, 0

    def step(self, name: str, argument: Any) -> None:
        """Do one instruction."""
        self.count += 1
        if self.count > MOST_INSTRUCTIONS:
            raise NotPlain(f"more than {MOST_INSTRUCTIONS:,} instructions")
        if name == "NEWOBJ":
            arguments = self.stack.pop()
            self.stack.append(self.called(self.stack.pop(), arguments))
        elif name == "EMPTY_SET":
            self.stack.append([])
        elif name == "ADDITEMS":
            super().step("APPENDS", argument)
        else:
            super().step(name, argument)

    def name(self, name: str) -> Name:
        """Return a name, if it is one of those that are known."""
        name = name.replace("__builtin__ ", "builtins ")  # of Python 2, and protocol 2
        known = (*_REBUILD, *_DICTS, *_VALUES, *_NUMPY, _FROM_TYPE, _FROM_BYTES)
        storage = name.startswith(("torch ", "torch.storage ")) and name.split()[1] in (*_TYPES, "UntypedStorage")
        if name in known or storage or name in _DTYPES or name.startswith(self.objects or ("\0",)):
            return Name(name)
        raise NotPlain(f"it names {printable(name)[:60].replace(' ', '.')}")

    def called(self, name: Name, arguments: tuple[Any, ...]) -> Any:
        """Return what stands for the result of a call, which isn't made."""
        if name in _REBUILD[:2]:
            storage, offset, shape, stride = arguments[:4]
            if not isinstance(storage, _Storage):
                raise NotPlain("a tensor without a storage")
            return Stored(storage, offset, tuple(shape), tuple(stride))
        if name == _REBUILD[2]:
            return arguments[0]
        if name == _FROM_TYPE:
            return self.called(arguments[0], arguments[2])
        if name == _FROM_BYTES:
            return _legacy(io.BytesIO(arguments[0]))
        if name in _DICTS:
            return dict(arguments[0]) if arguments and isinstance(arguments[0], list | dict) else {}
        if name == "numpy dtype":
            return _Kind(arguments[0] if isinstance(arguments[0], str) else arguments[0].decode("ascii"))
        if name in _SCALAR:
            return _numpy(arguments[0], arguments[1]).item()
        if name == "_codecs encode":
            return super().called(name, arguments)
        return Object(name, arguments)

    def built(self, item: Any, state: Any) -> Any:
        """Return an item with its state; that of a dict (`_metadata` of weights) and of a type is left out."""
        if isinstance(item, Object) and item.name in _ARRAY and isinstance(state, tuple) and len(state) == 5:
            _, shape, kind, fortran, data = state
            flat = _numpy(kind, data)
            if math.prod(shape) != flat.size or len(shape) > 8:
                raise NotPlain("an array whose shape isn't its length")
            return flat.reshape(shape, order="F" if fortran else "C")
        if isinstance(item, Object):
            item.state = state
        return item

    def persistent(self, identity: Any) -> Any:
        """Return the storage that a tensor refers to."""
        if not (isinstance(identity, tuple) and len(identity) >= 5 and identity[0] == "storage"):
            raise NotPlain("a reference to something that is not a tensor")
        return self.storage(identity[1], identity[2], identity[4])


def _numpy(kind: Any, data: Any) -> np.ndarray[Any, Any]:
    """Bytes as numbers of one of numpy's plain types."""
    if not isinstance(kind, _Kind) or kind.lstrip("<|=") not in ("f8", "f4", "i8", "i4", "u1", "b1", "i1", "u4", "u8"):
        raise NotPlain(f"numbers of the type {printable(str(kind))[:20]}")
    return np.frombuffer(data, np.dtype("<" + kind.lstrip("<|=")))


def _dtype(kind: Any) -> torch.dtype:
    name = str(kind).rpartition(" ")[2]
    if name not in _TYPES:
        raise NotPlain(f"tensors of {printable(name)[:40]}")
    return _TYPES[name]


def read_torch(path: Path, objects: tuple[str, ...] = ()) -> Any:
    """Return what a file of `torch.save`, or a pickle with tensors, holds: plain values, with `Stored` for tensors.

    Args:
        path: the file.
        objects: beginnings of the names of classes (`module.`) that become `Object`; any other name is refused.

    Raises:
        UserError: it can't be read, is damaged, holds anything else, or is too large.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise NotPlain(f"more than {MOST_BYTES:,} bytes")
        with path.open("rb") as file:
            zipped = file.read(2) == b"PK"
            file.seek(0)
            return _zip(path, objects) if zipped else _pickle(file, objects)
    except _DAMAGE as error:
        reason = printable(getattr(error, "strerror", None) or str(error) or type(error).__name__)[:120]
        raise UserError(f"'{printable(str(path))}' is not a file that can be read safely ({reason})") from None


def _zip(path: Path, objects: tuple[str, ...]) -> Any:
    """The content of a zip archive of torch: NAME/data.pkl, NAME/data/KEY."""
    with zipfile.ZipFile(path) as archive:
        members = {member.filename: member for member in archive.infolist()}
        sizes = [member.file_size for member in members.values()]
        if sum(sizes) > path.stat().st_size or any(m.compress_type != zipfile.ZIP_STORED for m in members.values()):
            raise NotPlain("a compressed archive, which torch does not write")
        pickles = [name for name in members if name.endswith("/data.pkl") or name == "data.pkl"]
        if len(pickles) != 1 or members[pickles[0]].file_size > MOST_PICKLE:
            raise NotPlain("a zip archive that torch.save did not write")
        root = pickles[0].removesuffix("data.pkl")
        if root + "byteorder" in members and archive.read(root + "byteorder").strip() != b"little":
            raise NotPlain("numbers in big-endian order")
        program = archive.read(pickles[0])
    found: dict[Any, _Storage] = {}

    def storage(kind: Any, key: Any, count: Any) -> _Storage:
        name = f"{root}data/{key}"
        if name not in members or type(count) is not int:
            raise NotPlain("a tensor whose bytes are not there")
        if key not in found:
            if members[name].file_size != count * _dtype(kind).itemsize:
                raise NotPlain("a storage of another size than its tensor says")
            found[key] = _Storage(_dtype(kind), count, lambda: _member(path, name))
        return found[key]

    return run_machine(_TorchMachine(storage, objects), io.BytesIO(program))


_DAMAGE = (MemoryError, OSError, ValueError, RuntimeError, EOFError, KeyError, struct.error, zipfile.BadZipFile)
"""What a damaged archive raises; `NotPlain` is a ValueError."""


def _member(path: Path, name: str) -> bytes:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.read(name)
    except _DAMAGE as error:
        raise NotPlain(f"a damaged archive ({printable(str(error))[:60]})") from None


def _pickle(file: IO[bytes], objects: tuple[str, ...]) -> Any:
    """The content of a pickle, or of torch's format before 1.6, which begins with one of a number."""
    start = file.tell()
    first = run_machine(_TorchMachine(_nowhere, objects), file)
    if first != _LEGACY:
        return first
    file.seek(start)
    return _legacy(file, objects)


def _nowhere(kind: Any, key: Any, count: Any) -> _Storage:
    raise NotPlain("a tensor whose bytes are not there")


def _legacy(file: IO[bytes], objects: tuple[str, ...] = ()) -> Any:
    """Read the format before torch 1.6: three pickles about the format, the content, the keys of its storages, and
    each storage's bytes behind their number."""
    found: dict[Any, _Storage] = {}

    def storage(kind: Any, key: Any, count: Any) -> _Storage:
        if type(count) is not int or not 0 <= count <= MOST_BYTES:
            raise NotPlain("a storage of impossible size")
        return found.setdefault(key, _Storage(_dtype(kind), count))

    heads = [run_machine(_TorchMachine(_nowhere), file) for _ in range(3)]
    if heads[:2] != [_LEGACY, 1001] or not isinstance(heads[2], dict) or not heads[2].get("little_endian", True):
        raise NotPlain("not of the format of torch before 1.6, or big-endian")
    content = run_machine(_TorchMachine(storage, objects), file)
    keys = run_machine(_TorchMachine(_nowhere), file)
    for key in keys if isinstance(keys, list) else []:
        if key not in found:
            raise NotPlain("a storage that nothing refers to")
        one = found[key]
        count = int.from_bytes(file.read(8), "little")
        data = file.read(one.count * one.dtype.itemsize)
        if count != one.count or len(data) != one.count * one.dtype.itemsize:
            raise NotPlain("a storage of another size than its tensor says")
        one.bytes = lambda data=data: data  # type: ignore[misc]
    if any(one.bytes is None for one in found.values()):
        raise NotPlain("a tensor whose bytes are not there")
    return content


def tensors_in(table: Any) -> dict[str, Tensor]:
    """Return the tensors of a table of names and `Stored`, read; raises `NotPlain` where it holds anything else."""
    if not isinstance(table, Mapping) or not all(type(key) is str for key in table):
        raise NotPlain("no table of named tensors")
    if not all(isinstance(value, Stored) for value in table.values()):
        raise NotPlain("more than named tensors")
    return {name: stored.tensor() for name, stored in table.items()}
