"""Attributes as a condition: which are left out of training examples, and the value's own promises."""

from __future__ import annotations

import json
import math

import pytest
import torch

from sfumato.conditions.attributes import Attribute
from sfumato.conditions.table import Attributes
from sfumato.conditions.vocabulary import AttributeVocabulary
from sfumato.diffusion.noise import Purpose, uniform
from sfumato.errors import UserError


def shown(num: int, size: int, probability: float, first: int = 0) -> torch.Tensor:
    """Which of `size` attributes are left, (num - first, size) bool."""
    condition = Attributes(torch.zeros(num - first, size))
    u = uniform(3, Purpose.LABEL_DROPOUT, torch.arange(first, num), (condition.num_uniforms,))
    return ~condition.dropped(u, probability).table.isnan()


def test_of_several_attributes_any_number_may_be_shown() -> None:
    """None with p; else all of them in half of the cases, and in the others 0 .. A of A, each as likely as another."""
    num, size, p = 60_000, 5, 0.2
    given = shown(num, size, p)
    counts = torch.bincount(given.sum(1), minlength=size + 1) / num
    part = (1 - p) / 2 / (size + 1)
    wanted = torch.tensor([p + part, *[part] * (size - 1), (1 - p) / 2 + part])
    error = 4 * (wanted * (1 - wanted) / num).sqrt()
    assert ((counts - wanted).abs() < error).all(), counts
    assert torch.equal(shown(num, size, p, first=700), given[700:]), "a function of the position"
    # no attribute is preferred: alone, each is as likely as another, and so is each pair
    alone = given[given.sum(1) == 1].double().mean(0)
    assert torch.allclose(alone, torch.full((size,), 1 / size, dtype=torch.float64), atol=0.03)
    pairs = given[given.sum(1) == 2]
    assert float((pairs[:, 0] & pairs[:, 1]).double().mean()) == pytest.approx(1 / 10, abs=0.02)


@pytest.mark.parametrize("size", [1, 3])
def test_without_dropout_everything_is_always_shown(size: int) -> None:
    assert shown(1000, size, 0.0).all()


def test_a_single_attribute_is_left_out_with_the_probability() -> None:
    assert float(shown(20_000, 1, 0.25).double().mean()) == pytest.approx(0.75, abs=4 * math.sqrt(0.1875 / 20_000))


def test_conditions_that_are_none_of_the_models_are_refused() -> None:
    vocabulary = AttributeVocabulary((Attribute("glasses", ("none", "clear", "dark")), Attribute("age", mean=3.0)))
    for rows, message in (
        ([[0.0]], "rows of 2 numbers"),
        ([[3.0, 0.0]], "glasses has 3 values: give 0 to 2"),
        ([[-1.0, 0.0]], "glasses has 3 values"),
        ([[0.5, 0.0]], "glasses has 3 values"),
        ([[0.0, float("inf")]], "age is not finite"),
    ):
        with pytest.raises(UserError, match=message):
            vocabulary.rows(rows)


def test_a_vocabulary_keeps_rows_as_the_training_images_have_them() -> None:
    """As often as in the images, whole rows, none of images without labels; as JSON too."""
    kinds, nan = Attribute("kind", ("a", "b")), math.nan
    table = torch.tensor([[0.0, 1.23456]] * 900 + [[1.0, nan]] * 300 + [[nan, nan]] * 600)
    vocabulary = AttributeVocabulary.of((kinds, Attribute("age")), table)
    common = vocabulary.common()
    assert common is not None
    assert len(common) == 256
    first = common.table[:, 0] == 0
    assert float(first.double().mean()) == pytest.approx(0.75, abs=0.1)
    assert torch.equal(common.table[:, 1].isnan(), ~first), "whole rows"
    again = AttributeVocabulary.from_plain(json.loads(json.dumps(vocabulary.plain())))
    assert again == vocabulary == AttributeVocabulary(vocabulary.attributes)
    assert torch.allclose(again.common().table, common.table, atol=5e-5, equal_nan=True)  # type: ignore[union-attr]
    assert AttributeVocabulary.of((kinds,), torch.full((4, 1), nan)).common() is None
    for usual in ([[2, 0]], [[0]], [[0, 0]] * 257, [["a", 0]]):
        with pytest.raises(ValueError):
            AttributeVocabulary.from_plain(vocabulary.plain() | {"usual": usual})
