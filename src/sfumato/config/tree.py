"""Trees of frozen dataclasses to and from plain tables: JSON, TOML, and `key=value` from the command line.

The type annotations of the dataclasses define the keys and their types. This module reads them, for all three sources.
There are five kinds of node:

    int, float, bool, str      a scalar; an int serves as a float, a bool never as a number
    tuple[T, ...], tuple[T, U] a list, of any or of a fixed length
    T | None                   null in JSON; TOML has none, so the word "none" stands for it
    a dataclass                a table with exactly its fields as keys; missing ones take their defaults
    a choice                   a table whose `kind` names one of several dataclasses and whose other keys are its fields

The choices are an explicit registry, passed in (`{Schedule: {"linear": Linear, ...}}`). Nothing is looked up by an
import path, so no file can name code to run. Unknown keys and wrong types raise `UserError` with the dotted key.
"""

from __future__ import annotations

import math
import types
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields, is_dataclass
from typing import Any, Union, cast, get_args, get_origin, get_type_hints

from sfumato.errors import UserError, nearest

Choices = Mapping[Any, Mapping[str, type[Any]]]
"""Which dataclasses a field of an abstract type may hold, by the name that its table's `kind` gives."""

_EXPECTED = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


class Text(str):
    """A value from the command line: text that its field's type decides how to read."""

    __slots__ = ()


def _fields(cls: type[Any]) -> dict[str, Any]:
    """The resolved annotations of a dataclass's fields, by name."""
    hints = get_type_hints(cls)
    return {field.name: hints[field.name] for field in fields(cls) if field.init}


def plain(value: Any, choices: Choices, hint: Any = None) -> Any:
    """Return a tree of dataclasses as JSON-able values: the inverse of `convert`.

    `hint` is the annotation of the field that holds the value. Raises `UserError` where a field holds a dataclass that
    its register doesn't name.
    """
    hint = _inner(hint)
    if is_dataclass(value) and not isinstance(value, type):
        table = {name: plain(getattr(value, name), choices, inner) for name, inner in _fields(type(value)).items()}
        if hint not in choices:
            return table
        for name, cls in choices[hint].items():
            if cls is type(value):
                return {"kind": name, **table}
        names = ", ".join(choices[hint])
        raise UserError(f"a {type(value).__name__} can't be written to a configuration; use one of {names}")
    if isinstance(value, tuple):
        return [plain(item, choices) for item in value]
    return value


def convert(hint: Any, value: Any, choices: Choices, where: str = "") -> Any:
    """Build a value of an annotated type from plain values, every type checked.

    Args:
        hint: the annotation; at the top, the root dataclass.
        value: dicts, lists and scalars as JSON and TOML give them; `Text` where the command line gave it.
        choices: the register of choices.
        where: the dotted key of the value, for messages.

    Raises:
        UserError: an unknown key or kind (the nearest valid one is named), a wrong type, or a value that the dataclass
            refuses.
    """
    if hint in choices:
        return _chosen(choices[hint], value, choices, where)
    if is_dataclass(hint):
        return _table(cast(type[Any], hint), value, choices, where)
    if _inner(hint) is not hint:
        return None if value is None or value == "none" else convert(_inner(hint), value, choices, where)
    if get_origin(hint) is tuple:
        return _list(hint, value, choices, where)
    return _scalar(hint, value, where)


def _inner(hint: Any) -> Any:
    """T for an annotation T | None; any other annotation itself."""
    if get_origin(hint) not in (Union, types.UnionType):
        return hint
    (inner,) = (option for option in get_args(hint) if option is not type(None))
    return inner


def _mapping(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise UserError(f"{where} = {_shown(value)}: expected a table; set its keys one by one, as {where}.KEY=VALUE")
    return value


def _table(cls: type[Any], value: Any, choices: Choices, where: str) -> Any:
    """Build a dataclass from a table of its fields."""
    table, hints = _mapping(value, where), _fields(cls)
    prefix = f"{where}." if where else ""
    for key in table:
        if key not in hints:
            raise UserError(f"unknown key {prefix}{key}{nearest(f'{prefix}{key}', [prefix + hint for hint in hints])}")
    values = {key: convert(hints[key], item, choices, prefix + key) for key, item in table.items()}
    try:
        return cls(**values)
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"{prefix}{error}") from None


def _chosen(register: Mapping[str, type[Any]], value: Any, choices: Choices, where: str) -> Any:
    """Build the dataclass that a table's `kind` names."""
    if isinstance(value, str) and value in register:
        raise UserError(f"{where} = {_shown(value)}: a kind is chosen by {where}.kind={value}")
    table = dict(_mapping(value, where))
    kind = table.pop("kind", None)
    if kind is None:
        raise UserError(f"{where} has no kind; choose from: {', '.join(register)}")
    if not isinstance(kind, str) or kind not in register:
        raise UserError(f"unknown {where}.kind {_shown(kind)}{nearest(str(kind), register)}")
    return _table(register[kind], table, choices, where)


def _list(hint: Any, value: Any, choices: Choices, where: str) -> tuple[Any, ...]:
    """Build a tuple from a list, or from comma-separated text."""
    written = value
    if isinstance(value, Text):
        parts = value.strip("()[] ").rstrip(",").split(",")
        value = [Text(part.strip()) for part in parts if part.strip()]
    inner = get_args(hint)
    variable = len(inner) == 2 and inner[1] is Ellipsis
    if not isinstance(value, list | tuple) or not (variable or len(value) == len(inner)):
        count = "a list of values" if variable else f"{len(inner)} values"
        raise UserError(f"{where} = {_shown(written)}: expected {count}, such as {where}=8,16")
    kinds = [inner[0]] * len(value) if variable else list(inner)
    return tuple(convert(kind, item, choices, where) for kind, item in zip(kinds, value, strict=True))


def _scalar(hint: Any, value: Any, where: str) -> Any:
    """Check a scalar, or read it from the command line's text."""
    read = value
    if isinstance(value, Text) and hint is bool:
        read = {"true": True, "false": False}.get(value.lower())
    elif isinstance(value, Text):
        with suppress(ValueError):
            read = hint(str(value))
    if hint is float and type(read) is int:
        read = float(read)
    if type(read) is not hint or (hint is float and not math.isfinite(read)):
        raise UserError(f"{where} = {_shown(value)}: expected {_EXPECTED[hint]}")
    return read


def _shown(value: Any) -> str:
    """A value in a message: quoted text, short, on one line."""
    text = f'"{value}"' if isinstance(value, str) else str(value)
    text = " ".join(text.split())
    return text if len(text) <= 60 else text[:57] + "..."


def nest(overrides: Mapping[str, str]) -> dict[str, Any]:
    """Return dotted keys as nested tables, {"net.base": "64"} as {"net": {"base": Text("64")}}; raises `UserError`
    where one key is both a value and a table."""
    root: dict[str, Any] = {}
    for key, value in overrides.items():
        *path, last = key.split(".")
        table = root
        for part in path:
            table = table.setdefault(part, {})
            if not isinstance(table, dict):
                raise UserError(f"{key}: {part} is given as a value and as a table; keep one")
        if isinstance(table.get(last), dict):
            raise UserError(f"{key}: {last} is given as a value and as a table; keep one")
        table[last] = Text(value)
    return root


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with its values replaced by those of `over`, table by table.

    A table that changes its `kind` starts from that kind's own defaults: nothing of the base's table is kept.
    """
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        if isinstance(value, Mapping) and isinstance(below, Mapping) and value.get("kind") in (None, below.get("kind")):
            merged[key] = merge(below, value)
        else:
            merged[key] = value
    return merged


def flatten(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested tables as one with dotted keys, in order."""
    flat: dict[str, Any] = {}
    for key, value in table.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return flat


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return the differences of two nested tables as `key old -> new`, in order of the keys."""
    a, b = flatten(old), flatten(new)
    return [f"{key} {_toml(a.get(key))} -> {_toml(b.get(key))}" for key in sorted(a | b) if a.get(key) != b.get(key)]


def to_toml(table: Mapping[str, Any], prefix: str = "") -> str:
    """Write nested tables as TOML that `tomllib` reads back to equal values ("none" standing for None); raises
    `UserError` for text that is not valid Unicode, such as a file name of undecodable bytes."""
    scalars = [f"{key} = {_toml(value)}\n" for key, value in table.items() if not isinstance(value, Mapping)]
    head = f"[{prefix}]\n" if prefix and scalars else ""
    inner = {key: value for key, value in table.items() if isinstance(value, Mapping)}
    blocks = [to_toml(value, f"{prefix}.{key}" if prefix else key) for key, value in inner.items()]
    return "\n".join(([head + "".join(scalars)] if scalars else []) + blocks)


def _toml(value: Any) -> str:
    """One value in TOML's syntax. Python's repr of a float is the shortest that reads back exactly."""
    if value is None:
        return '"none"'
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return f"[{', '.join(_toml(item) for item in value)}]"
    return _quoted(value) if isinstance(value, str) else repr(value)


def _quoted(text: str) -> str:
    """A TOML basic string: quotes, backslashes and control characters escaped."""
    if any("\ud800" <= c <= "\udfff" for c in text):
        raise UserError(f"{text!a} is not valid Unicode and can't be written to a file; rename it")
    escaped = {c: f"\\u{ord(c):04x}" for c in text if ord(c) < 0x20 or ord(c) == 0x7F}
    return '"' + "".join({'"': '\\"', "\\": "\\\\", **escaped}.get(c, c) for c in text) + '"'
