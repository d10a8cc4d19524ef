"""The measured variance: one function, by which the library, editing and evaluation sample alike."""

from __future__ import annotations

import pytest
import torch

from sfumato.config.data import DataConfig
from sfumato.data import Dataset, open_data
from sfumato.generate.recipe import Recipe
from sfumato.generate.sample import prepare, sample
from sfumato.generate.variance import MEASURED_ON, measured_times, measured_variance, training_rows
from sfumato.model import Model, load
from sfumato.run.folder import Run
from sfumato.train import train
from tests.train.conftest import tiny


@pytest.fixture(scope="module")
def data() -> Dataset:
    return open_data(DataConfig("digits", labels="source"))


@pytest.fixture(scope="module")
def model(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Model:
    run = Run(tmp_path_factory.mktemp("variance") / "run")
    list(train(tiny(train__images="64"), run, data))
    return load(run)


def test_a_recipe_that_says_analytic_measures_it_on_the_models_own_images(model: Model, data: Dataset) -> None:
    recipe = Recipe("ddpm", steps=5, variance="analytic")
    measured = prepare(model, recipe, variance=measured_variance(model, data))
    given = torch.cat([x for _, x in measured.stream(3, 1)])
    assert torch.equal(sample(model, 3, recipe, seed=1), given)
    assert not torch.allclose(given, sample(model, 3, Recipe("ddpm", steps=5, variance="small"), seed=1))


def test_what_it_is_measured_on(model: Model, data: Dataset) -> None:
    rows, times = training_rows(data), measured_times(50)
    assert sorted(rows.tolist()) == data.train.tolist()
    assert len(rows) > MEASURED_ON
    assert torch.equal(rows, training_rows(data))
    steps = times * 50
    torch.testing.assert_close(steps, steps.round())
    assert (float(times[0]), float(times[-1])) == (0.02, 1.0)
    assert bool((times.diff() > 0).all())
