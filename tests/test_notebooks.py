"""The notebooks run, cell by cell, in an empty folder."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
NOTEBOOKS = sorted(path.name for path in FOLDER.glob("*.ipynb"))


def test_there_are_three() -> None:
    assert NOTEBOOKS == ["first-steps.ipynb", "mathematics.ipynb", "own-images.ipynb"]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SFUMATO_CACHE", str(tmp_path / "cache"))
    module = types.ModuleType("__notebook__")
    monkeypatch.setitem(sys.modules, "__notebook__", module)
    cells = json.loads((FOLDER / name).read_text(encoding="utf-8"))["cells"]
    for number, cell in enumerate(cells):
        assert not cell.get("outputs"), "outputs are not kept: they grow the repository"
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), f"{name}, cell {number}", "exec"), vars(module))
