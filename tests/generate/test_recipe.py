"""Words become a denoiser, a sampler and times, or one clear line."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sfumato import resolve
from sfumato.codec.format import EIGHT
from sfumato.codec.pixels import Pixels
from sfumato.conditions.table import Attributes
from sfumato.diffusion import (
    DDIM,
    GRIDS,
    SAMPLERS,
    AutoGuided,
    Clipped,
    GaussianOracle,
    Guided,
    Large,
    Linear,
    Noise,
    Optimal,
    Prediction,
    Thresholded,
    trailing,
)
from sfumato.diffusion import sample as diffuse
from sfumato.diffusion.condition import Condition
from sfumato.diffusion.denoiser import Counted, Wrapped
from sfumato.diffusion.grid import grid_for
from sfumato.errors import UserError
from sfumato.generate.recipe import AUTO, AUTO_STEPS, FITTED_ON, VISIBLE_STEPS, Recipe, takes
from sfumato.generate.sample import evaluations
from sfumato.model import Model, load, save

TINY = {"net.base": "8", "net.groups": "4", "net.multipliers": "1,2", "net.blocks": "1"}
CODEC = Pixels(EIGHT, (1, 8, 8))
ORACLE = GaussianOracle(Linear(), torch.tensor(0.2), torch.tensor(0.1))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    config = resolve("small8", overrides=TINY)
    path: Path = tmp_path_factory.mktemp("weights") / "a.safetensors"
    save(path, config.net.build(config.interface(1)).state_dict(), config, CODEC)
    return load(path)


@pytest.mark.parametrize("name", ["auto", *SAMPLERS])
@pytest.mark.parametrize("grid", [None, *GRIDS, "fitted"])
def test_every_sampler_and_grid_is_resolved_and_built(name: str, grid: str | None, model: Model) -> None:
    recipe = Recipe(name, grid=grid, steps=6).resolve(model)
    assert recipe.sampler in SAMPLERS
    assert recipe.resolve(model) == recipe, "resolved is resolved"
    sampler, times = recipe.build(), recipe.times(recipe.denoiser(ORACLE, CODEC), (1, 8, 8))
    assert len(times) == 7
    assert float(times[-1]) == 0
    if recipe.grid != "fitted":
        assert torch.equal(times, grid_for(sampler, str(recipe.grid), 6, ORACLE.schedule))


def test_auto_is_what_was_measured(model: Model) -> None:
    v = replace(model, config=replace(model.config, diffusion=replace(model.config.diffusion, parameterization="v")))
    for quality, steps in AUTO_STEPS.items():
        recipe, other = Recipe(quality=quality).resolve(model), Recipe(quality=quality).resolve(v)
        assert (recipe.sampler, recipe.steps, recipe.grid) == (AUTO, VISIBLE_STEPS[quality], "visible")
        assert (other.sampler, other.steps, other.grid) == (AUTO, steps, "logsnr")
        assert Recipe(quality=quality, grid="karras").resolve(model).steps == steps, "a whole grid, as other models'"
        assert Recipe(quality=quality, grid="visible").resolve(v).steps == VISIBLE_STEPS[quality]
    assert Recipe(steps=7).resolve(model).steps == 7


def test_options_reach_what_they_name(model: Model) -> None:
    assert Recipe("ddim", eta=0.5).resolve(model).build() == DDIM(0.5)
    assert Recipe("ddim").resolve(model).build() == DDIM(0.0)
    assert Recipe("ddpm", variance="large").resolve(model).build().variance == Large()  # type: ignore[attr-defined]
    optimal = Optimal(ORACLE.posterior_variance)
    analytic = Recipe("ddpm", variance="analytic").resolve(model)
    assert analytic.build(optimal).variance is optimal  # type: ignore[attr-defined]
    with pytest.raises(AssertionError, match="measured"):
        analytic.build()


def test_guidance_is_inside_what_keeps_the_range() -> None:
    clipped = Recipe(guidance=2.0, interval=(0.1, 0.9), rescale=0.5).denoiser(ORACLE, CODEC)
    assert clipped == Clipped(Guided(ORACLE, 2.0, (0.1, 0.9), 0.5), CODEC.clip)
    assert Recipe(range="threshold").denoiser(ORACLE, CODEC) == Thresholded(ORACLE)
    assert Recipe(range="free").denoiser(ORACLE, CODEC) is ORACLE
    assert Recipe(guidance=3.0, range="free").denoiser(ORACLE, CODEC, ORACLE) == AutoGuided(ORACLE, ORACLE, 3.0)
    within = Recipe(guidance=3.0, interval=(0.1, 0.9), range="free").denoiser(ORACLE, CODEC, ORACLE)
    assert within == AutoGuided(ORACLE, ORACLE, 3.0, (0.1, 0.9))
    with pytest.raises(UserError, match="the same schedule"):
        Recipe(guidance=3.0).denoiser(ORACLE, CODEC, replace(ORACLE, schedule=Linear(100)))


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe("heun", steps=5),
        Recipe("pndm", steps=8, grid="trailing", guidance=2.0),
        Recipe("ddim", steps=5, grid="trailing", guidance=2.0, interval=(0.3, 0.9)),
        Recipe("ddim", steps=5, guidance=0.0),
    ],
)
def test_evaluations_are_those_that_the_sampler_asks_for(recipe: Recipe, model: Model) -> None:
    recipe, calls = recipe.resolve(model), list[int]()
    times = recipe.times(ORACLE, (1, 8, 8))
    denoiser = recipe.denoiser(Counted(ORACLE, calls.append), CODEC)
    diffuse(denoiser, recipe.build(), times, Noise(0, torch.arange(1), (1, 8, 8)), Attributes(torch.zeros(1, 1)))
    count = evaluations(recipe, recipe.build(), ORACLE.schedule, times)
    assert count == sum(calls) <= recipe.build().evaluations * recipe.steps * (1 + (recipe.guidance > 1))


def test_a_fitted_grid_is_fitted_to_the_order_and_the_model() -> None:
    ddim, second = (Recipe(name, steps=5, grid="fitted").times(ORACLE, (1, 2, 2)) for name in ("ddim", "dpmpp-2"))
    assert not torch.equal(ddim, second)
    assert not torch.equal(ddim, trailing(5, ORACLE.schedule))
    assert torch.equal(ddim, Recipe("ddim", steps=5, grid="fitted").times(ORACLE, (1, 2, 2))), "a function of the model"


@dataclass(frozen=True)
class Labelled(Wrapped):
    """A denoiser that keeps the labels that it was given."""

    seen: set[tuple[float, ...]]

    def __call__(self, x_t: Tensor, t: Tensor | float, condition: Condition | None = None) -> Prediction:
        assert isinstance(condition, Attributes)
        self.seen.add(tuple(condition.table[:, 0].tolist()))
        return self.denoiser(x_t, t, condition)


def test_a_grid_is_fitted_to_the_conditions_that_are_asked_for() -> None:
    labelled, condition = Labelled(ORACLE, set()), Attributes(torch.tensor([[0.0], [1.0], [2.0]]))
    Recipe("ddim", steps=5, grid="fitted").times(labelled, (1, 2, 2), condition)
    assert labelled.seen == {tuple(float(n % 3) for n in range(FITTED_ON))}


def test_facts_leave_out_what_has_no_effect(model: Model) -> None:
    assert Recipe("ddim", steps=4).resolve(model).describe() == {
        "sampler": "ddim", "steps": 4, "grid": "visible", "eta": 0.0, "range": "clip",
    }  # fmt: skip
    facts = Recipe("unipc", steps=4, guidance=2.0, interval=(0.2, 0.8)).resolve(model).describe()
    assert facts["guidance"] == 2.0
    assert facts["interval"] == [0.2, 0.8]
    assert "eta" not in facts
    assert "rescale" not in facts


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"sampler": "dpmpp2"}, "did you mean 'dpmpp-2'"),
        ({"grid": "karas"}, "did you mean 'karras'"),
        ({"range": "clipped"}, "did you mean 'clip'"),
        ({"steps": 0}, "steps is 0"),
        ({"sampler": "heun", "eta": 0.5}, "eta belongs to ddim"),
        ({"sampler": "ddim", "eta": -0.5}, "eta is -0.5"),
        ({"sampler": "ddim", "eta": 1.5}, "eta is 1.5"),
        ({"sampler": "ddim", "eta": float("nan")}, "eta is nan"),
        ({"sampler": "unipc", "variance": "small"}, "variance belongs to ddpm"),
        ({"guidance": -0.5}, "guidance is -0.5"),
        ({"guidance": float("nan")}, "guidance is nan: give a number of 0 or more"),
        ({"guidance": float("inf")}, "guidance is inf"),
        ({"guidance": 2.0, "rescale": 1.5}, "rescale is 1.5"),
        ({"rescale": 0.5}, "belong to guidance"),
        ({"guidance": 2.0, "interval": (0.5, 0.5)}, "the lower first"),
    ],
)
def test_what_cannot_be_is_one_line(given: dict[str, object], said: str) -> None:
    with pytest.raises(UserError, match=said):
        Recipe(**given)  # type: ignore[arg-type]


def test_what_this_model_cannot_do_is_one_line(model: Model) -> None:
    with pytest.raises(UserError, match="steps is 1001"):
        Recipe("ddim", steps=1001).resolve(model)
    with pytest.raises(UserError, match="learned no variance"):
        Recipe("ddpm", variance="learned").resolve(model)


def test_takes_knows_the_samplers_options() -> None:
    assert [name for name in SAMPLERS if takes(name, "eta")] == ["ddim"]
    assert "ddpm" in [name for name in SAMPLERS if takes(name, "variance")]
    assert not takes("auto", "eta")


@pytest.mark.parametrize("sampler", ["ddim", "heun", "edm"])
def test_fitting_reports_its_evaluations_and_their_number(sampler: str) -> None:
    calls: list[tuple[int, int]] = []
    Recipe(sampler, steps=5, grid="fitted").times(
        ORACLE, (1, 2, 2), report=lambda done, total: calls.append((done, total))
    )
    (total,) = {total for _, total in calls}
    assert calls[-1] == (total, total)
    assert sorted(calls) == calls
    assert sum(done < total for done, total in calls) > 0.7 * total, "about as many as were foretold"
