"""The measured variance: one function, by which the library, editing and evaluation sample alike."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from sfumato.conditions.table import Attributes
from sfumato.config.data import DataConfig
from sfumato.data import Dataset, open_data
from sfumato.diffusion import Noise, Prediction, marginal
from sfumato.diffusion.condition import Condition
from sfumato.diffusion.denoiser import Wrapped
from sfumato.generate.recipe import Recipe
from sfumato.generate.sample import UNCONDITIONAL, prepare, sample
from sfumato.generate.variance import MEASURED_ON, measure_errors, measured_times, measured_variance, training_rows
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
    assert torch.equal(sample(model, 3, recipe, seed=1, condition=UNCONDITIONAL), given)
    small = Recipe("ddpm", steps=5, variance="small")
    assert not torch.allclose(given, sample(model, 3, small, seed=1, condition=UNCONDITIONAL))


def test_it_is_measured_as_the_recipe_samples(model: Model, data: Dataset) -> None:
    """Clipped where images are clipped, and not where they are free."""
    errors = []
    for way in ("clip", "free"):
        sampler = prepare(model, Recipe("ddpm", steps=5, variance="analytic", range=way)).sampler
        errors.append(sampler.variance.posterior_variance.error)  # type: ignore[attr-defined]
        measured = measured_variance(model, data, clip=way == "clip")
        assert torch.equal(errors[-1], measured.posterior_variance.error)  # type: ignore[attr-defined]
    assert not torch.equal(*errors)


@dataclass(frozen=True)
class Watched(Wrapped):
    """A denoiser that keeps what it was asked."""

    seen: list[tuple[Tensor, Tensor]]

    def __call__(self, x_t: Tensor, t: Tensor | float, condition: Condition | None = None) -> Prediction:
        assert isinstance(condition, Attributes)
        self.seen.append((x_t, condition.table))
        return self.denoiser(x_t, t, condition)


def test_each_image_is_measured_with_its_condition_and_noise_of_its_own(model: Model, data: Dataset) -> None:
    watched, rows = Watched(model.denoiser, []), training_rows(data)[:6]
    measure_errors(model, watched, data, rows, torch.tensor([0.5]), batch=4)
    x_t, table = (torch.cat(parts) for parts in zip(*watched.seen, strict=True))
    values, condition = data.rows(rows)
    assert isinstance(condition, Attributes)
    assert torch.equal(table, condition.table)
    eps = Noise(0, torch.arange(6), model.shape).step(0)
    torch.testing.assert_close(x_t, marginal(model.codec.encode(values), model.schedule(0.5)).sample(eps))


def test_what_it_is_measured_on(model: Model, data: Dataset) -> None:
    rows, times = training_rows(data), measured_times(50)
    assert sorted(rows.tolist()) == data.train.tolist()
    assert len(rows) > MEASURED_ON
    assert torch.equal(rows, training_rows(data))
    steps = times * 50
    torch.testing.assert_close(steps, steps.round())
    assert (float(times[0]), float(times[-1])) == (0.02, 1.0)
    assert bool((times.diff() > 0).all())
