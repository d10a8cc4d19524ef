"""Read a pickle of plain data without running it: containers, text, numbers and arrays of bytes only.

A pickle is a program for a stack machine, and one instruction of it, REDUCE, calls whatever the file names. The
published archives of CIFAR come as pickles, so this machine implements the harmless instructions and three names:

    numpy's `_reconstruct` and `dtype`      an array is made from the bytes that BUILD brings
    `_codecs.encode(text, 'latin1')`        bytes, as Python 3 writes them in protocol 2

The names are compared, never looked up: nothing is imported and nothing is called. Every other name, instruction or
type is an error. Python's own `pickletools.genops` splits the file into instructions; it doesn't run any.

Even so `read_guarded` does it in a process of its own, with limits on time and memory, and gets plain arrays back.
"""

from __future__ import annotations

import io
import json
import math
import pickletools
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from sfumato.data.sources.protocol import File, Unreadable, printable
from sfumato.data.workers import run
from sfumato.errors import UserError

READER = "sfumato.data.formats.plain_pickle:reader"

MAX_BYTES = 2**29
"""The most bytes of a file; CIFAR-100's largest has 155 million."""
SECONDS = 60
"""Limit of processor time in seconds."""
MEMORY = 2**32
"""Limit of address space in bytes."""

_ARRAY = ("numpy.core.multiarray _reconstruct", "numpy._core.multiarray _reconstruct")
_DTYPE, _NDARRAY, _ENCODE = "numpy dtype", "numpy ndarray", "_codecs encode"
_NAMES = (*_ARRAY, _DTYPE, _NDARRAY, _ENCODE)
_NUMBERS = frozenset(("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "FLOAT", "BINFLOAT"))
_STRINGS = frozenset(("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"))
_BYTES = frozenset(("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"))
_VALUES = _NUMBERS | _STRINGS | _BYTES
_TEXTS = frozenset(("STRING", "BINSTRING", "SHORT_BINSTRING"))  # bytes of Python 2
_FIXED: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
}


class NotPlain(ValueError):
    """A pickle that holds more than plain data, or is damaged."""


class _Mark:
    """Where a group on the stack begins."""


class Name(str):
    """A name in the file, `module name`; it is not resolved."""


class _Type:
    """An array's type; only bytes are supported."""


class _Array:
    """An array that waits for its bytes."""

    value: NDArray[Any] | None = None


class Machine:
    """The stack, the memo, and what names and calls stand for: a subclass may know others (`torch_file`)."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def name(self, name: str) -> Name:
        """Return a name, if it is one of those that are known."""
        return _name(name)

    def called(self, name: Name, arguments: tuple[Any, ...]) -> Any:
        """Return what stands for the result of a call, which isn't made."""
        return _called(name, arguments)

    def built(self, item: Any, state: Any) -> Any:
        """Return an item with the state that BUILD gives it."""
        return _built(item, _expect(state, tuple))

    def persistent(self, identity: Any) -> Any:
        """Return what stands for something outside the pickle."""
        raise NotPlain("the instruction BINPERSID")

    def group(self) -> list[Any]:
        """Take what lies above the last mark, and the mark."""
        items = []
        while (item := self.stack.pop()) is not _Mark:
            items.append(item)
        return items[::-1]

    def step(self, name: str, argument: Any) -> None:
        """Do one instruction."""
        stack = self.stack
        if name in _VALUES:
            stack.append(argument)
        elif name in _TEXTS:
            stack.append(argument.encode("latin-1"))
        elif name in _FIXED:
            stack.append(_FIXED[name]())
        elif name == "MARK":
            stack.append(_Mark)
        elif name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            self.memo[len(self.memo) if name == "MEMOIZE" else argument] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(self.memo[argument])
        elif name in ("TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"):
            count = int(name[5:] or 0)
            items = [stack.pop() for _ in range(count)][::-1] if count else self.group()
            stack.append(tuple(items))
        elif name in ("LIST", "APPENDS", "APPEND"):
            items = [stack.pop()] if name == "APPEND" else self.group()
            if name == "LIST":
                stack.append([])
            _expect(stack[-1], list).extend(items)
        elif name in ("DICT", "SETITEMS", "SETITEM"):
            items = [stack.pop(), stack.pop()][::-1] if name == "SETITEM" else self.group()
            if name == "DICT":
                stack.append({})
            for key, value in zip(items[::2], items[1::2], strict=True):
                _expect(stack[-1], dict)[_key(key)] = value
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            stack.append(self.name(argument if name == "GLOBAL" else " ".join([stack.pop(), stack.pop()][::-1])))
        elif name == "REDUCE":
            arguments = _expect(stack.pop(), tuple)
            stack.append(self.called(_expect(stack.pop(), Name), arguments))
        elif name == "BUILD":
            state = stack.pop()
            stack.append(self.built(stack.pop(), state))
        elif name == "BINPERSID":
            stack.append(self.persistent(stack.pop()))
        elif name not in ("PROTO", "FRAME", "STOP"):
            raise NotPlain(f"the instruction {name}")


def read_plain(data: bytes) -> Any:
    """Return what a pickle of plain data holds: dicts, lists, tuples, bytes, text, numbers, arrays of bytes.

    Args:
        data: the pickle.

    Raises:
        NotPlain: it holds anything else, or is damaged.
        MemoryError: it needs too much memory.
    """
    return run_machine(Machine(), io.BytesIO(data))


def run_machine(machine: Machine, stream: IO[bytes]) -> Any:
    """Run a pickle's program on a machine and return what it leaves; the stream stays behind its end. Errors as
    `read_plain`."""
    try:
        for code, argument, _ in pickletools.genops(stream):
            machine.step(code.name, argument)
        return machine.stack.pop()
    except (NotPlain, MemoryError):
        raise
    except Exception as error:  # a damaged program can raise anything
        raise NotPlain(f"damaged ({printable(str(error))[:60] or type(error).__name__})") from None


def read_guarded(paths: Sequence[Path]) -> list[dict[str, NDArray[Any]]]:
    """Return the entries of pickled dicts that are arrays or lists of integers or text, read by another process.

    Returns:
        Of each file uint8 arrays as they are, lists of integers as int64, lists of text as text; anything else is left
        out.

    Raises:
        UserError: it can't be read, isn't plain, is too large, or takes too much time or memory.
    """
    entries = []
    for path in paths:
        if path.stat().st_size > MAX_BYTES:
            raise UserError(
                f"'{printable(str(path))}' is too large for a batch of CIFAR: more than {MAX_BYTES:,} bytes"
            )
    setup = json.dumps([MEMORY, SECONDS]).encode()
    for path, answer in zip(paths, run(READER, setup, paths, 1, patience=4 * SECONDS, batch=1, tries=1), strict=True):
        if isinstance(answer, str):
            raise UserError(
                f"'{printable(str(path))}' can't be read: {answer} (a batch of CIFAR holds only arrays and names, and "
                f"needs less than {SECONDS} s and {MEMORY:,} bytes of memory)"
            )
        with np.load(io.BytesIO(answer), allow_pickle=False) as arrays:
            entries.append({name: arrays[name] for name in arrays.files})
    return entries


def reader(setup: bytes) -> Callable[[File], bytes]:
    """Return the worker's function: write a file's entries as an .npz, within limits on time and memory."""
    memory, seconds = json.loads(setup)
    with suppress(ImportError):  # Windows: only the parent's time limit applies
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    return _as_npz


def _as_npz(file: File) -> bytes:
    """The entries of a pickled dict; raises `Unreadable`."""
    content = io.BytesIO()
    try:
        with file.open("rb") as stream:
            np.savez(content, **_entries(_expect(read_plain(stream.read()), dict)))
    except (NotPlain, OSError) as error:
        raise Unreadable(printable(str(error))[:200]) from None
    return content.getvalue()


def _entries(table: dict[Any, Any]) -> dict[str, Any]:
    """The entries of a table that are arrays or lists of integers or text."""
    entries: dict[str, Any] = {}
    for key, value in table.items():
        name = key.decode("latin-1") if isinstance(key, bytes) else str(key)
        if isinstance(value, _Array) and value.value is not None:
            entries[name] = value.value
        elif isinstance(value, list) and value and all(type(item) is int for item in value):
            entries[name] = np.array(value, np.int64)
        elif isinstance(value, list) and value and all(isinstance(item, bytes | str) for item in value):
            entries[name] = np.array([x.decode("latin-1") if isinstance(x, bytes) else x for x in value])
    return {name: value for name, value in entries.items() if name.isidentifier()}


def _expect(item: Any, kind: type) -> Any:
    """The item, if it is of a kind."""
    if not isinstance(item, kind):
        raise NotPlain(f"a {type(item).__name__} where a {kind.__name__} is expected")
    return item


def _key(item: Any) -> Hashable:
    """The item, if it can be a key here."""
    if type(item) not in (bytes, str, int):
        raise NotPlain("a key that is neither text nor a number")
    return item  # type: ignore[no-any-return]


def _name(name: str) -> Name:
    """A name, if it is one of those that are known."""
    if name not in _NAMES:
        raise NotPlain(f"it names {printable(name)[:60].replace(' ', '.')}")
    return Name(name)


def _called(name: Name, arguments: tuple[Any, ...]) -> Any:
    """The placeholder for the result of a call, which isn't made."""
    if name in _ARRAY and len(arguments) == 3 and arguments[0] == _NDARRAY:
        return _Array()
    if name == _DTYPE and arguments:
        code = arguments[0].decode("ascii") if isinstance(arguments[0], bytes) else arguments[0]
        if code == "u1":
            return _Type()
        raise NotPlain(f"an array of {printable(str(code))[:20]}")
    if name == _ENCODE and len(arguments) == 2 and arguments[1] in ("latin1", b"latin1"):
        return _expect(arguments[0], str).encode("latin-1")
    raise NotPlain(f"it calls {name.replace(' ', '.')}")


def _built(item: Any, state: tuple[Any, ...]) -> Any:
    """An array with its bytes; a type as it is, since bytes have no order."""
    if isinstance(item, _Type):
        return item
    _, shape, kind, fortran, data = state
    _expect(kind, _Type)
    if math.prod(_expect(shape, tuple)) != len(_expect(data, bytes)) or len(shape) > 4:
        raise NotPlain("an array whose shape isn't its length")
    _expect(item, _Array).value = np.frombuffer(data, np.uint8).reshape(shape, order="F" if fortran else "C")
    return item
