"""Measurements of exact oracles, whose figures are known before they are measured."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sfumato.codec.pixels import to_model
from sfumato.config.config import Config
from sfumato.config.data import DataConfig
from sfumato.config.diffusion import DiffusionConfig
from sfumato.data import Dataset, open_data
from sfumato.diagnose.measure import Bench, _process, _strangers, without
from sfumato.diffusion import (
    PARAMETERIZATIONS,
    Constant,
    Cosine,
    Denoiser,
    FiniteOracle,
    GaussianOracle,
    NetworkDenoiser,
    Parameterization,
    Schedule,
    target,
)
from sfumato.evaluate.target import Target
from sfumato.model import Model


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return open_data(DataConfig("digits"), tmp_path_factory.mktemp("cache"))


def network(oracle: Denoiser, space: Parameterization):
    """A network that knows what the oracle knows, and says it in the space of a parameterisation."""

    def net(x, time, condition):
        t = (time.double() + 1) / oracle.schedule.num_steps
        prediction = oracle(x, t)
        return target(space, prediction.x0, prediction.eps, oracle.schedule, t)

    return net


def bench(data: Dataset, oracle: Denoiser, said: str, declared: str | None = None, num: int = 16) -> Bench:
    """A bench with a network that predicts `said` and whose header says `declared`."""
    declared = declared or said
    denoiser = NetworkDenoiser(network(oracle, PARAMETERIZATIONS[said]), oracle.schedule, PARAMETERIZATIONS[declared])
    config = replace(Config(), diffusion=DiffusionConfig(parameterization=declared))
    model = Model(torch.nn.Identity(), config, denoiser, data.shape, (), 0, "ema", Path("none"))  # type: ignore[arg-type]
    return Bench(Target(model, data, True), num, 0, lambda done, total: None)


def trivial(data: Dataset, schedule: Schedule) -> GaussianOracle:
    probe = bench(data, GaussianOracle(schedule, torch.zeros(1), torch.ones(1)), "x0").probe
    return GaussianOracle(schedule, probe.mean, probe.variance)


@pytest.mark.parametrize(("said", "declared"), [("v", "v"), ("eps", "v"), ("x0", "eps"), ("v", "x0")])
def test_the_pixel_by_pixel_guess_is_its_own_yardstick(digits: Dataset, said: str, declared: str) -> None:
    it = bench(digits, trivial(digits, Cosine()), said, declared)
    denoiser = it.subject.model.denoiser
    right = it.reading(denoiser, "ema", said, None)
    assert [level.ratio for level in right.levels] == pytest.approx([1] * 10, rel=1e-3)
    assert right.levels[4].t == pytest.approx(0.45)
    if said != declared:
        assert it.reading(denoiser, "ema", declared, None).middle > 1.3


def test_a_constant_in_the_output_is_found_as_bias(digits: Dataset) -> None:
    schedule = Cosine()
    narrow = GaussianOracle(
        schedule, torch.zeros(1), torch.full((1,), 0.01)
    )  # so that nothing is clipped at high noise
    it = bench(digits, narrow, "x0")
    inner = it.subject.model.denoiser.net
    shifted = NetworkDenoiser(lambda *asked: inner(*asked) + 0.25, schedule, PARAMETERIZATIONS["x0"])
    plain, moved = (it.reading(d, "ema", "x0", None) for d in (it.subject.model.denoiser, shifted))
    for a, b in zip(plain.levels[6:], moved.levels[6:], strict=True):
        assert b.bias[0] - a.bias[0] == pytest.approx(0.25, abs=1e-5)
    middle = moved.levels[7]
    assert middle.biased == pytest.approx(middle.bias[0] ** 2 / middle.error)
    assert middle.freed == pytest.approx((middle.error - middle.bias[0] ** 2) / middle.trivial)


def test_a_memoriser_beats_the_guess_on_its_images_and_draws_copies(digits: Dataset) -> None:
    train = to_model(digits.gather(torch.from_numpy(digits.train))[0])
    it = bench(digits, FiniteOracle(Cosine(), train), "x0", num=12)
    images = it.images(it.subject.model.denoiser, 20, None)
    drawn = it.draw(images, "ema", 20)
    assert drawn.nearest < 0.01
    assert drawn.finite == 1
    assert it.data(None).nearest is not None
    assert drawn.nearest < 0.1 * (it.data(None).nearest or 0)
    assert abs(drawn.apart) < 0.05


def test_draws_share_their_noise(digits: Dataset) -> None:
    oracle = trivial(digits, Cosine())
    few, many = (bench(digits, oracle, "v", num=n) for n in (3, 5))
    a, b = (it.images(it.subject.model.denoiser, 5, None) for it in (few, many))
    assert torch.allclose(a, b[:3], atol=1e-6)
    free = few.images(few.subject.model.denoiser, 5, None, clip=False)
    assert float(free.abs().max()) > float(a.abs().max())


def test_a_start_from_data_keeps_what_the_chain_leaves_of_it(digits: Dataset) -> None:
    schedule = Constant(num_steps=20, beta=1e-5)  # next to no noise at its end
    it = bench(digits, trivial(digits, schedule), "x0", num=4)
    images = it.images(it.subject.model.denoiser, 20, None, from_data=True)
    assert float((images - it.reference[:4]).abs().mean()) < 0.1
    assert float((it.images(it.subject.model.denoiser, 20, None) - it.reference[:4]).abs().mean()) > 0.3


def test_the_leak_at_the_end_is_the_divergence_by_hand(digits: Dataset) -> None:
    schedule = Constant(num_steps=20, beta=0.001)
    it = bench(digits, trivial(digits, schedule), "x0")
    found = _process(it, it.subject.model)
    abar = (1 - 0.05) ** 20  # the betas are scaled by 1000 / T
    square = it.reference.double().square().flatten(1).sum(1).mean()
    nats = 0.5 * (abar * float(square) + 64 * ((1 - abar) - 1 - math.log(1 - abar)))
    assert found.leak_bits == pytest.approx(nats / math.log(2))
    assert found.alpha_end == pytest.approx(math.sqrt(abar))
    assert found.sigma_first == pytest.approx(math.sqrt(0.05))


def test_strangers_are_the_same_labels_on_other_images() -> None:
    condition = torch.arange(40).remainder(10).float()[torch.randperm(40, generator=torch.Generator().manual_seed(0))]
    condition = condition[:, None]
    other = _strangers(condition)
    assert sorted(other.flatten().tolist()) == sorted(condition.flatten().tolist())
    assert bool((other != condition).all())


def test_nothing_given_is_nan() -> None:
    assert bool(without(torch.zeros(3, 2)).isnan().all())
