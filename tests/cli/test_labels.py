"""`--label`: what it makes of a model, and how it is written beside the images."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sfumato.conditions.table import Attributes
from sfumato.conditions.vocabulary import AttributeVocabulary
from sfumato.errors import UserError
from sfumato.generate.recipe import Recipe
from sfumato.generate.sample import asked, sample
from sfumato.model import Model, load

from .conftest import Command, trained


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory, _cache: None) -> Path:
    """A run on faces that knows their hair and glasses."""
    known = ("--data.labels", "source", "--data.attributes", "hair,glasses", "--optim.lr", "0.03")
    return trained(tmp_path_factory, "faces", "faces", "--images", "80", *known)


def with_dropout(model: Model, dropout: float) -> Model:
    return replace(model, config=replace(model.config, train=replace(model.config.train, label_dropout=dropout)))


def test_nothing_is_asked_for_unless_it_is(faces: Path) -> None:
    assert asked(load(faces), None) is None


def test_images_take_what_is_asked_for_in_turn(sfumato: Command, faces: Path) -> None:
    words = ["sample", faces, "--num", 5, "--steps", 3, "--sampler", "ddim"]
    assert sfumato(*words, "--label", "glasses", "--out", "turn.npz").code == 0
    with np.load("turn.npz") as arrays:
        turn, told = arrays["images"], arrays["conditions"]
        assert arrays["labels"].tolist() == ["glasses=clear", "glasses=dark"] * 2 + ["glasses=clear"]
    assert np.isnan(told[:, 0]).all()
    assert told[:, 1].tolist() == [1, 2, 1, 2, 1]
    for label, own in (("clear", 0), ("glasses=dark", 1)):
        assert sfumato(*words, "--label", label, "--out", f"{own}.npz").code == 0
        with np.load(f"{own}.npz") as arrays:
            same = [bool((np.abs(turn[n].astype(int) - arrays["images"][n]) <= 1).all()) for n in range(5)]
        assert same == [n % 2 == own for n in range(5)]


def test_a_folder_says_of_each_image_what_it_was_to_be(sfumato: Command, faces: Path) -> None:
    words = ["--num", 3, "--steps", 2, "--label", "glasses,hair=long", "--out", "folder"]
    assert sfumato("sample", faces, *words).code == 0
    texts = [Image.open(f"folder/{n:06d}.png").text["label"] for n in range(3)]  # type: ignore[attr-defined]
    assert texts == [f"hair=long,glasses={kind}" for kind in ("clear", "dark", "clear")]
    assert json.loads(Path("folder/samples.json").read_text())["label"] == "glasses,hair=long"


def test_a_grid_has_a_row_for_each_turn(sfumato: Command, faces: Path) -> None:
    """Its columns are the conditions, so that each is seen down the page."""
    assert (
        sfumato("sample", faces, "--num", 12, "--steps", 2, "--label", "hair=all,glasses=all", "--out", "a.png").code
        == 0
    )
    wide, high = Image.open("a.png").size
    assert wide / high == pytest.approx(3, rel=0.1), "6 columns of 2"


def test_a_model_that_always_had_its_label_takes_all_in_turn(labelled: Path) -> None:
    condition = asked(with_dropout(load(labelled), 0.0), None)
    assert isinstance(condition, Attributes)
    assert condition.table.tolist() == [[float(k)] for k in range(10)]


def test_a_model_that_always_had_all_its_labels_wants_all(faces: Path) -> None:
    model = with_dropout(load(faces), 0.0)
    for label in (None, "dark"):
        with pytest.raises(UserError, match="all attributes must be given, such as hair=short,glasses=none"):
            asked(model, label)
    condition = asked(model, "dark,long")
    assert isinstance(condition, Attributes)
    assert condition.table.tolist() == [[1.0, 2.0]]


def test_the_library_takes_conditions_in_words_and_in_numbers(faces: Path) -> None:
    model, recipe = load(faces), Recipe("ddim", steps=2)
    assert isinstance(model.vocabulary, AttributeVocabulary)
    rows = model.vocabulary.rows([[0.0, 2.0], [float("nan"), 1.0]])
    assert model.vocabulary.describe(rows) == ["hair=short,glasses=dark", "glasses=clear"]
    images = sample(model, 3, recipe, condition=rows)
    for n, words in enumerate(("short,dark", "clear", "hair=short,glasses=dark")):
        torch.testing.assert_close(images[n], sample(model, 3, recipe, condition=words)[n], atol=1e-5, rtol=0)
