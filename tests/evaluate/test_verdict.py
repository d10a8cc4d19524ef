"""The verdict: features that see grain, a distance that does not depend on how many images there are, and its words."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import Tensor

from sfumato.data import Dataset
from sfumato.evaluate import open_extractor, prdc
from sfumato.evaluate.extractors import wavelets
from sfumato.evaluate.measurement import verdict
from sfumato.evaluate.metrics.energy import energy_distance
from sfumato.evaluate.need import CLOSE, MEASURED, needed, typical
from sfumato.evaluate.verdict import STEPS, WORDS, Distance, Verdict, grade, judge_pixels, rounded

from .conftest import blurred, images_of, random_bytes
from .targets import normal


def noised(images: Tensor, levels: float) -> Tensor:
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(5))
    return (images.float() + levels * noise).clamp(0, 255).byte()


# The distance


def test_the_energy_distance_is_its_definition() -> None:
    x, y = normal(7, 3), normal(5, 3, seed=1) + 0.5
    within = [torch.pdist(z).double().mean() for z in (x, y)]
    expected = 1 - (within[0] + within[1]) / (2 * torch.cdist(x, y).double().mean())
    assert energy_distance(x, y).value == pytest.approx(float(expected), abs=1e-6)


def test_it_is_zero_on_average_for_one_distribution_whatever_the_numbers_and_one_for_two_points() -> None:
    for num in (4, 30):
        values = [energy_distance(normal(num, 5, seed=s), normal(6, 5, seed=s + 500)).value for s in range(200)]
        mean, error = sum(values) / 200, torch.tensor(values).std() / 200**0.5
        assert abs(mean) < 3 * error
    assert energy_distance(torch.zeros(4, 2), torch.ones(3, 2)).value == 1
    assert energy_distance(torch.zeros(4, 2), torch.zeros(3, 2)).value == 0


def test_influences_are_what_more_of_an_image_changes() -> None:
    """The distance of weighted sets, differentiated: image i of weight (1 + h) among all."""
    x, y = normal(6, 2).double(), normal(5, 2, seed=1).double() + 1

    def weighted(p: Tensor, q: Tensor) -> Tensor:
        def within(z: Tensor, w: Tensor) -> Tensor:
            pairs = w[:, None] * w
            pairs = pairs - torch.diag(pairs.diagonal())
            return (pairs * torch.cdist(z, z)).sum() / pairs.sum()

        between = (p[:, None] * q * torch.cdist(x, y)).sum() / (p.sum() * q.sum())
        return 1 - (within(x, p) + within(y, q)) / (2 * between)

    p, q = (torch.ones(n, dtype=torch.float64, requires_grad=True) for n in (6, 5))
    gradients = torch.autograd.grad(weighted(p, q), (p, q))
    for psi, gradient in zip(energy_distance(x, y).influences, gradients, strict=True):
        torch.testing.assert_close(psi - psi.mean(), len(psi) * gradient)


def test_the_interval_has_the_width_of_chance() -> None:
    draws = [energy_distance(normal(60, 4, seed=s), normal(60, 4, seed=s + 900) + 0.7) for s in range(150)]
    true = float(torch.tensor([draw.value for draw in draws]).std())
    interval = draws[0].interval()
    assert interval is not None
    assert interval.error == pytest.approx(true, rel=0.3)


# The features


def test_noise_has_its_own_strength_at_the_first_scale_and_flat_images_the_floor() -> None:
    noise = 0.5 * torch.randn(200, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    parts = wavelets.parts(wavelets.features(noise), (1, 16, 16))
    scale = math.sqrt(sum(wavelets.sizes((1, 16, 16))) / parts["detail"].shape[1])
    first = parts["detail"][:, :48] / scale
    # the log of a mean of few pixels is a little low
    assert float(first.mean()) == pytest.approx(math.log(math.hypot(0.5, wavelets.FLOOR)), abs=0.06)
    flat = wavelets.parts(wavelets.features(torch.full((1, 1, 16, 16), 0.3)), (1, 16, 16))
    assert float(flat["detail"].max()) == pytest.approx(scale * math.log(wavelets.FLOOR), abs=1e-5)


def test_the_layout_is_the_means_of_cells() -> None:
    x = random_bytes(3, 3, 32, 32)
    layout = wavelets.parts(wavelets.features(x.float() / 127.5 - 1), (3, 32, 32))["layout"]
    cells = (x.float() / 127.5 - 1).unflatten(2, (8, 4)).unflatten(4, (8, 4)).mean((3, 5)).flatten(1)
    ratio = layout / cells
    torch.testing.assert_close(ratio, torch.full_like(ratio, float(ratio[0, 0])), rtol=1e-3, atol=0)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (2, 3, 50), (1, 1, 40), (1, 2, 2), (1, 1, 1), (9, 20, 20)])
def test_any_shape_has_features_of_the_stated_number(shape: tuple[int, int, int]) -> None:
    found = open_extractor("wavelets", shape)
    assert found(random_bytes(2, *shape)).shape == (2, found.dim)
    assert found.dim == sum(wavelets.sizes(shape))


def test_coloured_noise_does_not_have_the_precision_of_images(fashion: Dataset) -> None:
    """Means of blocks, as `pixels` takes them of large images, hide it: nearly all such noise lies in some ball."""
    real = images_of(fashion, 0, 120).repeat(1, 3, 2, 2)  # 3x56x56: blocks of 4x4
    mean = real.float().mean(0, keepdim=True).expand(120, -1, -1, -1)
    noise = noised(mean, 100)
    found = {name: open_extractor(name, (3, 56, 56)) for name in ("pixels", "wavelets")}
    precision = {name: prdc(e(real), e(noise))["precision"].value for name, e in found.items()}
    assert precision["pixels"] > 0.9
    assert precision["wavelets"] < 0.1
    assert open_extractor(None, (3, 56, 56)).name == "wavelets"
    assert "finer than that are not seen" in (found["pixels"].blind or "")
    assert open_extractor("pixels", (3, 8, 8)).blind is None


# The verdict


def test_real_images_noise_blur_and_a_mean_have_their_words(faces: Dataset) -> None:
    real = images_of(faces, 3, 64)
    mean = real.float().mean(0, keepdim=True).expand(64, -1, -1, -1)
    sets = {"real": real, "grainy": noised(real, 30), "blurred": blurred(real, 2), "noise": noised(mean, 60)}
    found = {name: verdict(faces, images) for name, images in sets.items()}
    grades = {name: judged.grade for name, judged in found.items() if judged is not None}
    assert grades == {"real": 0, "grainy": 3, "blurred": 4, "noise": 4}
    for judged in found.values():
        assert judged is not None
        assert judged.words.startswith(WORDS[judged.grade])
        assert judged.distance.baseline is not None
        assert abs(judged.distance.baseline) < 0.005
    assert "far from the data in detail: distance 0.0" in found["grainy"].sentence  # type: ignore[union-attr]


def test_the_worse_view_decides_and_is_named() -> None:
    low, high = Distance(0.001, 0.0, 0.002, 0.0), Distance(0.05, 0.04, 0.06, None)
    layout, detail = Verdict(high, low, 64), Verdict(low, high, 64)
    assert (layout.words, detail.words) == ("far from the data in layout", "far from the data in detail")
    assert Verdict(high, high, 64).words == "far from the data in layout and detail"
    assert Verdict(high, None, 64).words == "far from the data"
    assert Verdict(low, low, 64).words == "indistinguishable from the data"
    assert detail.sentence.startswith("far from the data in detail: distance 0.050 [0.040, 0.060] (from 0.02 on")
    assert json.loads(json.dumps(detail.to_dict()))["grade"] == 3


def test_a_verdict_whose_interval_holds_a_limit_is_not_settled_and_says_how_many_images_would_settle_it() -> None:
    low = Distance(0.0, 0.0, 0.0, 0.0)
    far = Verdict(low, Distance(0.024, 0.014, 0.034, None), 64)
    assert (far.grade, far.least, far.words) == (3, 2, "some way from the data or far from it")
    assert far.settling == 820, "a half-width of 0.010, to be 0.004 / 1.43: 3.57^2 times as many"
    assert far.sentence == (
        "some way from the data or far from it (about 820 images would probably tell, 64 do not): distance 0.024 "
        "[0.014, 0.034] (below 0.01 it is close, from 0.02 on it is far, 1 is the most)"
    )
    assert Verdict(low, far.detail, 64, real=64).settling is None, "the real ones are too few"
    assert Verdict(low, Distance(0.013, 0.008, 0.022, None), 64).words == "close to the data or far from it"
    near = Verdict(low, Distance(0.0201, 0.019, 0.0212, None), 900)
    assert "far from it (too near the limit between the two for more images to tell): distance 0.020" in near.sentence
    close = Verdict(low, Distance(0.0101, 0.009, 0.0112, None), 900)
    assert close.sentence.startswith("close to the data or some way from it (too near the limit between the two for")
    assert [(each.least, each.worst) for each in (far, near, close)] == [(2, 3), (2, 3), (1, 2)]
    assert (near.to_dict()["settled"], near.to_dict()["settling"]) == (False, None)
    for interval in ((0.021, 0.0201, 0.03), (0.004, 0.001, 0.009), (0.1, 0.09, 0.11)):
        judged = Verdict(low, Distance(*interval, None), 64)
        assert " tell" not in judged.sentence
        assert " or " not in judged.sentence
        assert judged.to_dict()["settled"]


def test_advice_to_settle_a_verdict_ends() -> None:
    """Even where every new interval holds the limit again: at least twice as many are advised each time."""
    num: int | None = 64
    asked = []
    while num is not None:
        half = 0.005 * (64 / num) ** 0.5
        value = 0.02 - 0.95 * half
        open_ = Verdict(Distance(0.0, 0.0, 0.0, 0.0), Distance(value, value - half, value + half, None), num)
        assert open_.open_steps == [0.02]
        assert Verdict.from_dict(json.loads(json.dumps(open_.to_dict()))) == open_
        num = open_.settling
        asked.append(num)
    assert asked == [150, 340, 770, None]


def test_grades_begin_at_their_steps() -> None:
    assert [grade(step) for step in STEPS] == [1, 2, 3, 4]
    assert [grade(0.999 * step) for step in STEPS] == [0, 1, 2, 3]


def test_too_few_images_and_values_that_are_not_numbers() -> None:
    pixels = torch.rand(6, 1, 8, 8) * 2 - 1
    assert judge_pixels(pixels[:1], pixels) is None
    judged = judge_pixels(pixels, torch.full_like(pixels, torch.nan))
    assert judged is not None
    assert judged.grade == 4


# How much is needed


def test_a_run_needs_more_the_farther_its_samples_are() -> None:
    assert needed(3000, CLOSE) == needed(3000, 0.0) == 3000
    assert needed(3000, CLOSE * 2**0.8) == 6000
    assert needed(3000, 0.9) == 300_000, "at most a hundred times as many"
    assert [typical((1, s, s)) for s in (8, 16, 28, 32)] == [6000, 8000, 20_000, 20_000]
    assert typical((3, 2 * MEASURED, 2 * MEASURED)) == 80_000
    assert [rounded(n) for n in (7, 19_400, 20_000, 123_456)] == [7, 20_000, 20_000, 130_000]
