"""The images that a model is compared with, in the model's own vocabulary; and where results are kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from sfumato.conditions.attributes import Attribute
from sfumato.conditions.table import Attributes
from sfumato.conditions.vocabulary import AttributeVocabulary
from sfumato.errors import UserError
from sfumato.evaluate import target
from sfumato.evaluate.results import results_folder

KIND, AGE = Attribute("kind", ("a", "b", "c")), Attribute("age", mean=40.0, std=10.0)
MODEL = AttributeVocabulary((KIND, AGE))
NAN = float("nan")


def test_values_and_numbers_are_counted_as_the_model_does() -> None:
    """Other images have their own mean, fewer values, another order of attributes: the words stay what they were."""
    hat, kind = Attribute("hat", ("no", "yes")), Attribute("kind", ("c", "a"))
    own = AttributeVocabulary((Attribute("age", mean=50.0, std=5.0), hat, kind))
    found = MODEL.recode(Attributes(torch.tensor([[0, 1, 0], [2, 0, 1], [NAN, 1, NAN], [-4, 0, 1]])), own)
    assert MODEL.describe(found) == ["kind=c,age=50", "kind=a,age=60", "", "kind=a,age=30"]
    np.testing.assert_array_equal(found.table[:2], np.float32([[2, 1], [0, 2]]))


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ((AGE,), "they have age, and the model has kind, age"),
        ((), "they have none, and the model has kind, age"),
        ((replace(KIND, values=("a", "d")), AGE), "they have kind = d, and the model has a, b, c"),
        ((KIND, Attribute("age", ("old", "young"))), "they have kind, age, and the model has kind, age"),
    ],
)
def test_images_of_other_attributes_are_refused(attributes: tuple[Attribute, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        MODEL.recode(Attributes(torch.zeros(3, len(attributes))), AttributeVocabulary(attributes))
    with pytest.raises(UserError, match="they have none"):
        MODEL.recode(None, None)


def test_results_lie_in_the_run_or_beside_the_file(tmp_path: Path) -> None:
    weights = tmp_path / "run" / "weights" / "ema.safetensors"
    weights.parent.mkdir(parents=True)
    weights.touch()
    assert results_folder(tmp_path / "run") == tmp_path / "run" / "evaluation"
    assert results_folder(weights) == weights.parent / "evaluation", "not a run yet"
    (tmp_path / "run" / "config.toml").touch()
    assert results_folder(weights) == tmp_path / "run" / "evaluation"
    assert results_folder(tmp_path / "a.safetensors") == tmp_path / "evaluation"


def test_the_model_whose_labels_differ_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two models can be compared, so the message says which one is meant."""
    images = SimpleNamespace(vocabulary=AttributeVocabulary((AGE,)), conditions=Attributes(torch.zeros(3, 1)))
    images.source_name = "others"
    monkeypatch.setattr(target, "load", lambda *words: SimpleNamespace(vocabulary=MODEL))
    monkeypatch.setattr(target, "_open", lambda *words: images)
    with pytest.raises(UserError, match=r"others has other labels than runs/b \(they have age, and"):
        target.open_target(Path("runs/b"), data="others")
