"""The pages on adding and extending run as they stand, and so do printed commands; scripts follow the package."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from .forked import start

ROOT = Path(__file__).parent.parent
FOREIGN = ("render_faces", "pack_digits")
"""They made the shipped images, with packages that the project does not install."""


def run(function: Callable[[], int]) -> None:
    """Run something of the scripts in a process of its own."""

    def script() -> int:
        sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks"), str(ROOT / "scripts")]
        return function()

    process = start(script, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    printed, _ = process.communicate()
    assert process.returncode == 0, printed


@pytest.mark.parametrize("page", ["how-to-add", "extend"])
def test_the_code_of_a_page_runs(page: str) -> None:
    run(lambda: importlib.import_module("check_docs").main([f"docs/{page}.md"]))


def test_a_page_whose_process_is_ended_by_a_signal_is_a_problem() -> None:
    def checked() -> int:
        script, codes = importlib.import_module("check_docs"), iter([0, -11, 0])
        script.subprocess = SimpleNamespace(run=lambda words: SimpleNamespace(returncode=next(codes)))  # type: ignore[attr-defined]
        return int(script.main(["README.md", "LOG.md", "CHANGELOG.md"]) != 1)

    run(checked)


def test_benchmarks_and_scripts_can_be_imported() -> None:
    """All in one process; what they compare with is imported only when they run."""
    folders = [ROOT / "benchmarks", ROOT / "scripts"]
    names = [path.stem for folder in folders for path in folder.glob("*.py") if path.stem not in FOREIGN]
    run(lambda: int(not [*map(importlib.import_module, names)]))


def test_what_readme_prints_works_when_pasted() -> None:
    run(lambda: importlib.import_module("run_commands").run_all("README", fast=True))


@pytest.mark.slow
def test_every_printed_command_works_when_pasted() -> None:
    run(lambda: importlib.import_module("run_commands").run_all("", fast=False))
