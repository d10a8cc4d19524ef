"""The images that a model is held against know its attributes as it counts them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from sfumato.conditions.attributes import Attribute
from sfumato.data import Dataset
from sfumato.errors import UserError
from sfumato.evaluate.subject import _recoded

from .subjects import dataset

KIND, AGE = Attribute("kind", ("a", "b", "c")), Attribute("age", mean=40.0, std=10.0)
NAN = float("nan")


def images(*attributes: Attribute, told: list[list[float]]) -> Dataset:
    return dataset(torch.zeros(len(told), 1, 2, 2, dtype=torch.uint8), 2, torch.tensor(told), attributes)


def words(data: Dataset) -> list[list[str]]:
    return [[a.text(x) for a, x in zip(data.attributes, row, strict=True)] for row in data.conditions.tolist()]


def test_values_and_numbers_are_counted_as_the_model_does() -> None:
    """Other images have their own mean, fewer values, another order of attributes: the words stay what they were."""
    hat, mine = Attribute("hat", ("no", "yes")), Attribute("kind", ("c", "a"))
    data = images(
        Attribute("age", mean=50.0, std=5.0), hat, mine, told=[[0, 1, 0], [2, 0, 1], [NAN, 1, NAN], [-4, 0, 1]]
    )
    found = _recoded(data, (KIND, AGE))
    assert found.attributes == (KIND, AGE)
    assert words(found) == [["c", "50"], ["a", "60"], ["not given", "not given"], ["a", "30"]]
    np.testing.assert_array_equal(found.conditions[:2], np.float32([[2, 1], [0, 2]]))
    assert found.fingerprint != data.fingerprint


def test_a_model_without_attributes_is_told_nothing() -> None:
    data = images(KIND, told=[[0], [1], [2]])
    assert _recoded(data, ()).conditions.shape == (3, 0)
    assert _recoded(data, (KIND,)) is data


@pytest.mark.parametrize(
    ("attributes", "said"),
    [
        ((AGE,), "the attributes age and the model knows kind, age"),
        ((), "the attributes none and the model knows kind, age"),
        ((replace(KIND, values=("a", "d")), AGE), "kind = d, and the model knows a, b, c"),
        ((KIND, Attribute("age", ("old", "young"))), "the attributes kind, age and"),
    ],
)
def test_images_of_other_attributes_are_refused(attributes: tuple[Attribute, ...], said: str) -> None:
    data = images(*attributes, told=[[0.0] * len(attributes)] * 3)
    with pytest.raises(UserError, match=said):
        _recoded(data, (KIND, AGE))
