"""An evaluation: the right numbers, the same however they were come by, and kept."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sfumato.config import Config
from sfumato.data import DataConfig, Dataset, to_model
from sfumato.diffusion import Cosine, FiniteOracle, GaussianOracle, Prediction, Schedule
from sfumato.errors import UserError
from sfumato.evaluate.evaluation import Evaluation, results
from sfumato.evaluate.settings import Settings
from sfumato.evaluate.subject import Subject, place
from sfumato.evaluate.words import words
from sfumato.evaluate.work import Work
from sfumato.nets import UNet, UNetConfig
from sfumato.weights import Model

SCHEDULE, SHAPE, STD = Cosine(num_steps=50), (1, 3, 4), 0.25
TRUTH = math.log2(127.5 * STD) + 0.5 * math.log2(2 * math.pi * math.e)  # entropy of the rounded Gaussian, fine bins
ORACLE = GaussianOracle(SCHEDULE, torch.zeros(SHAPE), torch.full(SHAPE, STD**2))


def gaussian_bytes(num: int, seed: int) -> Tensor:
    raw = STD * torch.randn(num, *SHAPE, generator=torch.Generator().manual_seed(seed))
    return ((raw + 1) * 127.5).round().clamp(0, 255).byte()


def dataset(images: Tensor, train: int, labels: list[int] | None = None, classes: tuple[str, ...] = ()) -> Dataset:
    """A data set in memory, its first images those that train."""
    return Dataset(
        config=DataConfig(source="digits", labels=labels is not None),
        source_name="digits",
        images=images.numpy(),
        labels=np.array(labels if labels is not None else [-1] * len(images)),
        classes=classes,
        origins=(),
        digests=tuple(hashlib.sha256(image.numpy().tobytes()).hexdigest() for image in images),
        train=np.arange(train),
        held_out=np.arange(train, len(images)),
        quarantined=[],
        notes=(),
    )


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What stands for a file of weights: only its hash is asked for."""
    path = tmp_path_factory.mktemp("weights") / "oracle.safetensors"
    path.write_bytes(b"an oracle")
    return path


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SFUMATO_CACHE", str(tmp_path / "cache"))


def subject(denoiser: Any, data: Dataset, file: Path) -> Subject:
    """An oracle in the place of a network."""
    config = Config(net=UNetConfig(1, base=8, multipliers=(1,), blocks=1, attention=(), groups=4))
    net = UNet(config.net)
    model = Model(net, config, denoiser, data.shape, data.classes, 1000, "ema", file)
    return Subject(model, data, own=True, device=torch.device("cpu"))


@pytest.fixture(scope="module")
def gaussian(file: Path) -> Subject:
    return subject(ORACLE, dataset(gaussian_bytes(600, 0), 300), file)


def measure(of: Subject, folder: Path, kind: str, batch: int = 64, **settings: Any) -> dict[str, Any]:
    return Evaluation(of, Settings(**settings), folder, batch).perform([kind])[kind]


# Bits


@pytest.mark.parametrize("method", ["vlb", "sampled", "flow"])
def test_the_oracles_bits_are_the_entropy_with_the_measured_variance(
    method: str, gaussian: Subject, tmp_path: Path
) -> None:
    total = measure(gaussian, tmp_path, "bits", method=method, variance="analytic", clip=False)["result"]["total"]
    assert abs(total["mean"] - TRUTH) < 1.5 * total["half_width"] + 0.01
    assert total["low"] < total["mean"] < total["high"]
    assert total["half_width"] < 0.3


@pytest.mark.parametrize("method", ["vlb", "sampled", "flow"])
def test_bits_depend_neither_on_the_batch_nor_on_an_interruption(
    method: str, gaussian: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"method": method, "num": 40, "steps": 10, "variance": "small"}
    whole = measure(gaussian, tmp_path / "whole", "bits", **settings)
    small = measure(gaussian, tmp_path / "small", "bits", batch=5, **settings)
    score, calls = Work._score, []

    def failing(self: Work, *arguments: Any) -> bytes:
        calls.append(arguments[0])
        if len(calls) == 2:
            raise KeyboardInterrupt
        return score(self, *arguments)

    monkeypatch.setattr(Work, "_score", failing)
    with pytest.raises(KeyboardInterrupt):
        measure(gaussian, tmp_path / "cut", "bits", **settings)
    resumed = measure(gaussian, tmp_path / "cut", "bits", **settings)
    assert calls == ["0", "1", "1"], "the first part was kept"
    assert whole["settings"] == small["settings"] == resumed["settings"]
    assert resumed["result"] == whole["result"]
    for name in ("mean", "half_width"):
        assert small["result"]["total"][name] == pytest.approx(whole["result"]["total"][name], rel=1e-4)


def test_more_images_go_on_from_fewer(gaussian: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh = measure(gaussian, tmp_path / "fresh", "bits", num=96)
    measure(gaussian, tmp_path, "bits", num=64)
    score, calls = Work._score, []
    monkeypatch.setattr(Work, "_score", lambda self, *a: calls.append(a[0]) or score(self, *a))
    assert measure(gaussian, tmp_path, "bits", num=96)["result"] == fresh["result"]
    assert calls == ["2"]


@dataclass(frozen=True)
class Told:
    """Knows the image from its label alone: all pixels at 40 + 50 label; without one, grey."""

    schedule: Schedule = SCHEDULE

    def __call__(self, x_t: Tensor, t: Tensor | float, condition: Tensor | None = None) -> Prediction:
        assert condition is not None
        assert len(condition) == len(x_t)
        grey = torch.where(condition < 0, 127, 40 + 50 * condition).byte()
        x0 = to_model(grey).reshape(-1, 1, 1, 1).expand_as(x_t)
        return Prediction(x0, x_t).with_x0(x0, x_t, self.schedule(t))


@pytest.fixture(scope="module")
def told(file: Path) -> Subject:
    labels = [n % 4 for n in range(200)] + [n % 3 for n in range(40)]
    images = (40 + 50 * torch.tensor(labels)).byte().reshape(-1, 1, 1, 1).expand(-1, *SHAPE).contiguous()
    return subject(Told(), dataset(images, 200, labels, ("a", "b", "c", "d")), file)


@pytest.mark.parametrize("batch", [64, 3])
@pytest.mark.parametrize("method", ["vlb", "sampled", "flow"])
def test_a_conditional_model_is_scored_with_each_images_own_label(
    method: str, batch: int, told: Subject, tmp_path: Path
) -> None:
    report = measure(told, tmp_path, "bits", batch=batch, method=method, num=40)
    assert report["result"]["images"] == 40
    # what the last noise level leaves to say costs 3.5 bits, and the steps before it nothing
    assert report["result"]["total"]["mean"] < 3.6
    assert method == "flow" or report["result"]["rate"]["mean"] < 1e-4
    assert "each image was scored given its own label" in report["notes"]


# Drawn images


def test_labels_are_drawn_in_the_training_images_proportions(told: Subject) -> None:
    labels = [0] * 120 + [1] * 60 + [2] * 20 + [3] * 100  # the last 100 are held out
    data = dataset(torch.zeros(300, *SHAPE, dtype=torch.uint8), 200, labels, told.data.classes)
    drawn = replace(told, data=data).labels(seed=5, first=0, count=4000)
    assert drawn is not None
    counts = torch.bincount(drawn, minlength=4)
    assert counts[3] == 0
    chi_squared = ((counts[:3] - torch.tensor([2400, 1200, 400])) ** 2 / torch.tensor([2400, 1200, 400])).sum()
    assert chi_squared < 13.8, "two degrees of freedom, p = 0.001"
    assert torch.equal(replace(told, data=data).labels(5, 1000, 500), drawn[1000:1500]), "each by its address"


def test_images_are_drawn_for_their_labels(told: Subject, tmp_path: Path) -> None:
    for batch in (64, 7):
        work = Evaluation(told, Settings(num=50, steps=3), tmp_path / str(batch), batch).work
        labels = told.labels(0, 0, 50)
        assert labels is not None
        assert torch.equal(work.images()[:, 0, 0, 0], 40 + 50 * labels)


def test_a_wrong_label_would_cost_much(told: Subject, tmp_path: Path) -> None:
    shifted = changed(told, labels=(told.data.labels + 1) % 4)
    for method in ("vlb", "flow"):
        assert measure(shifted, tmp_path, "bits", method=method, num=40)["result"]["total"]["mean"] > 20


def test_images_depend_on_what_they_should(gaussian: Subject, tmp_path: Path) -> None:
    def images(batch: int = 64, **settings: Any) -> Tensor:
        return Evaluation(gaussian, Settings(num=20, **settings), tmp_path / str(batch), batch).work.images()

    whole = images(steps=5)
    assert int((images(7, steps=5).int() - whole.int()).abs().max()) <= 1, "rounding"
    ways: list[dict[str, Any]] = [
        {"steps": 5},
        {"steps": 5, "seed": 1},
        {"steps": 5, "eta": 0.5},
        {"steps": 6},
        {"steps": 5, "sampler": "ddpm"},
        {"steps": 5, "sampler": "ddpm", "variance": "large"},
        {"steps": 5, "sampler": "ddpm", "variance": "analytic"},
    ]
    assert len({images(**way).numpy().tobytes() for way in ways}) == len(ways)


def test_analytic_ddpm_draws_the_right_spread_in_few_steps(gaussian: Subject, tmp_path: Path) -> None:
    """For Gaussian data the best variance makes the chain exact at any number of steps; the small one is too narrow.

    The last step adds no noise: it leaves E[x_0 | x_t], whose deviation is alpha STD^2 / sqrt(alpha^2 STD^2 + sigma^2).
    """

    def spread(variance: str) -> float:
        settings = Settings(num=400, steps=10, sampler="ddpm", variance=variance, clip=False)
        return float(to_model(Evaluation(gaussian, settings, tmp_path).work.images()).std())

    last = SCHEDULE(5 / 50)
    truth = float(last.alpha * STD**2 / (last.abar * STD**2 + last.sigma**2).sqrt())
    assert spread("analytic") == pytest.approx(truth, rel=0.04)
    assert spread("small") < 0.9 * truth


def test_the_oracle_is_as_good_as_its_floor(gaussian: Subject, tmp_path: Path) -> None:
    report = measure(gaussian, tmp_path, "quality", num=150, clip=False, steps=50)
    found = {one["name"]: one for one in report["result"]["measures"]}
    assert {"frechet", "kid", "precision", "recall", "density", "coverage", "sliced-wasserstein"} <= set(found)
    assert "frechet-shrunk" not in found, "there are more images than features"
    assert found["frechet"]["value"] < 2 * found["frechet"]["floor"]
    assert found["coverage"]["value"] > 0.85
    assert (found["kid"]["num_real"], found["kid"]["num_generated"]) == (150, 150)
    assert found["kid"]["extractor_sha256"] == report["settings"]["extractor"]["sha256"]
    held_out = measure(gaussian, tmp_path, "quality", num=150, clip=False, steps=50, real="held_out")
    assert held_out["file"] != report["file"]
    assert held_out["result"]["measures"] != report["result"]["measures"]


def test_few_images_get_the_shrunk_distance_and_a_warning(gaussian: Subject, tmp_path: Path) -> None:
    report = measure(gaussian, tmp_path, "quality", num=10, steps=5)
    assert report["result"]["measures"][0]["name"] == "frechet-shrunk"
    assert any("fewer than the 12 features" in note for note in report["notes"])


def test_a_planted_memoriser_is_flagged_and_the_oracle_is_not(gaussian: Subject, file: Path, tmp_path: Path) -> None:
    data = gaussian.data
    memory = FiniteOracle(SCHEDULE, to_model(torch.from_numpy(data.images[data.train])))
    planted = measure(subject(memory, data, file), tmp_path / "a", "memorisation", num=100)
    honest = measure(gaussian, tmp_path / "b", "memorisation", num=100, clip=False)
    assert planted["result"]["memorised"]
    assert planted["result"]["copies"] > 0.9
    assert not honest["result"]["memorised"]
    for report in (planted, honest):
        sheet = Path(report["file"]).with_name(report["result"]["contact_sheet"])
        assert sheet.read_bytes().startswith(b"\x89PNG")


# Results


def test_the_same_settings_are_answered_from_the_file(
    gaussian: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluation = Evaluation(gaussian, Settings(num=12, steps=4), tmp_path)
    calls, seconds = evaluation.forecast()
    # 12 images of 49 terms (all but the last) and the last, twice; 12 drawn in 4 steps
    assert calls == 12 * 50 * 2 + 12 * 4
    assert seconds > 0
    first = evaluation.perform()
    assert evaluation.forecast() == (0, 0.0)

    def refuse(*arguments: Any) -> None:
        raise AssertionError("nothing is left to do")

    for name in ("_score", "_draw", "seconds"):
        monkeypatch.setattr(Work, name, refuse)
    monkeypatch.setattr(Evaluation, "_measure", refuse)
    again = Evaluation(gaussian, Settings(num=12, steps=4), tmp_path, batch=3)
    assert again.perform() == first
    assert [json.loads(Path(report["file"]).read_bytes())["result"] for report in first.values()] == [
        report["result"] for report in first.values()
    ]


def test_other_settings_make_other_files_and_all_are_found(gaussian: Subject, tmp_path: Path) -> None:
    ways: list[dict[str, Any]] = [
        {"clip": False}, {}, {"seed": 1}, {"method": "vlb"}, {"method": "vlb", "steps": 5}, {"repeats": 1},
        {"variance": "large"}, {"variance": "analytic"},
    ]  # fmt: skip
    reports = [measure(gaussian, tmp_path, "bits", num=4, **way) for way in ways]
    assert len({report["file"] for report in reports}) == len(ways)
    assert len({report["result"]["total"]["mean"] for report in reports[1:]}) == len(ways) - 1
    assert {report["file"] for report in results(tmp_path, "bits")} == {report["file"] for report in reports}
    assert results(tmp_path, "quality") == []


def test_other_weights_and_other_images_make_other_files(gaussian: Subject, tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    other.write_bytes(b"another oracle")
    model = replace(gaussian.model, path=other)
    data = dataset(gaussian_bytes(600, 1), 300)
    subjects = [gaussian, replace(gaussian, model=model), replace(gaussian, data=data, own=False)]
    reports = [measure(one, tmp_path, "bits", num=8) for one in subjects]
    assert len({report["file"] for report in reports}) == 3
    assert [len(report["notes"]) for report in reports] == [0, 0, 1], "images named by hand are said to be"


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"settings": {}}'])
def test_a_damaged_result_is_made_again(damage: bytes, gaussian: Subject, tmp_path: Path) -> None:
    first = measure(gaussian, tmp_path, "bits", num=4)
    Path(first["file"]).write_bytes(damage)
    assert measure(gaussian, tmp_path, "bits", num=4)["result"] == first["result"]


def test_a_result_says_all_that_it_takes_to_repeat_it(gaussian: Subject, tmp_path: Path) -> None:
    report = measure(gaussian, tmp_path, "quality", num=30, steps=4, eta=0.5, seed=3)
    assert report["settings"] == {
        "rules": 1, "num": 30, "weights": hashlib.sha256(b"an oracle").hexdigest(), "weights_kind": "ema",
        "images_seen": 1000, "seed": 3, "sampler": "ddim", "steps": 4, "eta": 0.5, "clip": True,
        "data": gaussian.data.fingerprint, "real": "train",
        "extractor": {
            "name": "pixels", "sha256": report["settings"]["extractor"]["sha256"],
            "recipe": "1x3x4 pixels in [-1, 1], as they are",
        },
    }  # fmt: skip
    assert {"command", "packages", "device", "written"} <= set(report["environment"])


def test_who_is_not_first_does_the_parts_and_writes_no_result(gaussian: Subject, tmp_path: Path) -> None:
    helper = Evaluation(gaussian, Settings(num=8, steps=3), tmp_path, first=False)
    assert helper.perform() == {}
    assert [path.name for path in tmp_path.iterdir()] == ["parts"]
    assert Evaluation(gaussian, Settings(num=8, steps=3), tmp_path).forecast()[0] == 0


def test_words_say_the_figure_the_interval_and_the_parts(gaussian: Subject, tmp_path: Path) -> None:
    report = measure(gaussian, tmp_path, "bits", num=30, method="vlb", repeats=2)
    total, said = report["result"]["total"], words(report)
    assert f"{total['mean']:.4g} bits per dimension, 95 % interval {total['low']:.4g} to {total['high']:.4g}" in said
    rate, prior, rest = (report["result"][name]["mean"] for name in ("rate", "prior", "distortion"))
    assert total["mean"] == pytest.approx(rate + rest)
    assert f"of it {prior:.2g} prior, {rate - prior:.3g} rate, {rest:.3g} distortion" in said
    assert [round(50 * point["t"]) for point in report["result"]["curve"]] == list(range(50, 0, -1))
    assert "(one image, so no interval)" in words(measure(gaussian, tmp_path, "bits", num=1, method="flow"))


# Mistakes


@dataclass(frozen=True)
class Broken:
    """Predicts what is no number."""

    schedule: Schedule = SCHEDULE

    def __call__(self, x_t: Tensor, t: Tensor | float, condition: Any = None) -> Prediction:
        return Prediction(x_t * math.nan, x_t)


def test_a_model_that_diverged_is_one_line(gaussian: Subject, file: Path, tmp_path: Path) -> None:
    broken = subject(Broken(), gaussian.data, file)
    for settings in ({"method": "vlb"}, {"method": "sampled"}, {"variance": "analytic"}):
        with pytest.raises(UserError, match="not finite"):
            measure(broken, tmp_path, "bits", num=4, **settings)
    with pytest.raises(UserError, match="not finite"):
        measure(broken, tmp_path, "quality", num=4, steps=3)
    assert not list(tmp_path.glob("*.json"))


def changed(of: Subject, **data: Any) -> Subject:
    return replace(of, data=replace(of.data, **data))


@pytest.mark.parametrize(
    ("kind", "spoilt", "settings", "said"),
    [
        ("bits", lambda s: changed(s, held_out=np.arange(0)), {}, "no image of digits is held out"),
        ("memorisation", lambda s: changed(s, held_out=np.arange(0)), {}, "no image of digits is held out"),
        ("bits", lambda s: changed(s, images=s.data.images / 255), {}, "no 256-bin likelihood"),
        ("bits", lambda s: changed(s, images=s.data.images.astype(np.int32)), {}, "no 256-bin likelihood"),
        ("bits", lambda s: s, {"variance": "learned"}, "this model has learnt no variance"),
        ("bits", lambda s: s, {"steps": 51}, "steps is 51, and the model's chain has 50"),
        ("quality", lambda s: s, {"steps": 51}, "steps is 51, and the model's chain has 50"),
        ("quality", lambda s: s, {"num": 5}, "need more images"),
        ("quality", lambda s: s, {"extractor": "classifier"}, "'classifier' knows images of"),
        ("quality", lambda s: s, {"extractor": "inception:nowhere.pth"}, "there is no file of weights"),
    ],
)
def test_what_cant_be_measured_is_one_line(
    kind: str, spoilt: Callable[[Subject], Subject], settings: dict[str, Any], said: str, gaussian: Subject,
    tmp_path: Path,
) -> None:  # fmt: skip
    with pytest.raises(UserError, match=said) as error:
        measure(spoilt(gaussian), tmp_path, kind, **settings)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.glob("*.json"))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"num": 0}, "num is 0"),
        ({"steps": -1}, "steps is -1"),
        ({"repeats": 0}, "repeats is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"eta": 1.5}, "eta is 1.5"),
        ({"eta": math.nan}, "eta is nan"),
        ({"sampler": "ddpm", "eta": 0.5}, "eta belongs to ddim"),
        ({"sampler": "dmd"}, "sampler can't be 'dmd'; did you mean"),
        ({"method": "vbl"}, "did you mean 'vlb'"),
        ({"variance": "smal"}, "did you mean 'small'"),
        ({"real": "test"}, "real can't be 'test'"),
    ],
)
def test_settings_are_checked(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        Settings(**settings)


def test_results_lie_in_the_run_or_beside_the_file(tmp_path: Path) -> None:
    weights = tmp_path / "run" / "weights" / "ema.safetensors"
    weights.parent.mkdir(parents=True)
    weights.touch()
    assert place(tmp_path / "run") == tmp_path / "run" / "evaluation"
    assert place(weights) == weights.parent / "evaluation", "not a run yet"
    (tmp_path / "run" / "config.toml").touch()
    assert place(weights) == tmp_path / "run" / "evaluation"
    assert place(tmp_path / "a.safetensors") == tmp_path / "evaluation"
