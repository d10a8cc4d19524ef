"""Scoring and drawing in parts: the right numbers, the same however they were come by."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sfumato.codec.pixels import to_model
from sfumato.diffusion import GaussianOracle, Optimal
from sfumato.evaluate.evaluation import Evaluation
from sfumato.evaluate.settings import Settings
from sfumato.evaluate.subject import Subject
from sfumato.evaluate.work import Work

from .subjects import ORACLE, SCHEDULE, SHAPE, STD, changed, gaussian_subject, measure, subject, told_subject

TRUTH = math.log2(127.5 * STD) + 0.5 * math.log2(2 * math.pi * math.e)  # entropy of the rounded Gaussian, fine bins


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SFUMATO_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def gaussian() -> Subject:
    return gaussian_subject()


@pytest.fixture(scope="module")
def told() -> Subject:
    return told_subject()


# Bits


@pytest.mark.parametrize("method", ["vlb", "sampled", "flow"])
def test_the_oracles_bits_are_the_entropy_with_the_measured_variance(
    method: str, gaussian: Subject, tmp_path: Path
) -> None:
    total = measure(gaussian, tmp_path, "bits", method=method, variance="analytic", range="free")["result"]["total"]
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


def test_held_out_images_are_scored_and_training_images_measure_the_variance(gaussian: Subject, tmp_path: Path) -> None:
    images = gaussian.data.images.copy()
    images[gaussian.data.train] = 0
    total = measure(changed(gaussian, images=images), tmp_path, "bits", method="vlb")["result"]["total"]
    honest = measure(gaussian, tmp_path / "honest", "bits", method="vlb")["result"]["total"]
    assert total == honest
    images = gaussian.data.images.copy()
    images[gaussian.data.held_out] = 0
    variance = Evaluation(changed(gaussian, images=images), Settings(variance="analytic"), tmp_path).work.variance
    level = SCHEDULE(0.5)
    assert isinstance(variance, Optimal)
    truth = float(ORACLE.posterior_variance(level).mean())
    assert float(variance.posterior_variance(level)) == pytest.approx(truth, rel=0.1)


def test_every_part_meets_noise_of_its_own(gaussian: Subject, tmp_path: Path) -> None:
    images = np.repeat(gaussian.data.images[:1], 600, axis=0)
    measure(replace(gaussian, data=replace(gaussian.data, images=images)), tmp_path, "bits", num=96, method="vlb")
    assert len({file.read_bytes() for file in tmp_path.glob("parts/bits-*/*.part")}) == 3


@pytest.mark.parametrize("batch", [64, 3])
@pytest.mark.parametrize("method", ["vlb", "sampled", "flow"])
def test_a_conditional_model_is_scored_given_each_images_own_condition(
    method: str, batch: int, told: Subject, tmp_path: Path
) -> None:
    report = measure(told, tmp_path, "bits", batch=batch, method=method, num=40)
    assert report["result"]["images"] == 40
    # what the last noise level leaves to say costs 3.5 bits, and the steps before it nothing
    assert report["result"]["total"]["mean"] < 3.6
    assert method == "flow" or report["result"]["rate"]["mean"] < 1e-4
    assert "each image was scored given its own labels" in report["notes"]


# Drawn images


def test_conditions_come_together_as_often_as_in_training(told: Subject) -> None:
    drawn = told.conditions(seed=5, first=0, count=6000)
    assert drawn is not None

    def pairs(table: Tensor) -> Tensor:
        return torch.bincount((3 * table[:, 0] + table[:, 1] + 1).long(), minlength=12)

    counts, training = pairs(drawn), pairs(torch.from_numpy(told.data.conditions[told.data.train]))
    assert training[11] == counts[11] == 0, "no d of shade 1: the attributes are not drawn one by one"
    there = training > 0
    wanted = 6000 * training[there] / 200
    assert ((counts[there] - wanted) ** 2 / wanted).sum() < 29.6, "ten degrees of freedom, p = 0.001"
    later = told.conditions(5, 1000, 500)
    assert later is not None
    assert torch.equal(later, drawn[1000:1500]), "each by its address"


def test_images_are_drawn_for_their_conditions(told: Subject, tmp_path: Path) -> None:
    for batch in (64, 7):
        work = Evaluation(told, Settings(num=50, steps=3), tmp_path / str(batch), batch).work
        conditions = told.conditions(0, 0, 50)
        assert conditions is not None
        assert torch.equal(work.images()[:, 0, 0, 0], (40 + 50 * conditions[:, 0] + 4 * conditions[:, 1]).byte())


def test_a_wrong_condition_would_cost_much(told: Subject, tmp_path: Path) -> None:
    table = told.data.conditions
    for name, other in (("kind", table * [0, 1] + (table + 1) % 4 * [1, 0]), ("shade", table[:, :1] * [1, 0] + [0, 8])):
        shifted = changed(told, conditions=other.astype(np.float32))
        for method in ("vlb", "flow"):
            report = measure(shifted, tmp_path / name, "bits", method=method, num=40)
            assert report["result"]["total"]["mean"] > 20, (name, method)


def test_results_of_other_conditions_are_not_mistaken(told: Subject, tmp_path: Path) -> None:
    """The same images and weights with other labels are scored, and drawn, anew."""
    other = changed(told, conditions=told.data.conditions[::-1].copy())
    works = [Evaluation(one, Settings(num=8), tmp_path).work for one in (told, other)]
    assert works[0].scoring != works[1].scoring
    assert works[0].drawing != works[1].drawing


def test_images_depend_on_what_they_should(gaussian: Subject, tmp_path: Path) -> None:
    def images(batch: int = 64, **settings: Any) -> Tensor:
        return Evaluation(gaussian, Settings(num=20, **settings), tmp_path / str(batch), batch).work.images()

    whole = images(steps=5)
    assert int((images(7, steps=5).int() - whole.int()).abs().max()) <= 1, "rounding"
    ways: list[dict[str, Any]] = [
        {"steps": 5},
        {"steps": 5, "seed": 1},
        {"steps": 5, "sampler": "ddim"},
        {"steps": 5, "sampler": "ddim", "eta": 0.5},
        {"steps": 6},
        {"steps": 5, "sampler": "ddpm"},
        {"steps": 5, "sampler": "ddpm", "variance": "large"},
        {"steps": 5, "sampler": "ddpm", "variance": "analytic"},
    ]
    assert len({images(**way).numpy().tobytes() for way in ways}) == len(ways)


def test_clipping_is_of_what_is_scored_and_of_what_is_drawn(gaussian: Subject, tmp_path: Path) -> None:
    wide = subject(GaussianOracle(SCHEDULE, torch.zeros(SHAPE), torch.full(SHAPE, 4.0)), gaussian.data)
    works = [
        Evaluation(wide, Settings(num=20, steps=5, sampler="ddpm", range=kept), tmp_path).work
        for kept in ("clip", "free")
    ]
    assert not torch.equal(works[0].images(), works[1].images())
    clipped, free = (work.bits().total.mean for work in works)
    assert clipped < free, "what lies outside can't be right"


def test_analytic_ddpm_draws_the_right_spread_in_few_steps(gaussian: Subject, tmp_path: Path) -> None:
    """For Gaussian data the best variance makes the chain exact at any number of steps; the small one is too narrow.

    The last step adds no noise: it leaves E[x_0 | x_t], whose deviation is alpha STD^2 / sqrt(alpha^2 STD^2 + sigma^2).
    """

    def spread(variance: str) -> float:
        settings = Settings(num=400, steps=10, sampler="ddpm", variance=variance, range="free")
        return float(to_model(Evaluation(gaussian, settings, tmp_path).work.images()).std())

    last = SCHEDULE(5 / 50)
    truth = float(last.alpha * STD**2 / (last.abar * STD**2 + last.sigma**2).sqrt())
    assert spread("analytic") == pytest.approx(truth, rel=0.04)
    assert spread("small") < 0.9 * truth
