"""SDEdit: its two exact ends, and the middle against the closed form on Gaussian data."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from sfumato.diffusion import Cosine, Noise, trailing
from sfumato.edit import vary
from sfumato.edit.vary import below
from sfumato.errors import UserError
from sfumato.generate.recipe import Recipe
from sfumato.generate.sample import sample

from .models import Known, image, white

MODEL, HAAR = white(), white(haar=True)
SCHEDULE = MODEL.schedule
X = image(MODEL.shape)
PLAIN, NOISY, DDPM = (
    Recipe(sampler, range="free", steps=20, grid="trailing", eta=eta)
    for sampler, eta in (("ddim", None), ("ddim", 0.5), ("ddpm", None))
)


def test_strength_0_is_the_image_itself() -> None:
    done = vary(MODEL, X, 0.0, 3, recipe=PLAIN)
    assert done.images.shape == (3, *MODEL.shape)
    assert (done.images == X).all()
    assert (done.t, done.steps) == (0.0, 0)


@pytest.mark.parametrize("model", [MODEL, HAAR])
@pytest.mark.parametrize("recipe", [PLAIN, DDPM, Recipe()])
def test_strength_1_is_plain_sampling_with_the_same_seed(model: Known, recipe: Recipe) -> None:
    done = vary(model, X, 1.0, 3, seed=7, recipe=recipe)
    assert torch.equal(done.images, model.codec.to_pixels(sample(model, 3, recipe, seed=7)))
    assert done.steps == 20


def test_the_default_of_a_short_chain_is_the_whole_chain() -> None:
    short = replace(MODEL, denoiser=replace(MODEL.denoiser, schedule=Cosine(10)))
    assert vary(short, X, 1.0, 2).steps == 10


@pytest.mark.parametrize("model", [MODEL, HAAR])
@pytest.mark.parametrize("strength", [0.1, 0.5, 0.8])
def test_between_it_is_the_flow_from_the_noised_image(strength: float, model: Known) -> None:
    """The flow of N(m, v) maps x_t to m + sqrt(v / (alpha^2 v + sigma^2)) (x_t - alpha m)."""
    done = vary(model, X, strength, 5, seed=2, recipe=replace(PLAIN, steps=500))
    abar = SCHEDULE(strength).abar.item()
    eps = model.codec.to_pixels(Noise(2, torch.arange(5), model.shape).prior())
    x_t = abar**0.5 * X + (1 - abar) ** 0.5 * eps
    expected = 0.2 + (0.3 / (abar * 0.3 + 1 - abar)) ** 0.5 * (x_t - abar**0.5 * 0.2)
    assert float((done.images - expected).abs().max()) < 0.01
    assert float((expected - X).abs().mean()) > 0.05, "it does something"


@pytest.mark.parametrize(
    ("strength", "t", "steps"), [(0.5, 0.5, 10), (0.52, 0.52, 11), (1e-9, 0.001, 1), (0.99999, 1, 20)]
)
def test_it_takes_the_grids_part_below(strength: float, t: float, steps: int) -> None:
    done = vary(MODEL, X, strength, 1, recipe=PLAIN)
    assert (done.t, done.steps) == (t, steps)


def test_below_keeps_the_grid_and_begins_at_t() -> None:
    times = trailing(4, SCHEDULE)
    assert below(times, 0.6).tolist() == [0.6, 0.5, 0.25, 0.0]
    assert below(times, 0.5).tolist() == [0.5, 0.25, 0.0]


@pytest.mark.parametrize("recipe", [PLAIN, NOISY, DDPM])
def test_any_batch_gives_the_same_images(recipe: Recipe) -> None:
    whole, parts = (vary(MODEL, X, 0.6, 5, seed=4, recipe=recipe, batch=n).images for n in (64, 2))
    torch.testing.assert_close(parts, whole, atol=1e-6, rtol=0)


def test_progress_is_reported_to_the_end() -> None:
    reported: list[tuple[int, int]] = []
    vary(MODEL, X, 0.5, 5, recipe=PLAIN, batch=2, report=lambda done, total: reported.append((done, total)))
    assert reported[-1] == (50, 50)
    assert reported == sorted(reported)


@pytest.mark.parametrize("strength", [-0.1, 1.1, float("nan")])
def test_other_strengths_are_refused(strength: float) -> None:
    with pytest.raises(UserError, match="must lie from 0"):
        vary(MODEL, X, strength)


def test_an_image_of_another_shape_is_refused() -> None:
    with pytest.raises(UserError, match="the image is 2x4x5, and the model's are 2x4x4"):
        vary(MODEL, torch.zeros(2, 4, 5), 0.5)
