"""`--use`: code of one's own is loaded on request, recorded by name and hash, and named where it is missing."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sfumato.config.config import Config, own_files
from sfumato.diffusion import SCHEDULES
from sfumato.errors import UserError
from sfumato.model import load
from sfumato.plugins import use
from sfumato.run.folder import Run

from .conftest import TINY, Command

CUBE = """
from dataclasses import dataclass
import torch
from sfumato.diffusion import SCHEDULES
from sfumato.diffusion.schedule import Chain

@dataclass(frozen=True)
class Cube(Chain):
    num_steps: int = 50

    def betas(self):
        return torch.linspace(0.03, 1, self.num_steps, dtype=torch.float64) ** 3 / 2

SCHEDULES["cube"] = Cube
"""
IMAGES = ("--images", "16")


def forget() -> None:
    """Be a process that has loaded nothing."""
    SCHEDULES.pop("cube", None)
    for name in [name for name in sys.modules if name.startswith("sfumato_use_")]:
        del sys.modules[name]


@pytest.fixture
def cube(tmp_path: Path, sfumato: Command) -> Iterator[Path]:
    """The file with a schedule, and `run`, trained with it by a process that is gone."""
    file = tmp_path / "cube.py"
    file.write_text(CUBE)
    done = sfumato("train", "digits", "--use", file, "--run", "run", *IMAGES, "--diffusion.schedule.kind=cube", *TINY)
    assert done.code == 0, done.err
    forget()
    yield file
    forget()


def test_a_run_names_the_file_that_it_needs(cube: Path, sfumato: Command) -> None:
    record = {"cube.py": hashlib.sha256(CUBE.encode()).hexdigest()}
    assert json.loads(Run("run").environment_path.read_text())["plugins"] == record
    for verb in ("sample", "evaluate", "info"):
        lacking = sfumato(verb, "run")
        assert lacking.code == 2
        assert 'unknown diffusion.schedule.kind "cube"' in lacking.err
        assert lacking.err.endswith("it needs code of your own: give --use cube.py (in Python, sfumato.use)\n")
    again = sfumato("train", "digits", "--run", "run", *IMAGES, "--diffusion.schedule.kind", "cube", *TINY)
    assert (again.code, again.out) == (2, "")
    used = sfumato("sample", "run", "--use", cube, "--num", "2")
    assert (used.code, used.err) == (0, "")
    assert own_files(load("run").config) == record


def test_another_content_is_reported(cube: Path, caplog: pytest.LogCaptureFixture) -> None:
    cube.write_text(f"{CUBE}\n# another line")
    use(cube)
    load("run")
    assert caplog.messages == ["cube.py changed since this model was trained with it"]


def test_models_without_code_of_ones_own_have_no_record(plain: Path) -> None:
    assert "plugins" not in json.loads(Run(plain).environment_path.read_text())
    assert b'"plugins"' not in Run(plain).weights_file().read_bytes()[:10000]
    assert own_files(Config()) == {}


def test_a_file_runs_once(tmp_path: Path) -> None:
    file = tmp_path / "counted.py"
    file.write_text("import builtins\nbuiltins.counted = getattr(builtins, 'counted', 0) + 1\nvalue = builtins.counted")
    assert use(file) is use(str(file))
    assert use(file).value == 1


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "there is no such file"),
        ("x = 1\n1 / 0", "line 2: ZeroDivisionError: division by zero"),
        ("x = (", "line 1: SyntaxError"),
        ("import nowhere_at_all", "line 1: ModuleNotFoundError: No module named 'nowhere_at_all'"),
    ],
)
def test_a_file_that_fails_is_named_with_its_line(tmp_path: Path, content: str | None, words: str) -> None:
    file = tmp_path / "own.py"
    if content is not None:
        file.write_text(content)
    with pytest.raises(UserError, match=r"--use \S+own\.py") as refused:
        use(file)
    assert words in str(refused.value)


def test_use_without_a_file_and_of_another_kind(refused: Command, tmp_path: Path) -> None:
    assert "--use needs a Python file" in refused("info", "run", "--use")
    (tmp_path / "own.txt").write_text("")
    assert "its name must end in .py" in refused("data", "digits", "--use", tmp_path / "own.txt")
