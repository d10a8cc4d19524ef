from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sfumato.data import Dataset
from sfumato.errors import UserError
from sfumato.evaluate import (
    compare,
    extract,
    frechet_distance,
    kid,
    open_extractor,
    prdc,
    quality,
    split_rows,
)

from .conftest import blurred, images_of
from .targets import normal

SMALL = open_extractor("pixels", (1, 2, 2))


def noisy(images: Tensor, levels: float) -> Tensor:
    z = torch.randn(images.shape, generator=torch.Generator().manual_seed(1))
    return (images.float() + levels * z).clamp(0, 255).round().byte()


@pytest.mark.parametrize(("source", "name"), [("fashion", "classifier"), ("fashion", "pixels"), ("faces", "pixels")])
@pytest.mark.parametrize(("spoilt", "steps"), [(noisy, (0, 15, 30, 60)), (blurred, (0, 2, 4, 8))])
def test_distances_grow_with_noise_and_blur(source, name, spoilt, steps, request: pytest.FixtureRequest) -> None:
    data: Dataset = request.getfixturevalue(source)
    extractor = open_extractor(name, data.shape)
    images, real = images_of(data, 1, 300), extract(extractor, [images_of(data, 4, 300)])
    features = [extract(extractor, [spoilt(images, step)]) for step in steps]
    for metric in (frechet_distance, kid):
        values = [metric(real, ours).value for ours in features]
        assert all(less < more for less, more in pairwise(values)), f"{metric.__name__} {values}"


def test_a_measurement_carries_what_it_depends_on() -> None:
    real, generated = normal(100, 4), normal(30, 4, seed=1) + 0.5
    found = {m.name: m for m in compare(real, generated, SMALL)}
    names = "frechet kid precision recall density coverage sliced-wasserstein"
    assert list(found) == names.split(), "frechet-shrunk is for fewer images than features"
    fid = found["frechet"]
    assert fid.value == frechet_distance(real[:30], generated).value
    assert fid.baseline == frechet_distance(real[:30], real[30:60]).value
    four = prdc(real[:30], generated)
    assert {name: found[name].value for name in four} == {name: value.value for name, value in four.items()}
    assert four["precision"].value != four["recall"].value, "real images come first"
    assert (fid.num_real, fid.num_generated, fid.baseline_num) == (30, 30, 30)
    assert (fid.extractor, fid.extractor_sha256, fid.recipe) == ("pixels", SMALL.sha256, SMALL.recipe)
    for m in found.values():
        assert m.low is not None
        assert m.high is not None
        assert m.error
        assert m.low <= m.value <= m.high
        assert m.error > 0
        assert m.notes == ()
        table = json.loads(json.dumps(m.to_dict()))
        assert (table["value"], table["floor"], table["floor_num"]) == (m.value, m.baseline, 30)


def test_the_same_question_has_the_same_answer() -> None:
    real, generated = normal(60, 4), normal(30, 4, seed=1)
    first, again, other = (compare(real, generated, SMALL, seed=seed) for seed in (3, 3, 4))
    assert first == again != other


def test_few_real_images_make_a_smaller_baseline_which_is_said() -> None:
    for num, baseline, note in ((40, 20, "the baseline compares 20 with 20"), (9, 0, "no baseline: 9 real images")):
        (found,) = compare(normal(num, 4), normal(30, 4, seed=1), SMALL, ["kid"])
        assert (found.num_real, found.num_generated, found.baseline_num) == (min(num, 30), 30, baseline)
        assert (found.baseline is None) == (baseline == 0)
        assert note in found.notes[0]


def test_fewer_images_than_features_are_said_and_shrinking_offered() -> None:
    shrunk, plain, *_ = compare(normal(80, 64), normal(40, 64, seed=1), open_extractor("pixels", (1, 8, 8)))
    assert (shrunk.name, plain.name) == ("frechet-shrunk", "frechet")
    for words in ("40 images are fewer than the 64 features", "biased upwards", "frechet-shrunk"):
        assert words in plain.notes[0]
    assert shrunk.notes == ()
    assert shrunk.value < plain.value / 2, "the bias is most of the distance of two equal distributions"


GOOD, SPOILT = normal(20, 4), normal(20, 4).index_fill(0, torch.tensor(3), torch.inf)


@pytest.mark.parametrize(
    ("real", "generated", "metric", "message"),
    [
        (GOOD, GOOD, "fid", "no metric 'fid'; did you mean 'kid'"),
        (GOOD, SPOILT, "kid", "not finite for image 3"),
        (GOOD, normal(20, 5), "kid", r"shape \(20, 5\), but pixels makes 4 numbers"),
        (GOOD, GOOD[:1], "kid", "kid: the sets have 1 and 1 images; at least 2"),
        (GOOD[:0], GOOD, "kid", "kid: the sets have 0 and 20 images; at least 2"),
        (GOOD, GOOD[:4], "prdc", "4 and 4 images; at least 6"),
    ],
)
def test_what_cannot_be_measured_is_one_line(real: Tensor, generated: Tensor, metric: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        compare(real, generated, SMALL, [metric])
    assert "\n" not in str(caught.value)


def test_quality_is_of_the_split_asked_for(fashion: Dataset, cache: Path) -> None:
    extractor = open_extractor("classifier", fashion.shape)
    generated = noisy(images_of(fashion, 0, 40), 10)
    (found,) = quality(fashion, generated, extractor, "held_out", ["kid"], cache=cache)
    held_out = extract(extractor, [torch.tensor(fashion.images[split_rows(fashion, "held_out").numpy()[:80]])])
    assert found.value == pytest.approx(kid(held_out[:40], extract(extractor, [generated])).value, rel=1e-4)
    assert found.baseline == pytest.approx(kid(held_out[:40], held_out[40:]).value, rel=1e-3, abs=1e-5)


def test_whole_sets_are_compared_by_all_but_those_that_need_equal_numbers() -> None:
    real, ours = normal(60, 4), normal(100, 4, seed=1)
    for first, second in ((real, ours), (ours, real)):
        found = {m.name: m for m in compare(first, second, SMALL, ["frechet", "prdc"], whole=True)}
        assert found["frechet"].value == pytest.approx(frechet_distance(first, second).value)
        assert (found["frechet"].num_real, found["frechet"].num_generated) == (len(first), len(second))
        assert (found["recall"].num_real, found["recall"].num_generated) == (60, 60)
        assert found["recall"].value == prdc(first[:60], second[:60])["recall"].value
    assert [m.better for m in compare(real, ours, SMALL, ["kid", "prdc"])] == ["lower", *["higher"] * 4]
