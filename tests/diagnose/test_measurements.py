"""Measurements of exact oracles, whose figures are known before they are measured."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from sfumato.conditions.attributes import Attribute
from sfumato.conditions.table import Attributes
from sfumato.conditions.vocabulary import AttributeVocabulary
from sfumato.config.config import Config
from sfumato.config.data import DataConfig
from sfumato.config.diffusion import DiffusionConfig
from sfumato.data import Dataset, open_data
from sfumato.diagnose.measurements import Bench, permuted
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
from sfumato.generate.recipe import Recipe
from sfumato.model import Model
from tests.codec.haar import HaarConfig
from tests.conditions.tokens import Words


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return open_data(DataConfig("digits"), tmp_path_factory.mktemp("cache"))


def network(oracle: Denoiser, space: Parameterization):
    """A network that knows what the oracle knows, and gives it in the space of a parameterisation."""

    def net(x, time, condition):
        t = (time.double() + 1) / oracle.schedule.num_steps
        prediction = oracle(x, t)
        return target(space, prediction.x0, prediction.eps, oracle.schedule, t)

    return net


def bench(
    data: Dataset, oracle: Denoiser, predicts: str, declared: str | None = None, num: int = 16, haar: bool = False
) -> Bench:
    """A bench with a network that predicts one parameterisation and whose header may declare another."""
    declared = declared or predicts
    space = PARAMETERIZATIONS[declared]
    denoiser = NetworkDenoiser(network(oracle, PARAMETERIZATIONS[predicts]), oracle.schedule, space)
    config = replace(Config(), diffusion=DiffusionConfig(parameterization=declared))
    codec = (HaarConfig() if haar else config.codec).build(data.format, data.shape)
    model = Model(torch.nn.Linear(1, 1), config, denoiser, codec, None)  # type: ignore[arg-type]
    return Bench(Target(model, data, True), num, 0, lambda done, total: None)


def trivial(data: Dataset, schedule: Schedule, haar: bool = False) -> GaussianOracle:
    probe = bench(data, GaussianOracle(schedule, torch.zeros(1), torch.ones(1)), "x0", haar=haar).probe
    return GaussianOracle(schedule, probe.mean, probe.variance)


def sampled(it: Bench, steps: int, from_data: bool = False, **options: str) -> torch.Tensor:
    return it.sample(it.model, Recipe(steps=steps, **options).resolve(it.model), None, from_data)


@pytest.mark.parametrize("haar", [False, True])
@pytest.mark.parametrize(("predicts", "declared"), [("v", "v"), ("eps", "v"), ("x0", "eps"), ("v", "x0")])
def test_the_trivial_guess_has_the_trivial_error(digits: Dataset, predicts: str, declared: str, haar: bool) -> None:
    it = bench(digits, trivial(digits, Cosine(), haar), predicts, declared, haar=haar)
    right = it.reading(it.model.denoiser, "ema", predicts, None)
    assert [level.ratio for level in right.levels] == pytest.approx([1] * 10, rel=1e-3)
    assert right.levels[4].t == pytest.approx(0.45)
    assert len(right.levels[4].bias) == 1, "of the image's channels, not of x_0's"
    if predicts != declared:
        assert it.reading(it.model.denoiser, "ema", declared, None).middle > 1.3


def test_a_constant_in_the_output_is_found_as_bias(digits: Dataset) -> None:
    schedule = Cosine()
    narrow = GaussianOracle(schedule, torch.zeros(1), torch.full((1,), 0.01))  # nothing is clipped at high noise
    it = bench(digits, narrow, "x0")
    inner = it.model.denoiser.net
    shifted = NetworkDenoiser(lambda *asked: inner(*asked) + 0.25, schedule, PARAMETERIZATIONS["x0"])
    plain, moved = (it.reading(d, "ema", "x0", None) for d in (it.model.denoiser, shifted))
    for a, b in zip(plain.levels[6:], moved.levels[6:], strict=True):
        assert b.bias[0] - a.bias[0] == pytest.approx(0.25, abs=1e-5)
    middle = moved.levels[7]
    assert middle.constant == pytest.approx(middle.bias[0] ** 2 / middle.error)
    centred = replace(moved, levels=(middle,)).centred
    assert centred == pytest.approx((middle.error - middle.bias[0] ** 2) / middle.trivial)


@pytest.mark.parametrize("haar", [False, True])
def test_a_memoriser_beats_the_guess_on_its_images_and_samples_copies(digits: Dataset, haar: bool) -> None:
    codec = bench(digits, GaussianOracle(Cosine(), torch.zeros(1), torch.ones(1)), "x0", haar=haar).codec
    train = codec.encode(digits.rows(torch.from_numpy(digits.train))[0])
    it = bench(digits, FiniteOracle(Cosine(), train), "x0", num=12, haar=haar)
    found, data = it.compare(sampled(it, 20), "ema", 20), it.data(None)
    assert found.nearest < 0.01
    assert found.finite == 1
    assert data.nearest is not None
    assert found.nearest < 0.1 * data.nearest
    assert abs(found.distance) < 0.05
    assert len(found.statistics.mean) == len(data.statistics.mean) == 1


def test_samples_share_their_noise(digits: Dataset) -> None:
    oracle = trivial(digits, Cosine())
    few, many = (bench(digits, oracle, "v", num=n) for n in (3, 5))
    a, b = (sampled(it, 5) for it in (few, many))
    assert torch.allclose(a, b[:3], atol=1e-6)
    assert float(sampled(few, 5, range="free").abs().max()) > float(a.abs().max())


def test_a_start_from_data_keeps_what_the_chain_leaves_of_it(digits: Dataset) -> None:
    schedule = Constant(num_steps=20, beta=1e-5)  # next to no noise at its end
    it = bench(digits, trivial(digits, schedule), "x0", num=4)
    assert float((sampled(it, 20, from_data=True) - it.pixels[:4]).abs().mean()) < 0.1
    assert float((sampled(it, 20) - it.pixels[:4]).abs().mean()) > 0.3


@pytest.mark.parametrize("haar", [False, True])
def test_the_leak_at_the_end_is_the_divergence_by_hand(digits: Dataset, haar: bool) -> None:
    schedule = Constant(num_steps=20, beta=0.001)
    it = bench(digits, trivial(digits, schedule, haar), "x0", haar=haar)
    found = it.process()
    abar = (1 - 0.05) ** 20  # the betas are scaled by 1000 / T
    square = it.pixels.double().square().flatten(1).sum(1).mean()  # an orthonormal transform keeps it
    nats = 0.5 * (abar * float(square) + 64 * ((1 - abar) - 1 - math.log(1 - abar)))
    assert found.leak_bits == pytest.approx(nats / math.log(2))
    assert found.alpha_end == pytest.approx(math.sqrt(abar))
    assert found.sigma_first == pytest.approx(math.sqrt(0.05))


NAMES = tuple("abcdefghij")
SHUFFLED = torch.arange(40).remainder(10)[torch.randperm(40, generator=torch.Generator().manual_seed(0))]


@pytest.mark.parametrize(
    ("vocabulary", "condition"),
    [
        (AttributeVocabulary((Attribute("class", NAMES),)), Attributes(SHUFFLED[:, None].float())),
        (words := Words(NAMES, 1), words.every().take(SHUFFLED)),
    ],
)
def test_permuted_conditions_are_the_same_on_other_images(vocabulary, condition) -> None:
    texts = vocabulary.describe(condition)
    others = vocabulary.describe(permuted(condition, texts))
    assert sorted(others) == sorted(texts)
    assert all(a != b for a, b in zip(texts, others, strict=True))
