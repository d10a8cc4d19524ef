"""A second kind of condition trains, is dropped, guided, saved and sampled without a change outside its file."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from sfumato.config.data import DataConfig
from sfumato.data import Dataset, open_data
from sfumato.errors import UserError
from sfumato.generate.recipe import Recipe
from sfumato.generate.sample import sample
from sfumato.model import load
from sfumato.run.folder import Run
from sfumato.train import train
from tests.train.conftest import tiny

from .tokens import ABSENT, Tokens, Words

WORDS = Words(("a", "small", "zero", "one", "two", "three"), 3)


@pytest.fixture(scope="module")
def captioned(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """The digits, each with a caption of two or three words in place of its class."""
    data = open_data(DataConfig("digits", labels="source"), tmp_path_factory.mktemp("cache"))
    digit = torch.from_numpy(data.table[:, 0]).long().clamp(max=3)
    ids = torch.stack([torch.full_like(digit, 2), 4 + digit, torch.zeros_like(digit)], 1)
    return replace(data, vocabulary=WORDS, conditions=Tokens(ids))


@pytest.fixture(scope="module")
def run(captioned: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = Run(tmp_path_factory.mktemp("words") / "run")
    list(train(tiny(train__images="320", train__label_dropout="0.3", optim__lr="1e-2"), run, captioned))
    return run


def test_it_trains_and_is_saved(run: Run) -> None:
    model = load(run)
    assert model.vocabulary == WORDS
    assert model.attributes == ()
    assert model.describe()["vocabulary"] == WORDS.plain()
    table = model.net.get_parameter("condition.table.weight")
    assert table.shape == (8, 16)


def test_other_words_are_other_data(captioned: Dataset) -> None:
    turned = captioned.conditions.take(torch.arange(len(captioned)).flip(0))
    assert replace(captioned, conditions=turned).fingerprint != captioned.fingerprint


def test_dropping_leaves_whole_captions_out() -> None:
    ids = Tokens(torch.tensor([[2, 4, 0], [2, 5, 0]])).dropped(torch.tensor([[0.1], [0.9]]), 0.3).ids
    assert ids.tolist() == [[ABSENT] * 3, [2, 5, 0]]


def test_it_is_sampled_by_its_words_and_guided(run: Run) -> None:
    model, recipe = load(run), Recipe("ddim", steps=5)
    zero, three = (sample(model, 4, recipe, condition=f"a {word}") for word in ("zero", "three"))
    assert not torch.allclose(zero, three)
    torch.testing.assert_close(sample(model, 4, recipe), sample(model, 4, recipe, condition=WORDS.every().absent()))
    one = Recipe("ddim", steps=5, guidance=1.0)
    assert torch.equal(sample(model, 4, one, condition="a zero"), zero)
    guided = sample(model, 4, Recipe("ddim", steps=5, guidance=3.0), condition="a zero")
    assert not torch.allclose(guided, zero)
    with pytest.raises(UserError, match="no word 'thre'; did you mean 'three'"):
        sample(model, 4, recipe, condition="a thre")


def test_guidance_is_between_the_two_predictions(run: Run) -> None:
    model = load(run)
    x, t = torch.randn(2, *model.shape), torch.tensor([0.3, 0.8], dtype=torch.float64)
    words = WORDS.parse("small two")
    assert words is not None
    given = words.take(torch.tensor([0, 0]))
    guided = Recipe(guidance=2.5, range="free").denoiser(model.denoiser, model.codec)(x, t, given)
    with_words, without = model.denoiser(x, t, given), model.denoiser(x, t, None)
    torch.testing.assert_close(guided.eps, without.eps.lerp(with_words.eps, 2.5), atol=1e-5, rtol=0)
