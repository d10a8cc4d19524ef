from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sfumato.data import Dataset
from sfumato.errors import UserError
from sfumato.evaluate import compare, extract, frechet_distance, kid, open_extractor, quality, split_rows
from sfumato.evaluate.extractors import pixels

from .conftest import images_of
from .targets import normal

SMALL = pixels.open_features(Path(), (1, 2, 2))


def noisy(images: Tensor, levels: float) -> Tensor:
    z = torch.randn(images.shape, generator=torch.Generator().manual_seed(1))
    return (images.float() + levels * z).clamp(0, 255).round().byte()


def blurred(images: Tensor, times: float) -> Tensor:
    channels = images.shape[1]
    kernel = (torch.tensor([1.0, 2.0, 1.0])[:, None] * torch.tensor([1.0, 2.0, 1.0]) / 16).expand(channels, 1, 3, 3)
    x = images.float()
    for _ in range(int(times)):
        x = torch.nn.functional.conv2d(
            torch.nn.functional.pad(x, (1, 1, 1, 1), mode="replicate"), kernel, groups=channels
        )
    return x.round().byte()


@pytest.mark.parametrize(("source", "name"), [("fashion", "classifier"), ("fashion", "pixels"), ("faces", "pixels")])
@pytest.mark.parametrize(("spoil", "steps"), [(noisy, (0, 15, 30, 60)), (blurred, (0, 2, 4, 8))])
def test_distances_grow_with_noise_and_blur(
    source: str, name: str, spoil: object, steps: tuple[int, ...], request: pytest.FixtureRequest
) -> None:
    data: Dataset = request.getfixturevalue(source)
    extractor = open_extractor(name, data.shape)
    assert callable(spoil)
    images = images_of(data, 1, 300)
    real = extract(extractor, [images_of(data, 4, 300)])
    for measure in (frechet_distance, kid):
        values = [measure(real, extract(extractor, [spoil(images, step)])).value for step in steps]
        assert all(less < more for less, more in pairwise(values)), f"{measure.__name__} {values}"


def test_a_measure_carries_what_it_depends_on() -> None:
    real, generated = normal(100, 4), normal(30, 4, seed=1) + 0.5
    found = {m.name: m for m in compare(real, generated, SMALL)}
    assert set(found) == {
        "frechet", "kid", "precision", "recall", "density", "coverage", "sliced-wasserstein",
    }  # fmt: skip
    fid = found["frechet"]
    assert fid.value == frechet_distance(real[:30], generated).value
    assert fid.baseline == frechet_distance(real[:30], real[30:60]).value
    assert (fid.num_real, fid.num_generated, fid.baseline_num) == (30, 30, 30)
    assert (fid.extractor, fid.extractor_sha256, fid.recipe) == ("pixels", SMALL.sha256, SMALL.recipe)
    for measure in found.values():
        assert measure.low <= measure.value <= measure.high
        assert measure.error > 0
        assert measure.notes == ()
        assert json.loads(json.dumps(measure.to_dict()))["value"] == measure.value


def test_the_same_question_has_the_same_answer() -> None:
    real, generated = normal(60, 4), normal(30, 4, seed=1)
    assert compare(real, generated, SMALL, seed=3) == compare(real, generated, SMALL, seed=3)
    assert compare(real, generated, SMALL, seed=3) != compare(real, generated, SMALL, seed=4)


def test_few_real_images_make_a_smaller_baseline_which_is_said() -> None:
    (found,) = compare(normal(40, 4), normal(30, 4, seed=1), SMALL, ["kid"])
    assert (found.num_real, found.num_generated, found.baseline_num) == (30, 30, 20)
    assert "the baseline compares 20 with 20" in found.notes[0]
    (found,) = compare(normal(9, 4), normal(30, 4, seed=1), SMALL, ["kid"])
    assert (found.num_real, found.baseline, found.baseline_num) == (9, None, 0)
    assert "no baseline: 9 real images" in found.notes[0]


def test_fewer_images_than_features_are_said_and_shrinking_offered() -> None:
    extractor = pixels.open_features(Path(), (1, 8, 8))
    real, generated = normal(80, 64), normal(40, 64, seed=1)
    plain, shrunk = compare(real, generated, extractor, ["frechet", "frechet-shrunk"])
    assert "40 images are fewer than the 64 features" in plain.notes[0]
    assert "biased upwards" in plain.notes[0]
    assert "frechet-shrunk" in plain.notes[0]
    assert shrunk.notes == ()
    assert shrunk.value < plain.value / 2, "the bias is most of the distance of two equal distributions"


def test_what_cannot_be_measured_is_one_line() -> None:
    good, spoilt = normal(20, 4), normal(20, 4)
    spoilt[3, 2] = torch.inf
    for real, generated, measures, message in (
        (good, good, ["fid"], "no metric 'fid'; did you mean 'kid'"),
        (good, spoilt, ["kid"], "not finite for image 3"),
        (good, normal(20, 5), ["kid"], r"shape \(20, 5\), but pixels makes 4 numbers"),
        (good, good[:1], ["kid"], "1 generated images are too few"),
        (good[:0], good, ["kid"], "0 real images are too few"),
        (good, good[:4], ["prdc"], "4 and 4 images; at least 6"),
    ):
        with pytest.raises(UserError, match=message) as caught:
            compare(real, generated, SMALL, measures)
        assert "\n" not in str(caught.value)


def test_quality_looks_at_the_split_asked_for(fashion: Dataset, cache: Path) -> None:
    extractor = open_extractor("classifier", fashion.shape)
    generated = noisy(images_of(fashion, 0, 40), 10)
    (found,) = quality(fashion, generated, extractor, "held_out", ["kid"], cache=cache)
    rows = split_rows(fashion, "held_out").numpy()
    held_out = extract(extractor, [torch.tensor(fashion.images[rows[:80]])])
    assert found.value == pytest.approx(kid(held_out[:40], extract(extractor, [generated])).value, rel=1e-4)
    assert found.baseline == pytest.approx(kid(held_out[:40], held_out[40:]).value, rel=1e-3, abs=1e-5)
