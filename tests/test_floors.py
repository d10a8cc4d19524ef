"""The floors of the house: imports go downwards, and nowhere in a circle, lazy ones included.

Every import statement of the package is read, at the top of a file or inside a function; those under TYPE_CHECKING too,
since a type from above is knowledge of what is above.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import sfumato

ROOT = Path(sfumato.__file__).parent
FLOORS = (
    ("errors", "lazy", "files"),
    ("ranks",),
    ("diffusion", "plugins"),
    ("conditions",),
    ("codec",),
    ("nets",),
    ("config",),
    ("data",),
    ("run",),
    ("weights",),
    ("session",),
    ("model",),
    ("generate",),
    ("train",),
    ("report.html", "report.text"),
    ("evaluate", "edit", "inspect", "verify"),
    ("exchange",),
    ("diagnose",),
    ("report",),
    ("explain",),
    ("cli",),
    ("__main__",),
)
"""From the ground up. Rooms of one floor do not import one another."""


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py"}


def imports(path: Path) -> set[str]:
    """The modules of the package that a file names, wherever in it; the root's version is no module."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively"
            module = node.module or ""
            inner = {f"{module}.{alias.name}" for alias in node.names}
            submodules = {name for name in inner if name.removeprefix("sfumato.") in MODULES}
            found |= submodules | ({module} if len(submodules) < len(inner) else set())
    return {name.removeprefix("sfumato.") for name in found if name.startswith("sfumato.")}


@cache
def graph() -> dict[str, set[str]]:
    return {name: imports(path) - {name} for name, path in MODULES.items()}


def room_and_floor(module: str) -> tuple[str, int]:
    for floor, rooms in enumerate(FLOORS):
        for room in rooms:
            if module == room or module.startswith(f"{room}."):
                return room, floor
    raise AssertionError(f"{module} is on no floor: add its room to FLOORS")


def test_imports_go_downwards() -> None:
    upward = []
    for name, targets in graph().items():
        room, floor = room_and_floor(name)
        for target in targets:
            other, below = room_and_floor(target)
            if other != room and below >= floor:
                upward.append(f"{name} (floor {floor}) imports {target} (floor {below})")
    assert not upward, "\n".join(upward)


def test_no_file_is_in_a_circle() -> None:
    """A package's face (`__init__`) that hands on names of its own files is no arrow of theirs."""
    faces = {name for name, path in MODULES.items() if path.name == "__init__.py"}
    arrows = {name: {t for t in targets if t in MODULES and t not in faces} for name, targets in graph().items()}
    try:
        TopologicalSorter({name: targets for name, targets in arrows.items() if name not in faces}).prepare()
    except CycleError as error:
        raise AssertionError(" -> ".join(error.args[1])) from None


def test_every_import_is_of_something_that_is_there() -> None:
    for name, targets in graph().items():
        for target in targets:
            assert target in MODULES or target == "__version__", f"{name} imports {target}"


def test_modules_can_be_imported_alone() -> None:
    """Each room first, in a process of its own: no room needs another to have been imported before."""
    rooms = sorted({room for floor in FLOORS for room in floor} - {"__main__", "cli"})
    code = "import importlib, sys\nfor name in sys.argv[1:]:\n    importlib.import_module(f'sfumato.{name}')\n"
    subprocess.run([sys.executable, "-c", code, *reversed(rooms)], check=True)
