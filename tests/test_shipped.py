"""The models that come along: loaded by name, small, described, and drawing what their labels say."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import sfumato
from sfumato.data import open_data
from sfumato.errors import UserError
from sfumato.evaluate import open_extractor
from sfumato.model import load
from sfumato.run.folder import Run
from sfumato.run.locate import ASSETS, SHIPPED, locate

CARD = (ASSETS / "MODELS.md").read_text("utf-8")


@pytest.mark.parametrize("name", SHIPPED)
def test_it_is_small_described_and_knows_its_data(name: str) -> None:
    model = load(name)
    assert model.path.stat().st_size < 2e6
    assert f"## {name}" in CARD
    assert f"{model.images:,} images" in CARD
    assert model.config.data.source == name
    data = open_data(model.config.data)
    assert data.shape == model.codec.image_shape
    assert data.vocabulary == model.vocabulary
    assert model.net.exit.weight.dtype == torch.float32


def test_clothes_are_of_the_class_that_was_asked_for() -> None:
    """By the nearest class mean in the features of evaluation's classifier, which takes 9 of 10 real clothes right."""
    model = load("fashion")
    real, given = open_data(model.config.data).rows(torch.arange(3000))
    features = open_extractor("classifier", model.codec.image_shape, format=model.codec.format)
    labels, f = given.table[:, 0], features(real)
    means = torch.stack([f[labels == k].mean(0) for k in range(10)])
    assert float((torch.cdist(f, means).argmin(1) == labels).float().mean()) > 0.85
    drawn = sfumato.to_bytes(sfumato.sample(model, 60, seed=0, condition="all"))
    asked = torch.arange(60) % 10
    assert float((torch.cdist(features(drawn), means).argmin(1) == asked).float().mean()) > 0.75


@pytest.mark.parametrize("name", ["faces", "emoji32"])
def test_it_draws_like_its_data(name: str) -> None:
    """Mean colour and contrast within what images of the set differ by; no two samples alike."""
    model = load(name)
    x = sfumato.sample(model, 24, seed=1)
    real = sfumato.to_model(open_data(model.config.data).rows(torch.arange(500))[0])
    assert float((x.mean((0, 2, 3)) - real.mean((0, 2, 3))).abs().max()) < 0.2
    assert 0.8 < float(x.std() / real.std()) < 1.2
    assert float(torch.pdist(x.flatten(1)).min()) > 1


def test_a_run_or_a_file_of_that_name_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert locate("faces").parent == ASSETS
    Path("faces").write_bytes(b"x")
    assert locate("faces") == Path("faces")
    Path("faces").unlink()
    run = Run("faces")
    run.write(run.config_path, {})
    with pytest.raises(UserError, match="no weights yet"):
        locate("faces")
