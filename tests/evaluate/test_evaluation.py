"""An evaluation: what is measured, kept, and refused."""

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

from sfumato.codec.pixels import Pixels, to_model
from sfumato.diffusion import FiniteOracle, GaussianOracle, Prediction, Schedule
from sfumato.errors import UserError
from sfumato.evaluate import stages
from sfumato.evaluate.stages import RULES
from sfumato.evaluate.target import Target
from sfumato.evaluate.text import words
from tests.codec.haar import Haar

from .targets import FILE, SCHEDULE, STD, TRUTH, asked, changed, dataset, evaluation, gaussian_bytes, measure, target


def test_the_oracle_is_as_good_as_its_baseline(gaussian: Target, tmp_path: Path) -> None:
    report = measure(gaussian, tmp_path, "quality", num=150, range="free", steps=50)
    found = {one["name"]: one for one in report["result"]["measures"]}
    assert found["frechet"]["value"] < 2 * found["frechet"]["floor"]
    assert found["coverage"]["value"] > 0.85
    assert (found["kid"]["num_real"], found["kid"]["num_generated"]) == (150, 150)
    assert found["kid"]["extractor_sha256"] == report["settings"]["extractor"]["sha256"]
    held_out = measure(gaussian, tmp_path, "quality", num=150, range="free", steps=50, real="held_out")
    assert held_out["file"] != report["file"]
    assert held_out["result"]["measures"] != report["result"]["measures"]


def test_a_planted_memoriser_is_flagged_and_the_oracle_is_not(gaussian: Target, tmp_path: Path) -> None:
    data = gaussian.data
    memory = FiniteOracle(SCHEDULE, to_model(torch.from_numpy(data.images[data.train])))
    for of, planted in ((target(memory, data), True), (gaussian, False)):
        report = measure(of, tmp_path / str(planted), "memorisation", num=100, range="free")
        assert report["result"]["memorised"] == planted
        assert (report["result"]["copies"] > 0.9) == planted
        sheet = Path(report["file"]).with_name(report["result"]["contact_sheet"])
        assert sheet.read_bytes().startswith(b"\x89PNG")


def test_a_model_of_another_codec_is_measured_as_one_of_pixels(gaussian: Target, tmp_path: Path) -> None:
    """An orthonormal transform of independent Gaussian pixels leaves them so: the same oracle, the same entropy."""
    data = dataset(gaussian_bytes(600, 0, (1, 4, 4)), 300)
    codec = Haar(Pixels(data.format, data.shape))
    oracle = GaussianOracle(SCHEDULE, torch.zeros(codec.shape), torch.full(codec.shape, STD**2))
    reports = evaluation(target(oracle, data, codec), tmp_path, num=150, range="free", variance="analytic").perform()
    bits, measures = reports["bits"]["result"]["total"], reports["quality"]["result"]["measures"]
    assert abs(bits["mean"] - TRUTH) < 1.5 * bits["half_width"] + 0.01
    assert measures[0]["value"] < 2 * measures[0]["floor"]
    assert not reports["memorisation"]["result"]["memorised"]


# Results


def test_the_same_settings_are_answered_from_the_file(
    gaussian: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first_time = evaluation(gaussian, tmp_path, num=12, steps=4)
    calls, seconds = first_time.forecast()
    # 12 images of 49 terms (all but the last) and the last, twice; 12 drawn in 4 steps
    assert calls == 12 * 50 * 2 + 12 * 4
    assert seconds > 0
    first = first_time.perform()
    assert first_time.forecast() == (0, 0.0)

    def refuse(*arguments: Any) -> None:
        raise AssertionError("nothing is left to do")

    for name in ("measure_bits", "prepare"):
        monkeypatch.setattr(stages, name, refuse)
    for name in ("quality", "find_memorised"):
        monkeypatch.setattr(f"sfumato.evaluate.evaluation.{name}", refuse)
    again = evaluation(gaussian, tmp_path, batch=3, num=12, steps=4)
    assert again.perform() == first
    for report in first.values():
        assert json.loads(Path(report["file"]).read_bytes())["result"] == report["result"]


def test_other_settings_make_other_files_and_all_are_found(gaussian: Target, tmp_path: Path) -> None:
    ways: list[dict[str, Any]] = [
        {"range": "free"}, {}, {"seed": 1}, {"method": "vlb"}, {"method": "vlb", "steps": 5}, {"repeats": 1},
        {"variance": "large"}, {"variance": "analytic"},
    ]  # fmt: skip
    reports = [measure(gaussian, tmp_path, "bits", num=4, **way) for way in ways]
    assert len({report["file"] for report in reports}) == len(ways)
    assert len({report["result"]["total"]["mean"] for report in reports[1:]}) == len(ways) - 1
    assert {str(file) for file in tmp_path.glob("bits-*.json")} == {report["file"] for report in reports}


def test_other_weights_and_other_images_make_other_files(gaussian: Target, tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    other.write_bytes(b"another oracle")
    model = replace(gaussian.model, path=other)
    data = dataset(gaussian_bytes(600, 1), 300)
    targets = [gaussian, replace(gaussian, model=model), replace(gaussian, data=data, own=False)]
    reports = [measure(one, tmp_path, "bits", num=8) for one in targets]
    assert len({report["file"] for report in reports}) == 3
    assert [len(report["notes"]) for report in reports] == [0, 0, 1], "images named by hand are said to be"


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"settings": {}}'])
def test_a_damaged_result_is_made_again(damage: bytes, gaussian: Target, tmp_path: Path) -> None:
    first = measure(gaussian, tmp_path, "bits", num=4)
    Path(first["file"]).write_bytes(damage)
    assert measure(gaussian, tmp_path, "bits", num=4)["result"] == first["result"]


def test_a_result_says_all_that_it_takes_to_repeat_it(gaussian: Target, tmp_path: Path) -> None:
    report = measure(gaussian, tmp_path, "quality", num=10, steps=4, sampler="ddim", eta=0.5, seed=3)
    assert report["result"]["measures"][0]["name"] == "frechet-shrunk", "there are fewer images than features"
    assert any("fewer than the 33 features" in note for note in report["notes"])
    assert report["settings"] == {
        "rules": RULES, "num": 10, "weights": hashlib.sha256(FILE.read_bytes()).hexdigest(), "weights_kind": "ema",
        "images_seen": 1000, "seed": 3, "sampler": "ddim", "steps": 4, "grid": "trailing", "eta": 0.5,
        "range": "clip",
        "data": gaussian.data.fingerprint, "real": "train", "verdict": 1,
        "extractor": {
            "name": "wavelets", "sha256": report["settings"]["extractor"]["sha256"],
            "recipe": "1x3x4 pixels in [-1, 1]: means of 3x4 cells, strength of detail at up to 3 scales",
        },
    }  # fmt: skip
    bits = measure(gaussian, tmp_path, "bits", num=8)["settings"]
    assert bits | {
        "split": "held_out", "num": 8, "method": "sampled", "terms": 49, "steps": 50, "repeats": 2, "variance": "small",
        "data": gaussian.data.fingerprint, "weights": report["settings"]["weights"], "seed": 0, "clip": True,
    } == bits  # fmt: skip
    assert {"command", "packages", "device", "written"} <= set(report["environment"])


def test_a_process_that_is_not_first_runs_jobs_and_writes_no_result(gaussian: Target, tmp_path: Path) -> None:
    helper = replace(evaluation(gaussian, tmp_path, num=8, steps=3), first=False)
    assert helper.perform() == {}
    assert [path.name for path in tmp_path.iterdir()] == ["parts"]
    assert evaluation(gaussian, tmp_path, num=8, steps=3).forecast()[0] == 0


def test_words_say_the_figure_the_interval_and_the_parts(gaussian: Target, tmp_path: Path) -> None:
    report = measure(gaussian, tmp_path, "bits", num=30, method="vlb", repeats=2)
    total, said = report["result"]["total"], words(report)
    assert f"{total['mean']:.4g} bits per dimension, 95 % interval {total['low']:.4g} to {total['high']:.4g}" in said
    rate, prior, rest = (report["result"][name]["mean"] for name in ("rate", "prior", "distortion"))
    assert total["mean"] == pytest.approx(rate + rest)
    assert f"- {rate - prior:.2f} of them for the image (rate), {rest:.2f} for its last rounding (distortion)" in said
    assert [round(50 * point["t"]) for point in report["result"]["curve"]] == list(range(50, 0, -1))
    assert "(one image, so no interval)" in words(measure(gaussian, tmp_path, "bits", num=1, method="flow"))


# Mistakes


@dataclass(frozen=True)
class Broken:
    """Predicts what is no number."""

    schedule: Schedule = SCHEDULE

    def __call__(self, x_t: Tensor, t: Tensor | float, condition: Any = None) -> Prediction:
        return Prediction(x_t * math.nan, x_t)


def test_a_model_that_diverged_is_one_line(gaussian: Target, tmp_path: Path) -> None:
    broken = target(Broken(), gaussian.data)
    ways: list[dict[str, Any]] = [{"method": "vlb"}, {"method": "sampled"}, {"variance": "analytic"}, {"steps": 3}]
    for settings in ways:
        with pytest.raises(UserError, match="not finite"):
            measure(broken, tmp_path, "quality" if "steps" in settings else "bits", num=6, **settings)
    assert not list(tmp_path.glob("*.json"))


@pytest.mark.parametrize(
    ("kind", "spoilt", "settings", "said"),
    [
        ("bits", lambda s: changed(s, held_out=np.arange(0)), {}, "no image of digits is held out"),
        ("memorisation", lambda s: changed(s, held_out=np.arange(0)), {}, "no image of digits is held out"),
        ("bits", lambda s: changed(s, images=s.data.images / 255), {}, "can't be scored by a model of 8-bit images"),
        ("bits", lambda s: changed(s, images=s.data.images.astype(np.int32)), {}, "int32 can't be scored"),
        ("bits", lambda s: s, {"variance": "learned"}, "this model has no learned variance"),
        ("bits", lambda s: s, {"steps": 51}, "steps is 51, and the model's chain has 50"),
        ("quality", lambda s: s, {"steps": 51}, "steps is 51, and the model's chain has 50"),
        ("quality", lambda s: s, {"num": 5}, "num is 5: quality needs at least 6 generated"),
        ("quality", lambda s: s, {"extractor": "classifier"}, "'classifier' is for images of"),
        ("quality", lambda s: s, {"extractor": "inception:nowhere.pth"}, "there is no file of weights"),
    ],
)
def test_what_cant_be_measured_is_one_line(
    kind: str, spoilt: Callable[[Target], Target], settings: dict[str, Any], said: str, gaussian: Target,
    tmp_path: Path,
) -> None:  # fmt: skip
    with pytest.raises(UserError, match=said) as error:
        measure(spoilt(gaussian), tmp_path, kind, **settings)
    assert kind != "quality" or not list(tmp_path.glob("parts/*")), "refused before anything is generated"
    assert "\n" not in str(error.value)
    assert not list(tmp_path.glob("*.json"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num": 0}, "num is 0"),
        ({"repeats": 0}, "repeats is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"method": "vbl"}, "did you mean 'vlb'"),
        ({"variance": "smal"}, "did you mean 'small'"),
        ({"real": "test"}, "real can't be 'test'"),
    ],
)
def test_settings_are_checked(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        asked(**settings)


def test_a_variance_is_of_scoring_and_of_a_sampler_that_takes_one() -> None:
    assert asked(variance="large").recipe.variance is None
    assert asked(variance="large", sampler="ddpm").recipe.variance == "large"
