"""Denoisers: the contract that every one keeps, the network's time, clipping, and dynamic thresholding."""

from __future__ import annotations

import math
import pickle
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pytest
import torch

from sfumato.diffusion.denoiser import Clipped, Denoiser, NetworkDenoiser, Thresholded
from sfumato.diffusion.grid import trailing
from sfumato.diffusion.noise import Noise
from sfumato.diffusion.oracle import FiniteOracle, GaussianOracle, MixtureOracle
from sfumato.diffusion.parameterization import PARAMETERIZATIONS
from sfumato.diffusion.prediction import Prediction
from sfumato.diffusion.samplers import DDIM, DPMSolver
from sfumato.diffusion.samplers.protocol import sample
from sfumato.diffusion.schedule import Cosine, Linear

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


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_half_precision_images_leave_the_time_as_it_is(half: torch.dtype) -> None:
    """bfloat16 has no 514: it would become 512."""
    seen = []

    def net(x: torch.Tensor, time: torch.Tensor, condition: object) -> torch.Tensor:
        seen.append(time)
        return x

    NetworkDenoiser(net, Linear(), PARAMETERIZATIONS["v"])(torch.zeros(2, 1, 2, 2, dtype=half), 515 / 1000)
    assert seen[0].tolist() == [514.0, 514.0]


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


def test_the_noise_is_computed_once_and_only_where_it_is_read() -> None:
    calls = []

    def noise() -> torch.Tensor:
        calls.append(1)
        return images()

    prediction = replace(Prediction(images(), noise), x0=2 * images())
    first = prediction.eps
    assert torch.equal(first, images())
    assert prediction.eps is first
    assert len(calls) == 1
    unread = Prediction(images(), lambda: images())
    assert torch.equal(pickle.loads(pickle.dumps(unread)).eps, images()), "a file holds the tensor"
    with pytest.raises(TypeError, match="eps"):
        Prediction(images())  # type: ignore[call-arg]

    def never() -> torch.Tensor:
        raise AssertionError("dpmpp-2 reads the image only")

    @dataclass(frozen=True)
    class Silent:
        schedule: Cosine = SCHEDULE

        def __call__(self, x_t: torch.Tensor, t: torch.Tensor | float, condition: object = None) -> Prediction:
            return Prediction(x_t, never)

    times = trailing(4, SCHEDULE)
    sample(Clipped(Silent()), DPMSolver(), times, Noise(0, torch.arange(2), (1, 4, 4)))
    with pytest.raises(AssertionError, match="dpmpp-2"):
        sample(Silent(), DDIM(), times, Noise(0, torch.arange(2), (1, 4, 4)))


@pytest.mark.parametrize("name", PARAMETERIZATIONS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_one_time_for_all_rows_has_the_bits_of_a_time_a_row(name: str, dtype: torch.dtype) -> None:
    seen = []

    def net(x: torch.Tensor, time: torch.Tensor, condition: object) -> torch.Tensor:
        seen.append(time)
        return (0.3 * x.float() + time[:, None, None, None] / 1e4).to(x.dtype)

    denoiser, x_t = NetworkDenoiser(net, SCHEDULE, PARAMETERIZATIONS[name]), images(3).to(dtype)
    rows = denoiser(x_t, torch.tensor([T, T, T], dtype=torch.float64))
    for count in (3, 3, 2):  # computed, kept, of another batch
        one = denoiser(x_t[:count], T)
        assert torch.equal(one.x0, rows.x0[:count])
        assert torch.equal(one.eps, rows.eps[:count])
        assert torch.equal(seen[-1], seen[0][:count])
    assert not torch.equal(denoiser(x_t, T / 2).x0, rows.x0)


# Dynamic thresholding, against numpy's percentile

T = 0.4


@dataclass(frozen=True)
class Says:
    """Predicts x0 = factor times its input, whatever that is."""

    factor: float
    schedule: Cosine = SCHEDULE

    def __call__(self, x_t: torch.Tensor, t: torch.Tensor | float, condition: object = None) -> Prediction:
        raw = Prediction(x_t, x_t, torch.full_like(x_t, 0.25))
        return raw.with_x0(self.factor * x_t, x_t, self.schedule(t))


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 1, 2), (1,), (7, 5)])
@pytest.mark.parametrize("percentile", [0.1, 0.5, 0.9, 0.995, 1.0])
@pytest.mark.parametrize("ceiling", [math.inf, 2.5])
def test_it_is_the_papers(shape: tuple[int, ...], percentile: float, ceiling: float) -> None:
    x_t = images(6, shape, seed=2)
    got = Thresholded(Says(2.0), percentile, ceiling)(x_t, T)
    for x, one in zip(2.0 * x_t.numpy(), got.x0.numpy(), strict=True):
        s = min(max(1.0, np.quantile(np.abs(x), percentile)), ceiling)
        assert np.allclose(one, np.clip(x, -s, s) / s, atol=1e-12)
    level = SCHEDULE(T)
    assert torch.allclose(level.alpha * got.x0 + level.sigma * got.eps, x_t, atol=1e-12)
    assert float(got.x0.abs().max()) <= 1.0
    assert got.fraction is not None
    assert float(got.fraction.unique()) == 0.25


def test_inside_the_range_it_changes_nothing() -> None:
    x_t = images(4, (3, 8, 8), seed=3).clamp(-1, 1)
    plain, got = Says(1.0)(x_t, T), Thresholded(Says(1.0))(x_t, T)
    assert torch.equal(got.x0, plain.x0)
    assert torch.allclose(got.eps, plain.eps, atol=1e-12)


def test_a_ceiling_of_one_is_clipping() -> None:
    x_t = images(4, (3, 8, 8), seed=4)
    assert torch.equal(Thresholded(Says(3.0), ceiling=1.0)(x_t, T).x0, Clipped(Says(3.0))(x_t, T).x0)


def test_images_do_not_share_their_scale() -> None:
    x_t = images(2, (3, 8, 8), seed=5) * torch.tensor([0.1, 9.0])[:, None, None, None]
    got = Thresholded(Says(1.0))(x_t, T)
    assert torch.equal(got.x0[0], x_t[0])
    assert not torch.allclose(got.x0[1], x_t[1].clamp(-1, 1), atol=0.1)


def test_half_precision_and_large_images() -> None:
    x_t = images(1, (3, 64, 64)).bfloat16()
    got = Thresholded(Says(2.0))(x_t, T).x0
    assert got.dtype == torch.bfloat16
    assert float((got.double() - Thresholded(Says(2.0))(x_t.double(), T).x0).abs().max()) < 0.02


def test_impossible_percentiles_and_ceilings_are_refused() -> None:
    for percentile in (0.0, 1.01, 99.5, math.nan):
        with pytest.raises(ValueError, match=r"0\.995"):
            Thresholded(Says(1.0), percentile)
    for ceiling in (0.99, math.nan):
        with pytest.raises(ValueError, match="1 or more"):
            Thresholded(Says(1.0), ceiling=ceiling)
