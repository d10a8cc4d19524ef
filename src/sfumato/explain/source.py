"""The source of the package's own functions, as the page and the documents show it."""

from __future__ import annotations

import inspect
import io
import keyword
import textwrap
import tokenize
from html import escape
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

_ROOT = Path(__file__).parents[1]


def found(name: str) -> Any:
    """Return what a dotted name below `sfumato` means, such as `diffusion.process.marginal`."""
    parts = name.split(".")
    value: Any = import_module("sfumato")
    for k, part in enumerate(parts):
        if isinstance(value, ModuleType) and not hasattr(value, part):
            value = import_module(".".join(["sfumato", *parts[: k + 1]]))
        else:
            value = getattr(value, part)
    return value


def source(name: str) -> tuple[str, str]:
    """Return the source of a function, a method or a class, and where it stands: `diffusion/process.py, line 60`."""
    value = inspect.unwrap(found(name))
    lines, first = inspect.getsourcelines(value)
    file = Path(inspect.getsourcefile(value) or "").relative_to(_ROOT)
    return textwrap.dedent("".join(lines)).rstrip(), f"sfumato/{file.as_posix()}, line {first}"


def body(name: str) -> str:
    """Return the source of a function without its docstring."""
    text, _ = source(name)
    lines, quotes = text.split("\n"), '"""'
    first = next((n for n, line in enumerate(lines) if line.strip().lstrip("r").startswith(quotes)), None)
    if first is None:
        return text
    rest = lines[first].strip().lstrip("r")[3:]
    last = first if rest.endswith(quotes) else next(n for n in range(first + 1, len(lines)) if quotes in lines[n])
    return "\n".join([*lines[:first], *lines[last + 1 :]])


def highlighted(text: str) -> str:
    """Return Python source as HTML: keywords, strings and comments in elements of their own classes."""
    classes = {tokenize.COMMENT: "c", tokenize.STRING: "s", tokenize.NUMBER: "n"}
    lines = text.splitlines(keepends=True)
    out: list[str] = []
    row, column = 1, 0

    def upto(end: tuple[int, int]) -> str:
        nonlocal row, column
        piece = ""
        while (row, column) < end and row <= len(lines):
            stop = end[1] if row == end[0] else len(lines[row - 1])
            piece += lines[row - 1][column:stop]
            row, column = (row, stop) if row == end[0] else (row + 1, 0)
        return escape(piece)

    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            out.append(upto(token.start))
            kind = "k" if token.type == tokenize.NAME and keyword.iskeyword(token.string) else classes.get(token.type)
            piece = upto(token.end)
            out.append(f"<span class='{kind}'>{piece}</span>" if kind and piece else piece)
    except (tokenize.TokenError, IndentationError):
        return escape(text)
    return "".join(out)
