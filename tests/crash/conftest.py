"""One training that nothing interrupts, with which all others are compared; and the figures at the end."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sfumato.cli.main import main
from sfumato.run.folder import Run

from .harness import FIGURES, TRAIN, Training


@pytest.fixture(scope="session")
def _ready(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with the decoded images, and this process with everything imported that the command needs."""
    folder = tmp_path_factory.mktemp("crash")
    os.environ["SFUMATO_CACHE"] = str(folder / "cache")
    assert main([*TRAIN, "--dry-run", "--run", str(folder / "dry")]) == 0
    return folder


@pytest.fixture(scope="session")
def whole(_ready: Path) -> Run:
    """Four steps that nothing interrupted. Its neighbour `whole.trace` lists its calls on the run folder."""
    run = Run(_ready / "whole")
    ended = Training(run, trace=run.path.with_suffix(".trace")).wait()
    assert ended.code == 0, ended.err
    return run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path / "run")


def pytest_runtest_logfinish() -> None:
    """Keep the figures so far in a file, where the environment names one: a run that is cut off has them too."""
    if file := os.environ.get("TORTURE_FIGURES"):
        Path(file).write_text("".join(f"{number:7,} {name}\n" for name, number in sorted(FIGURES.items())))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what the tests of this folder tried, where they ran in this process."""
    for name, number in sorted(FIGURES.items()):
        terminalreporter.write_line(f"{number:7,} {name}")
