"""Samples depend on (seed, index) and on nothing else."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from sfumato.conditions.table import Attributes
from sfumato.diffusion import (
    DDIM,
    SAMPLERS,
    Ancestral,
    Cosine,
    Denoiser,
    GaussianOracle,
    Noise,
    Prediction,
    Sampler,
    State,
    sample,
    trailing,
)
from sfumato.errors import UserError
from sfumato.generate.recipe import Recipe
from sfumato.generate.sample import Sampling

SHAPE = (2, 4, 4)
ORACLE = GaussianOracle(Cosine(100), torch.full((2, 1, 1), 0.3), torch.tensor(0.25))
TIMES = trailing(10, ORACLE.schedule)


def sampling(denoiser: Denoiser = ORACLE, sampler: Sampler = DDIM(0.5)) -> Sampling:
    return Sampling(Recipe(), denoiser, sampler, TIMES, SHAPE, torch.device("cpu"))


def images(denoiser: Denoiser = ORACLE, sampler: Sampler = DDIM(0.5), num: int = 13, **options: Any) -> Tensor:
    return torch.cat([x for _, x in sampling(denoiser, sampler).stream(num, 5, **options)])


@pytest.mark.parametrize("sampler", [DDIM(), DDIM(0.5), Ancestral()])
@pytest.mark.parametrize("batch", [1, 4, 13])
def test_an_image_is_the_same_in_any_batch(sampler: DDIM | Ancestral, batch: int) -> None:
    torch.testing.assert_close(images(sampler=sampler, batch=batch), images(sampler=sampler), atol=1e-6, rtol=0)


def test_the_walk_is_the_samplers_own() -> None:
    expected = sample(ORACLE, DDIM(0.5), TIMES, Noise(5, torch.arange(13), SHAPE))
    torch.testing.assert_close(images(), expected, atol=0, rtol=0)


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize(
    "options", [{}, {"guidance": 2.0}, {"guidance": 2.0, "interval": (0.25, 0.75)}, {"guidance": 0.0}]
)
def test_evaluations_are_those_that_are_made(name: str, options: dict[str, Any]) -> None:
    weights: list[int] = []
    whole, recipe = TIMES.numel() - 1, Recipe(**options)
    low, high = recipe.interval or (0.0, 1.0)

    @dataclass(frozen=True)
    class Counting:
        schedule: Any = ORACLE.schedule

        def __call__(self, x_t: Tensor, t: Any, condition: Any = None) -> Prediction:
            weights.append(2 if recipe.guidance == 2 and low < float(t) <= high else 1)
            return ORACLE(x_t, t)

    made = replace(sampling(Counting(), SAMPLERS[name]()), recipe=recipe)
    list(made.stream(1))
    assert made.evaluations == sum(weights)
    assert name != "heun" or len(weights) == 2 * whole - 2, (
        "Euler's at both ends: from near pure noise, and to the image"
    )


def test_first_says_where_in_the_seed_to_begin() -> None:
    parts = list(sampling().stream(6, 5, batch=4, first=7))
    assert [n for n, _ in parts] == [7, 11]
    torch.testing.assert_close(torch.cat([x for _, x in parts]), images()[7:13])


@dataclass(frozen=True)
class Small:
    """A denoiser on a device that holds `room` images."""

    room: int
    seen: list[int]
    message: str = "CUDA out of memory. Tried to allocate 2.00 GiB"
    schedule: Cosine = Cosine(100)

    def __call__(self, x_t: Tensor, t: Tensor | float, condition: Attributes | None = None) -> Prediction:
        self.seen.append(len(x_t))
        if len(x_t) > self.room:
            raise torch.OutOfMemoryError(self.message) if "CUDA" in self.message else RuntimeError(self.message)
        return ORACLE(x_t, t)


CPU_MESSAGE = "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory"


@pytest.mark.parametrize("message", [Small.message, CPU_MESSAGE])
def test_out_of_memory_halves_the_batch_and_changes_nothing(message: str) -> None:
    seen: list[int] = []
    torch.testing.assert_close(images(denoiser=Small(3, seen, message)), images(), atol=1e-6, rtol=0)
    assert sorted(set(seen), reverse=True) == [13, 6, 3, 1], "13 = 3 + 3 + 3 + 3 + 1"


def test_one_image_too_many_is_said() -> None:
    with pytest.raises(UserError, match="4x4 does not fit"):
        images(denoiser=Small(0, []))


def test_images_that_are_not_finite_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    """One pixel is enough."""
    images()
    assert caplog.messages == []

    def spoiled(noise: Noise) -> Tensor:
        x = noise.prior()
        x[noise.index % 5 == 2, 0, 0, 0] = math.nan
        return x

    images(start=spoiled, batch=4)
    (message,) = caplog.messages
    assert message.startswith("3 of 13 images are not finite numbers")


def test_other_errors_pass() -> None:
    @dataclass(frozen=True)
    class Broken(Small):
        def __call__(self, x_t: Tensor, t: Tensor | float, condition: Attributes | None = None) -> Prediction:
            raise RuntimeError("shapes can't be multiplied")

    with pytest.raises(RuntimeError, match="multiplied"):
        images(denoiser=Broken(0, []))


def test_conditions_go_with_their_images() -> None:
    @dataclass(frozen=True)
    class Labelled(Small):
        def __call__(self, x_t: Tensor, t: Tensor | float, condition: Attributes | None = None) -> Prediction:
            assert condition is not None
            x0 = condition.table[:, :1, None, None].expand_as(x_t)
            return Prediction(x0, x_t * 0)

    condition = Attributes(torch.tensor([[0.0, 7.0], [0.5, 7.0], [0.25, 7.0]]))
    # three fit into the memory, so batches of four are halved on the way
    x = images(denoiser=Labelled(3, []), condition=condition, batch=4, sampler=DDIM())
    torch.testing.assert_close(x[:, 0, 0, 0], torch.tensor([0, 0.5, 0.25] * 4 + [0]))
    later = images(denoiser=Labelled(3, []), condition=condition, sampler=DDIM(), num=2, first=4)
    torch.testing.assert_close(later[:, 0, 0, 0], torch.tensor([0.5, 0.25]))


def test_every_state_is_shown_the_prior_first() -> None:
    seen: list[tuple[int, int, float, int]] = []

    def note(first: int, state: State) -> None:
        seen.append((first, state.step, state.t, len(state.x)))

    images(num=5, batch=3, on_state=note)
    assert [s[:2] for s in seen] == [(first, step) for first in (0, 3) for step in range(11)]
    assert [s[2] for s in seen[:11]] == TIMES.tolist()
    assert [s[3] for s in seen] == [3] * 11 + [2] * 11


def test_progress_is_steps_of_all_images_the_prior_none() -> None:
    reported: list[tuple[int, int]] = []
    images(num=5, batch=3, report=lambda done, total: reported.append((done, total)))
    assert [done for done, _ in reported] == [*range(0, 31, 3), *range(30, 51, 2)]
    assert {total for _, total in reported} == {50}


def test_gradients_are_off_inside_and_untouched_outside() -> None:
    with torch.enable_grad():
        for _, x in sampling().stream(2, 0, batch=1):
            assert torch.is_grad_enabled()
            assert not x.requires_grad
