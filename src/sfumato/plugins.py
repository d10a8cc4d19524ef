"""Code of one's own from a file: loading it adds to the registries (docs/extend.md).

    use("cube.py")          the file is run as a module, once; `SCHEDULES["cube"] = Cube` in it is enough

What a model needs of such files is written next to it, as names with SHA-256: into the header of its weights files and
the environment.json of its run. These records only name what is missing; nothing is ever loaded because of them.
"""

from __future__ import annotations

import hashlib
import importlib.util
import sys
import traceback
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from sfumato.errors import UserError, similar

_MOST = 200
"""Characters of a stranger's record that a message repeats."""


def use(path: Path | str) -> ModuleType:
    """Run a Python file as a module, and return it; the same file is run once. Raises `UserError` where there is no
    such file, or it fails, with the line."""
    file = Path(path).expanduser().resolve()
    if not file.is_file():
        raise UserError(f"--use {path}: there is no such file{similar(file, Path.is_file)}")
    name = f"sfumato_use_{hashlib.sha256(str(file).encode()).hexdigest()[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise UserError(f"--use {path}: not a Python file (its name must end in .py)")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
        line = getattr(error, "lineno", None) or (lines[-1] if lines else 1)
        raise UserError(f"--use {path}, line {line}: {type(error).__name__}: {error}") from error
    return module


def files_of(values: Iterable[Any]) -> dict[str, str]:
    """Return the files that values come from, where these are outside of the package: their names with SHA-256, which
    is empty for what was typed in."""
    found = {}
    for value in values:
        module = sys.modules.get(type(value).__module__)
        if module is None or type(value).__module__.partition(".")[0] in ("sfumato", "builtins"):
            continue
        file = Path(getattr(module, "__file__", None) or module.__name__)
        found[file.name] = hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else ""
    return found


def missing(record: Any) -> str:
    """Return what to do about a record of files, for the end of a message; empty where there is none."""
    names = ", ".join(map(str, record)) if isinstance(record, Mapping) else ""
    first = f"give --use {names[:_MOST]}" if "," not in names else f"give --use for each of {names[:_MOST]}"
    return f"; it needs code of your own: {first} (in Python, sfumato.use)" if names else ""


def changed(record: Any, files: Mapping[str, str]) -> str:
    """Say which files are not those of a record; empty where all are."""
    old = record if isinstance(record, Mapping) else {}
    names = [name for name, sha256 in files.items() if name in old and old[name] != sha256]
    return f"{', '.join(names)} changed since this model was trained with it" if names else ""
