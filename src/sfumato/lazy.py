"""Load the names of a package on first use (PEP 562), so that importing it is fast."""

from __future__ import annotations

import ast
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any


def lazy(package: str, homes: Mapping[str, str] | str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return a package's `__getattr__` and `__dir__`.

    Args:
        package: its name.
        homes: the package's `__file__`, whose imports under `if TYPE_CHECKING:` give the module of each name; or these
            modules by name, relative to the package; a name mapped to itself is a module.
    """
    modules = _imports(package, Path(homes)) if isinstance(homes, str) else homes

    def load(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = import_module(f"{package}.{modules[name]}")
        return module if modules[name] == name else getattr(module, name)

    return load, lambda: sorted(modules)


@contextmanager
def quietly() -> Iterator[None]:
    """Leave out what bitsandbytes, which diffusers imports too, logs when it is imported: that a kernel is missing,
    which nothing here uses."""
    logger = logging.getLogger("bitsandbytes.backends.cpu.ops")
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


def _imports(package: str, file: Path) -> dict[str, str]:
    """The module of every name that is imported under `if TYPE_CHECKING:`, relative to the package."""
    blocks = [node for node in ast.parse(file.read_text("utf-8")).body if isinstance(node, ast.If)]
    imports = [node for block in blocks for node in block.body if isinstance(node, ast.ImportFrom)]
    return {
        name.asname or name.name: str(node.module).removeprefix(f"{package}.")
        for node in imports
        for name in node.names
    }
