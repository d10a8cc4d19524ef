"""`sfumato import`: from a file to samples, and what it says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from sfumato.exchange.formats import IMPORTS
from sfumato.model import load
from sfumato.run.locate import ASSETS

from ..exchange.layouts import Adm
from ..exchange.models import randomise
from .conftest import Command


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A file in guided-diffusion's layout."""
    net = Adm(classes=3, resampling="block")
    randomise(net)
    torch.save(net.state_dict(), tmp_path / "ema_0.9999_7.pt")
    return tmp_path / "ema_0.9999_7.pt"


SAID = ("size=8", "schedule=linear", "steps=20", "heads=2")


def test_an_imported_model_samples_is_described_and_edits(sfumato: Command, published: Path, tmp_path: Path) -> None:
    result = sfumato("import", published, "--set", *SAID, "--out", "runs/adm")
    assert result.code == 0, result
    assert "U-Net with levels of 32, 64 channels" in result.out
    assert "not compared: guided-diffusion is not installed" in result.out
    assert "the classes take turns" in result.out
    assert sfumato("sample", "runs/adm", "--num", 3, "--steps", 2, "--out", "grid.png").code == 0
    assert sfumato("sample", "runs/adm", "--num", 1, "--steps", 2, "--label", 2, "--out", "two.png").code == 0
    info = json.loads(sfumato("info", "runs/adm", "--json").out)
    assert info["shape"] == [3, 8, 8]
    assert info["config"]["data"]["source"] == "unknown"
    assert sfumato("edit", "vary", "runs/adm", "two.png", "--num", 1, "--steps", 2, "--out", "v.png").code == 0
    assert load(tmp_path / "runs" / "adm").kind == "ema"


def test_json_has_all_that_is_printed(sfumato: Command, published: Path) -> None:
    facts = json.loads(sfumato("import", published, "--set", *SAID, "--out", "x.safetensors", "--json").out)
    assert facts["shape"] == [3, 8, 8]
    assert facts["classes"] == ["0", "1", "2"]
    assert facts["difference"] is None
    assert facts["weights"] == "x.safetensors"


def test_mistakes_are_one_line(refused, sfumato: Command, published: Path, tmp_path: Path) -> None:
    assert "does not exist" in refused("import", "nowhere.pt")
    assert "--set size=PIXELS schedule=linear" in refused("import", published, "--set", "heads=2")
    assert "unknown key sise" in refused("import", published, "--set", "sise=8")
    assert "did you mean 'openai'" in refused("import", published, "--as", "opnai")
    assert "no weights of a Unet" in refused("import", published, "--as", "ldp", "--set", "size=8")
    assert "is a weights file of this library" in refused("import", ASSETS / "faces.safetensors")
    (tmp_path / "x.pt").write_bytes(b"not a checkpoint")
    assert "can be read safely" in refused("import", "x.pt")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "x").write_text("x")
    assert "choose a new folder" in refused("import", published, "--set", *SAID, "--out", "taken")
    (tmp_path / "x.safetensors").write_text("x")
    assert "--force" in refused("import", published, "--set", *SAID, "--out", "x.safetensors")
    assert sfumato("import", published, "--set", *SAID, "--out", "x.safetensors", "--force").code == 0


def test_every_format_has_a_reader() -> None:
    from importlib import import_module

    for form in IMPORTS.values():
        assert callable(import_module(form.module).READER.recognises), form
