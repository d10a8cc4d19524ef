from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from torch import Tensor

from sfumato.codec.format import SIXTEEN
from sfumato.codec.pixels import to_bytes, to_model
from sfumato.data import Dataset
from sfumato.diffusion import DDIM, Cosine, FiniteOracle, GaussianOracle, Noise, sample, trailing
from sfumato.errors import UserError
from sfumato.evaluate import contact_sheet, find_memorised, memorisation, open_extractor
from sfumato.evaluate.cache import split_rows
from sfumato.evaluate.memorisation import Memorisation, NearestDistances, binomial_tail, mann_whitney, tail_chance

from .conftest import blurred

SCHEDULE = Cosine(1000)


@pytest.fixture(scope="module")
def clothes(fashion: Dataset) -> Dataset:
    """Fewer of them, so that a test is quick."""
    return replace(fashion, train=fashion.train[::5])


def rows(data: Dataset, index: np.ndarray) -> Tensor:
    return torch.tensor(data.images[index])


def found(data: Dataset, generated: Tensor, cache: Path, name: str = "classifier") -> Memorisation:
    return find_memorised(data, generated, open_extractor(name, data.shape), cache)


@pytest.mark.parametrize("planted", [True, False])
def test_a_planted_memoriser_is_flagged_and_a_gaussian_fitted_to_the_data_is_not(
    planted: bool, clothes: Dataset, cache: Path
) -> None:
    x = to_model(rows(clothes, clothes.train))
    oracle = FiniteOracle(SCHEDULE, x) if planted else GaussianOracle(SCHEDULE, x.mean(0), x.var(0))
    noise = Noise(0, torch.arange(60), clothes.shape)
    result = found(clothes, to_bytes(sample(oracle, DDIM(), trailing(20, SCHEDULE), noise)), cache)
    assert result.memorised == planted
    assert [space.space for space in result.spaces] == ["pixels", "classifier-fashion"]
    copies = "60 of 60 generated images are equal to one" if planted else "none of 60 generated images is equal to one"
    assert result.sentence.startswith(
        f"{'the model repeats' if planted else 'no sign that the model repeats'} training images: {copies}"
    )
    assert re.search(
        r"suspiciously close to a single one \(by \S+\); without memorisation about \d would be", result.sentence
    )
    assert ("; by chance so many are with probability" in result.sentence) == planted
    assert result.copies == planted
    if not planted:
        assert max(space.auc[0] for space in result.spaces) < 0.5
        return
    assert result.near_copies == 1
    for space in result.spaces:
        assert space.median_ratio < 0.01
        assert space.auc == (1.0, pytest.approx(0, abs=1e-12))
        assert bool(space.flagged.all())
        assert set(space.row.tolist()) <= set(clothes.train.tolist())


@pytest.mark.parametrize("name", ["fashion", "faces"])
def test_unseen_images_are_not_flagged_sharp_or_blurred(name: str, request: pytest.FixtureRequest, cache: Path) -> None:
    """Blurred images are nearer to all images than sharp ones, which distance alone would take for memorising."""
    data: Dataset = request.getfixturevalue(name)
    unseen, reference = rows(data, data.held_out[::2]), replace(data, held_out=data.held_out[1::2])
    extractor = "classifier" if name == "fashion" else "pixels"
    for images in (unseen, blurred(unseen)):
        result = found(reference, images, cache, extractor)
        assert not result.memorised, result.sentence
    assert result.spaces[0].median_ratio < 0.95


@pytest.mark.parametrize("kind", ["noisy", "few"])
def test_partial_memorising_is_flagged(clothes: Dataset, cache: Path, kind: str) -> None:
    if kind == "noisy":  # training images with noise of 20 levels: none is a copy
        images = rows(clothes, clothes.train[:60]).float()
        images = (images + 20 * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 255)
    else:  # one image in twenty is a copy
        images = torch.cat((rows(clothes, clothes.held_out[:114]), rows(clothes, clothes.train[:6]))).float()
    result = found(clothes, images.byte(), cache)
    assert result.memorised, result.sentence
    assert result.copies == (0 if kind == "noisy" else 6 / 120)


def test_distances_are_what_they_are_called(clothes: Dataset) -> None:
    generated = rows(clothes, clothes.held_out[:5])
    space = find_memorised(clothes, generated).spaces[0]
    train = clothes.images[clothes.train].astype(float)
    table = np.sqrt(((generated.numpy()[:, None].astype(float) - train) ** 2).mean((2, 3, 4)))
    near = np.sort(table, 1)[:, :11]
    np.testing.assert_allclose(space.distance, near[:, 0], rtol=1e-10)
    np.testing.assert_array_equal(space.row, clothes.train[table.argmin(1)])
    np.testing.assert_allclose(space.ratio, near[:, 0] / near[:, 1:].mean(1), rtol=1e-10)


def test_distances_of_held_out_images_and_of_sixteen_bits_are_in_the_same_units(clothes: Dataset) -> None:
    few = replace(clothes, train=clothes.train[:200], held_out=clothes.held_out[:30])
    generated = rows(clothes, clothes.held_out[40:50])
    eight = find_memorised(few, generated)
    unseen = clothes.images[split_rows(few, "held_out").numpy(), None].astype(float)
    table = np.sqrt(((unseen - clothes.images[few.train].astype(float)) ** 2).mean((2, 3, 4)))
    np.testing.assert_allclose(eight.spaces[0].held_out_distance, table.min(1), rtol=1e-10)
    deep = replace(few, images=np.asarray(clothes.images, np.uint16) * np.uint16(257), format=SIXTEEN)
    sixteen = find_memorised(deep, torch.from_numpy(generated.numpy().astype(np.uint16) * np.uint16(257)))
    for name in ("distance", "held_out_distance"):
        torch.testing.assert_close(getattr(sixteen.spaces[0], name), getattr(eight.spaces[0], name))


def test_rows_in_the_space_of_features_are_those_of_different_images(clothes: Dataset, cache: Path) -> None:
    """Repeated images are left out of both spaces alike, so that the copies are found by both."""
    index = np.concatenate([np.repeat(clothes.train[:40], 2), clothes.held_out[:20]])
    images, digests = clothes.images[index], tuple(clothes.digests[row] for row in index)
    many = replace(clothes, images=images, digests=digests, train=np.arange(80), held_out=np.arange(80, 100))
    pixels, features = found(many, torch.tensor(images[:80:8]), cache).spaces
    assert (pixels.row // 2).tolist() == (features.row // 2).tolist() == list(range(0, 40, 4))


def test_the_line_is_the_first_hundredth_of_the_held_out_images() -> None:
    ratio = torch.arange(1.0, 301.0).flip(0) / 300
    space = NearestDistances("pixels", ratio, torch.arange(300), torch.tensor([2.5, 3.0, 3.5]) / 300, ratio, ratio)
    assert space.line == (pytest.approx(3 / 300), 3)
    assert space.flagged.tolist() == [True, False, False]


def test_copies_among_the_training_images_do_not_hide_a_copy(clothes: Dataset) -> None:
    """Each image twenty times over: its nearest neighbours are all itself, and a copy of it still stands out."""
    index = np.concatenate([np.tile(clothes.train[:40], 20), clothes.held_out])
    images, digests = clothes.images[index], tuple(clothes.digests[row] for row in index)
    many = replace(clothes, images=images, digests=digests, train=np.arange(800), held_out=np.arange(800, len(images)))
    result = find_memorised(many, torch.tensor(images[:40]))
    assert result.memorised
    assert float(result.spaces[0].ratio.max()) == 0
    assert result.copies_p > 0.3, "data that repeat themselves make copies no wonder"


def test_one_copy_is_a_finding_where_no_two_training_images_are_equal(clothes: Dataset) -> None:
    """Among many samples neither its chance nor the tail would say so; where the data repeat themselves it is none."""
    samples = rows(clothes, clothes.held_out[:144]).clone()
    samples[77] = rows(clothes, clothes.train[5:6])[0]
    result = find_memorised(clothes, samples)
    assert result.copies_p == pytest.approx(1 - (1 - 1 / (len(clothes.train) + 1)) ** 144)
    assert result.copies_p > memorisation.LINE
    assert result.copied == (77,)
    assert result.repeated == 0
    assert result.memorised
    assert result.sentence.startswith(
        "the model repeats training images: 1 of 144 generated images is equal to one (number 78), though no two "
        "training images are equal; "
    )
    assert json.loads(json.dumps(result.to_dict()))["copied"] == [77]
    digests = list(clothes.digests)
    digests[clothes.train[1]] = digests[clothes.train[0]]
    twice = find_memorised(replace(clothes, digests=tuple(digests)), samples)
    assert twice.repeated == 2
    assert not twice.memorised


@pytest.mark.parametrize(("generated", "held_out", "rank"), [(3, 4, 1), (3, 4, 2), (4, 3, 3)])
def test_the_tails_chance_counts_orders(generated: int, held_out: int, rank: int) -> None:
    before = []
    for order in set(permutations("g" * generated + "h" * held_out)):
        line = [place for place, kind in enumerate(order) if kind == "h"][rank - 1]
        before.append(order[:line].count("g"))
    for least in range(generated + 1):
        expected = sum(number >= least for number in before) / len(before)
        assert tail_chance(least, generated, rank, held_out) == pytest.approx(expected, abs=1e-12)


def test_auc_and_its_chance_are_scipys() -> None:
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(0)
    for low, high in (
        (rng.normal(size=40), rng.normal(size=30) + 0.5),
        (rng.integers(0, 6, 50).astype(float), rng.integers(1, 7, 35).astype(float)),  # with ties
        (np.zeros(5), np.zeros(7)),
    ):
        auc, chance = mann_whitney(torch.tensor(low), torch.tensor(high))
        assert auc == pytest.approx((high[None] > low[:, None]).mean() + (high[None] == low[:, None]).mean() / 2)
        if np.ptp(np.concatenate((low, high))) > 0:
            other = stats.mannwhitneyu(low, high, alternative="less", method="asymptotic", use_continuity=False)
            assert chance == pytest.approx(other.pvalue, rel=1e-9)


def test_the_binomial_tail_is_a_sum() -> None:
    for least in range(8):
        expected = sum(math.comb(7, k) * 0.3**k * 0.7 ** (7 - k) for k in range(least, 8))
        assert binomial_tail(least, 7, 0.3) == pytest.approx(expected)


def test_the_verdict_is_rarely_wrong_without_memorising() -> None:
    """Ratios of one distribution: below the line as often as the test says, at most."""
    rng, wrong = np.random.default_rng(0), 0
    for _ in range(400):
        line = np.sort(rng.normal(size=200))[1]
        wrong += tail_chance(int((rng.normal(size=300) < line).sum()), 300, 2, 200) < 0.05
    assert wrong < 400 * 0.05 + 3 * (400 * 0.05 * 0.95) ** 0.5


def test_the_summary_is_json_and_the_sheet_shows_the_copies(
    clothes: Dataset, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generated = torch.cat((rows(clothes, clothes.held_out[:20]), rows(clothes, clothes.train[3:5])))
    result = found(clothes, generated, cache)
    facts = json.loads(json.dumps(result.to_dict()))
    assert facts["num_generated"] == 22
    assert facts["copies"] == pytest.approx(2 / 22)
    assert [space["space"] for space in facts["spaces"]] == ["pixels", "classifier-fashion"]
    strip = Mock(wraps=memorisation.strip)
    monkeypatch.setattr(memorisation, "strip", strip)
    assert contact_sheet(clothes, generated, result, num=5, columns=2).width > 0
    bands = strip.call_args.args[0]
    assert [len(row) for row in bands] == [2] * 6, "two full bands of three rows; the fifth image would leave a gap"
    assert np.array_equal(np.sort(bands[0], 0), np.sort(clothes.images[clothes.train[3:5]], 0)), "the copies come first"
    assert np.array_equal(bands[0], bands[1])
    assert np.array_equal(bands[0], bands[2])
    second = result.spaces[0].row[result.spaces[0].ratio.argsort()[2:4]]
    assert np.array_equal(bands[4], clothes.images[second.numpy()])


def test_nothing_to_compare_with_is_one_line(clothes: Dataset) -> None:
    three = rows(clothes, clothes.train[:3])
    for data, generated, message in (
        (replace(clothes, held_out=clothes.held_out[:0]), three, "'held_out' of fashion is empty"),
        (clothes, three.expand(-1, 3, -1, -1), "the generated images are 3x28x28 and those of fashion 1x28x28"),
        (replace(clothes, train=clothes.train[:2]), three, "2 different training and 3 generated images are too few"),
    ):
        with pytest.raises(UserError, match=message):
            find_memorised(data, generated)
