"""Denoisers: the contract that every one keeps, the network's time, and the clip."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from sfumato.diffusion import (
    PARAMETERIZATIONS,
    Clipped,
    Cosine,
    Denoiser,
    FiniteOracle,
    GaussianOracle,
    Linear,
    MixtureOracle,
    NetworkDenoiser,
)

from .common import images, random_function

SCHEDULE = Cosine(num_steps=100)
SHAPE = (2, 3, 5)
FOUR = images(4, SHAPE, seed=5)
DENOISERS: dict[str, Denoiser] = {
    **{f"network-{n}": NetworkDenoiser(random_function, SCHEDULE, p) for n, p in PARAMETERIZATIONS.items()},
    "gaussian": GaussianOracle(SCHEDULE, FOUR[0], FOUR[1].square()),
    "mixture": MixtureOracle(SCHEDULE, torch.tensor([1.0, 3.0, 2.0]), FOUR[:3], FOUR[1:].square()),
    "finite": FiniteOracle(SCHEDULE, FOUR),
}
DENOISERS["clipped"] = Clipped(DENOISERS["network-v"])
DENOISERS["clipped-oracle"] = Clipped(DENOISERS["mixture"], partial(torch.clamp, min=-0.5, max=0.5))
EVERY = pytest.mark.parametrize("denoiser", DENOISERS.values(), ids=DENOISERS.keys())


@EVERY
@pytest.mark.parametrize("t", [0.01, 0.5, 1.0])
def test_a_prediction_explains_its_input(denoiser: Denoiser, t: float) -> None:
    x_t = images(6, SHAPE, seed=7)
    level, prediction = denoiser.schedule(t).like(x_t), denoiser(x_t, t)
    assert torch.allclose(level.alpha * prediction.x0 + level.sigma * prediction.eps, x_t, atol=1e-9)


@EVERY
def test_examples_do_not_see_one_another(denoiser: Denoiser) -> None:
    x_t, t = images(5, SHAPE, seed=8), torch.tensor([0.1, 0.4, 1.0, 0.01, 0.7], dtype=torch.float64)
    together = denoiser(x_t, t)
    for i in range(5):
        alone = denoiser(x_t[i : i + 1], float(t[i]))
        assert torch.allclose(together.x0[i], alone.x0[0], atol=1e-10)
        assert torch.allclose(together.eps[i], alone.eps[0], atol=1e-10)


@EVERY
def test_dtype_is_the_images(denoiser: Denoiser) -> None:
    single = denoiser(images(2, SHAPE).float(), 0.5)
    assert single.x0.dtype == single.eps.dtype == torch.float32
    assert torch.allclose(single.x0.double(), denoiser(images(2, SHAPE).float().double(), 0.5).x0, atol=1e-4)


def test_a_network_sees_the_published_count_of_time() -> None:
    seen = []

    def net(x: torch.Tensor, time: torch.Tensor, condition: object) -> torch.Tensor:
        seen.append((time, condition))
        return x

    denoiser = NetworkDenoiser(net, Linear(num_steps=1000), PARAMETERIZATIONS["eps"])
    denoiser(torch.zeros(3, 1, 2, 2), torch.tensor([1 / 1000, 0.5, 1.0]), condition="a cat")
    assert torch.allclose(seen[0][0], torch.tensor([0.0, 499.0, 999.0]), atol=1e-4)
    assert seen[0][0].dtype == torch.float32
    assert seen[0][1] == "a cat"
    denoiser(torch.zeros(2, 1, 2, 2), 0.25)
    assert torch.allclose(seen[1][0], torch.tensor([249.0, 249.0]))


def test_clip_clamps_the_image_and_mends_the_noise() -> None:
    x_t = 3 * images(4, SHAPE, seed=9)
    raw, clipped = DENOISERS["network-v"](x_t, 0.6), DENOISERS["clipped"](x_t, 0.6)
    assert float(raw.x0.abs().max()) > 1
    assert torch.equal(clipped.x0, raw.x0.clamp(-1, 1))
    inside = raw.x0.abs() <= 1
    assert torch.allclose(clipped.eps[inside], raw.eps[inside], atol=1e-9)
    assert not torch.allclose(clipped.eps[~inside], raw.eps[~inside])
