"""Command lines run inside this process; a run that takes a second, shared by all who only look at it."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from sfumato.cli.main import main

TINY = shlex.split(
    "--net.base 8 --net.groups 4 --net.multipliers 1,2 --net.blocks 1 --net.attention 1 "
    "--diffusion.schedule.num_steps 50 --train.batch 8 --train.grids 2 --train.grid_images 4 --train.grid_steps 2 "
    "--train.held_outs 2 --train.held_out_images 16"
)
"""A network whose steps take milliseconds."""


def tiny(*changes: str) -> list[str]:
    """`TINY` with other values of some options, since none may be given twice."""
    values = dict(zip(TINY[::2], TINY[1::2], strict=True)) | dict(zip(changes[::2], changes[1::2], strict=True))
    return [word for pair in values.items() for word in pair]


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    os.environ["SFUMATO_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


Command = Callable[..., Result]


@pytest.fixture
def sfumato(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run a command line in an empty folder and return its exit code and what it said."""
    monkeypatch.chdir(tmp_path)

    def command(*words: object) -> Result:
        capsys.readouterr()
        try:
            code = main([str(word) for word in words])
        except SystemExit as stop:  # --help
            code = int(stop.code or 0)
        said = capsys.readouterr()
        return Result(code, said.out, said.err)

    return command


@pytest.fixture
def refused(sfumato: Command) -> Callable[..., str]:
    """Run a command line that must be refused: exit code 2, one line on stderr, nothing on stdout. Returns the line."""

    def command(*words: object) -> str:
        result = sfumato(*words)
        assert result.code == 2, result
        assert result.out == ""
        assert result.err.startswith("sfumato: ")
        assert result.err.count("\n") == 1, "one line"
        return result.err

    return command


def trained(factory: pytest.TempPathFactory, name: str, *words: str) -> Path:
    """Train with small values of the options, in a folder of the session, and return the run."""
    path = factory.mktemp("runs") / name
    assert main(["train", *words, "--run", str(path), *TINY]) == 0
    return path


@pytest.fixture(scope="session")
def labelled(tmp_path_factory: pytest.TempPathFactory, _cache: None) -> Path:
    """A finished run on the digits and their labels, with a rate at which a few steps make the labels matter."""
    words = ("digits", "--images", "80", "--data.labels", "source", "--optim.lr", "0.03")
    return trained(tmp_path_factory, "labelled", *words)


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory, _cache: None) -> Path:
    """A finished run on the digits without labels."""
    return trained(tmp_path_factory, "plain", "digits", "--images", "80", "--labels", "none")
