"""The hub's layout and its card: what is in it is true, and nothing is uploaded that was not asked for."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

import sfumato
from sfumato.conditions.attributes import Attribute
from sfumato.conditions.vocabulary import AttributeVocabulary
from sfumato.config.config import from_dict
from sfumato.errors import UserError
from sfumato.exchange.hub.card import Licence, results
from sfumato.exchange.hub.push import push, write_folder
from sfumato.model import Model

from .models import NET, random_model

LABELS = AttributeVocabulary((Attribute("class", ("cat", "it's | `x`")), Attribute("age", mean=40.0, std=10.0)))


@pytest.fixture
def model(tmp_path: Path) -> Model:
    config = from_dict({"net": NET, "data": {"source": "/home/ada/secret/cats", "labels": "source"}})
    return random_model(tmp_path / "x.safetensors", config, (3, 8, 8), LABELS)


def evaluated(model: Model, **changes: Any) -> None:
    """Write results as `evaluate` does."""
    folder = model.path.parent / "evaluation"
    folder.mkdir(exist_ok=True)
    settings = {"weights": model.sha256, "sampler": "dpmpp-2", "steps": 20} | changes
    total = {"mean": 3.21, "half_width": 0.1, "low": 3.11, "high": 3.31}
    bits = {"kind": "sampled", "images": 256, "total": total, "curve": [1]}
    measure = {
        "name": "frechet", "value": 5.448, "low": 4.537, "high": 6.434, "floor": 2.104, "num_real": 900,
        "num_generated": 1000, "extractor": "pixels",
    }  # fmt: skip
    memory = {"memorised": True, "sentence": "the model repeats training images", "contact_sheet": "m.png"}
    for kind, result in (("bits", bits), ("quality", {"measures": [measure]}), ("memorisation", memory)):
        report = {"kind": kind, "weights": "/home/ada/x", "settings": settings, "result": result, "notes": []}
        (folder / f"{kind}-{changes.get('weights', 'own')[:3]}.json").write_text(json.dumps(report))


def test_the_folder_is_a_model(model: Model, tmp_path: Path) -> None:
    write_folder(model, tmp_path / "out", "ada/cats", Licence("mit"))
    again = sfumato.load(tmp_path / "out")
    for name, value in model.net.state_dict().items():
        assert torch.equal(again.net.state_dict()[name], value)
    facts = json.loads((tmp_path / "out" / "config.json").read_text())
    assert facts["library_name"] == "sfumato"
    assert facts["config"]["net"]["base"] == 8
    with Image.open(tmp_path / "out" / "samples.png") as picture:
        assert picture.text["num"] == "64"  # type: ignore[attr-defined]
        assert picture.text["label"] == "class=cat"  # type: ignore[attr-defined]


def test_the_card_has_our_figures_and_their_intervals(model: Model, tmp_path: Path) -> None:
    evaluated(model)
    write_folder(model, tmp_path / "out", "ada/cats", Licence("mit", "CC BY 4.0"))
    card = (tmp_path / "out" / "README.md").read_text()
    assert card.startswith('---\nlicense: "mit"\nlibrary_name: "sfumato"\n')
    assert "| bits per dimension | 3.21 | 3.11 to 3.31 | - |" in card
    assert "| Frechet distance | 5.448 | 4.537 to 6.434 | 2.104 |" in card
    assert "1,000 images by dpmpp-2 in 20 steps, against 900 real ones" in card
    assert "It repeats training images" in card
    assert "Licence of the images: CC BY 4.0" in card
    assert "- class: cat, it's \\| \\`x\\`" in card
    assert "- age: a number, 40 +- 10" in card
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["bits"]["result"]["total"]["low"] == 3.11


def test_the_result_of_the_most_images_is_told_whenever_it_was_measured(model: Model, tmp_path: Path) -> None:
    evaluated(model, num=1000)
    for kind in ("bits", "quality", "memorisation"):
        file = tmp_path / "evaluation" / f"{kind}-own.json"
        later = json.loads(file.read_text())
        later["settings"]["num"] = 24
        (tmp_path / "evaluation" / f"{kind}-later.json").write_text(json.dumps(later))
        os.utime(file, (1, 1))
    assert {report["settings"]["num"] for report in results(model).values()} == {1000}


def test_nothing_tells_of_this_machine(model: Model, tmp_path: Path) -> None:
    evaluated(model)
    write_folder(model, tmp_path / "out", "cats", Licence())
    for file in (tmp_path / "out").iterdir():
        assert b"/home" not in file.read_bytes(), file
        assert b"secret" not in file.read_bytes(), file
    assert "a collection named `cats`" in (tmp_path / "out" / "README.md").read_text()


def test_figures_of_other_weights_are_not_taken(model: Model, tmp_path: Path) -> None:
    evaluated(model, weights="0" * 64)
    (tmp_path / "evaluation" / "bits-bad.json").write_text("{")
    assert results(model) == {}
    written = write_folder(model, tmp_path / "out", "cats", Licence())
    card = (tmp_path / "out" / "README.md").read_text()
    assert "Not measured" in card
    assert "Licence of the images: not stated" in card
    assert "license:" not in card
    assert "--licence" in written.lines[-1]
    assert not (tmp_path / "out" / "metrics.json").exists()


def test_a_card_that_was_edited_is_kept_beside(model: Model, tmp_path: Path) -> None:
    write_folder(model, tmp_path / "out", "cats", Licence())
    (tmp_path / "out" / "README.md").write_text("mine")
    write_folder(model, tmp_path / "out", "cats", Licence())
    assert (tmp_path / "out" / "README.old.md").read_text() == "mine"


class Hub:
    """Stands for huggingface_hub: a folder, and what was asked of it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.calls = folder, list[Any]()

    def HfApi(self) -> Hub:
        return self

    def create_repo(self, name: str, private: bool, exist_ok: bool) -> None:
        self.calls.append(("create", name, private, exist_ok))

    def upload_folder(self, repo_id: str, folder_path: str, **options: Any) -> str:
        for file in Path(folder_path).iterdir():
            target = self.folder / repo_id / file.name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read_bytes())
        self.calls.append(("upload", repo_id, options["ignore_patterns"]))
        return f"https://hub/{repo_id}"

    def hf_hub_download(self, repo_id: str, filename: str, revision: str | None) -> str:
        self.calls.append(("download", repo_id, revision))
        if not (self.folder / repo_id).is_dir():
            raise OSError("404: no such model")
        return str(self.folder / repo_id / filename)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    hub = Hub(tmp_path / "hub")
    names = ("HfApi", "hf_hub_download")
    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(**{name: getattr(hub, name) for name in names}))
    return hub


def test_up_to_the_hub_and_down_again(model: Model, hub: Hub) -> None:
    written = push(model, "ada/cats", Licence("mit"), private=True)
    assert hub.calls == [("create", "ada/cats", True, True), ("upload", "ada/cats", ["README.old.md"])]
    assert written.facts["address"] == "https://hub/ada/cats"
    again = sfumato.load("hf:ada/cats@v1")
    assert hub.calls[-1] == ("download", "ada/cats", "v1")
    assert again.vocabulary == LABELS
    assert "hf:ada/cats" in (hub.folder / "ada" / "cats" / "README.md").read_text()


def test_what_the_hub_refuses_is_one_line(hub: Hub) -> None:
    with pytest.raises(UserError, match=r"hf:ada/dogs can't be downloaded \(404: no such model\)"):
        sfumato.load("hf:ada/dogs")
    with pytest.raises(UserError, match="give hf:USER/NAME"):
        sfumato.load("hf:ada")


def test_the_package_is_named_where_it_is_missing(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match=r"sfumato\[hub\]"):
        sfumato.load("hf:ada/cats")
    with pytest.raises(UserError, match=r"sfumato\[hub\]"):
        push(model, "ada/cats", Licence(), private=False)
