"""What every test shares: the options `--slow`, `--device`, `--dtype`, and one thread a process."""

from __future__ import annotations

import os
import signal

# Before torch is imported anywhere: pytest-xdist runs one process a core; a second thread in each is only in the way.
# The sub-processes that tests start inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import torch


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the long trainings and statistics too")
    parser.addoption("--device", default="cpu", help="the device of tests that take one (cpu, cuda)")
    parser.addoption(
        "--dtype", default="float32", choices=("float32", "float64"), help="the dtype of tests that take one"
    )


def pytest_configure() -> None:
    """Under nohup SIGHUP is ignored, by what tests start too; a handler keeps that to this process."""
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda *_: None)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--slow"):
        return
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="long: run with --slow"))


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> torch.device:
    import torch

    return torch.device(request.config.getoption("--device"))


@pytest.fixture(scope="session")
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    import torch

    return {"float32": torch.float32, "float64": torch.float64}[request.config.getoption("--dtype")]


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium, driven by playwright; a machine without either skips what needs it."""
    from shutil import which

    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = next(filter(None, map(which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.skip("there is no chromium on this machine")
    with api.sync_playwright() as playwright:
        # the sandbox needs rights that a container does not give; the pages are our own
        opened = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        yield opened
        opened.close()
