"""`sfumato push`: where it writes, what it refuses."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from .conftest import Command


def test_a_run_into_a_folder(sfumato: Command, labelled: Path, tmp_path: Path) -> None:
    result = sfumato("push", labelled, "--to", "model", "--licence", "mit", "--json")
    assert json.loads(result.out) == {"to": "model", "uploaded": False, "figures": [], "licence": "mit"}
    card = (tmp_path / "model" / "README.md").read_text()
    assert "80 images seen" in card
    assert "`digits`, 1,797 images" in card
    assert "licence CC BY 4.0" in card
    assert "Time: " in card
    assert sfumato("sample", "model", "--num", 2, "--steps", 2, "--out", "x.png").code == 0


@pytest.mark.parametrize("name", ["model", "my model", "faces"])
def test_every_command_of_the_card_works(
    name: str, sfumato: Command, labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sfumato("push", labelled, "--to", name).code == 0
    card = (tmp_path / name / "README.md").read_text()
    assert f"\n# {name}\n" in card
    shell, python = (re.findall(rf"```{kind}\n(.*?)```", card, re.DOTALL)[0] for kind in ("sh", "python"))
    (again,) = re.findall("made again by `sfumato (.*?)`", card)
    lines = [*re.findall("sfumato (.*)", shell), f"{again} --out again.png"]
    assert [line.split()[0] for line in lines] == ["sample", "info", "sample"]
    for line in lines:
        result = sfumato(*shlex.split(line))
        assert result.code == 0, (line, result.err)
    info = sfumato(*shlex.split(lines[1])).out
    assert "trained on the built-in data set digits" in info, "and not a model that comes along"
    with Image.open(tmp_path / name / "samples.png") as told, Image.open(tmp_path / "again.png") as made:
        assert np.array_equal(np.asarray(told), np.asarray(made))
    values: dict[str, Any] = {}
    exec(python, values)
    assert len(values["images"]) == 16


def test_only_its_own_folder_is_written_anew(sfumato: Command, refused, labelled: Path, tmp_path: Path) -> None:
    assert sfumato("push", labelled, "--to", "model").code == 0
    assert "--force" in refused("push", labelled, "--to", "model")
    assert sfumato("push", labelled, "--to", "model", "--force").code == 0
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    assert "no export wrote" in refused("push", labelled, "--to", "mine", "--force")


def test_mistakes_are_one_line(refused, labelled: Path, tmp_path: Path) -> None:
    assert "give --to" in refused("push", labelled)
    assert "hf:USER/NAME" in refused("push", labelled, "--to", "hf:ada")
    assert "--private" in refused("push", labelled, "--to", "model", "--private")
    (tmp_path / "file").write_text("x")
    assert "is a file" in refused("push", labelled, "--to", "file")
    assert "does not exist" in refused("push", "nowhere", "--to", "model")
