"""The pages on adding and extending run as they stand, and so do printed commands; scripts follow the package."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOREIGN = ("render_faces", "pack_digits")
"""They made the shipped images, with packages that the project does not install."""


@pytest.mark.parametrize("page", ["how-to-add", "extend"])
def test_the_code_of_a_page_runs(page: str) -> None:
    command = [sys.executable, "scripts/check_docs.py", f"docs/{page}.md"]
    checked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr


def test_benchmarks_and_scripts_can_be_imported() -> None:
    """All in one process; what they compare with is imported only when they run."""
    folders = [ROOT, ROOT / "benchmarks", ROOT / "scripts"]
    names = [path.stem for folder in folders[1:] for path in folder.glob("*.py") if path.stem not in FOREIGN]
    code = "import importlib, sys; sys.path[:0] = sys.argv[1].split(','); [*map(importlib.import_module, sys.argv[2:])]"
    command = [sys.executable, "-c", code, ",".join(map(str, folders)), *names]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-500:]


def run_commands(*options: str) -> None:
    command = [sys.executable, "scripts/run_commands.py", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_readme_prints_works_when_pasted() -> None:
    run_commands("--only", "README", "--fast")


@pytest.mark.slow
def test_every_printed_command_works_when_pasted() -> None:
    run_commands()
