"""Scoring and generating in jobs: the right numbers, whatever process, batch or interruption they came by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sfumato.codec.pixels import to_model
from sfumato.conditions.table import Attributes
from sfumato.diffusion import GaussianOracle, Optimal
from sfumato.evaluate import stages
from sfumato.evaluate.bits import Bits, measure_bits
from sfumato.evaluate.cache import split_rows
from sfumato.evaluate.target import Target

from .targets import (
    ORACLE,
    SCHEDULE,
    SHAPE,
    STD,
    TRUTH,
    changed,
    drawn_as,
    evaluation,
    measure,
    relabelled,
    target,
)

METHODS = pytest.mark.parametrize("method", ["vlb", "sampled", "flow"])


@METHODS
def test_the_oracles_bits_are_the_entropy_with_the_measured_variance(
    method: str, gaussian: Target, tmp_path: Path
) -> None:
    total = measure(gaussian, tmp_path, "bits", method=method, variance="analytic", range="free")["result"]["total"]
    assert abs(total["mean"] - TRUTH) < 1.5 * total["half_width"] + 0.01
    assert total["low"] < total["mean"] < total["high"]
    assert total["half_width"] < 0.3


@METHODS
def test_bits_depend_neither_on_the_batch_nor_on_an_interruption(
    method: str, gaussian: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"method": method, "num": 40, "steps": 10, "variance": "small"}
    whole = measure(gaussian, tmp_path / "whole", "bits", **settings)
    small = measure(gaussian, tmp_path / "small", "bits", batch=5, **settings)
    calls: list[int] = []

    def failing(denoiser: Any, codec: Any, images: Tensor, *rest: Any, **more: Any) -> Bits:
        calls.append(len(images))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return measure_bits(denoiser, codec, images, *rest, **more)

    monkeypatch.setattr(stages, "measure_bits", failing)
    with pytest.raises(KeyboardInterrupt):
        measure(gaussian, tmp_path / "cut", "bits", **settings)
    resumed = measure(gaussian, tmp_path / "cut", "bits", **settings)
    assert calls == [32, 8, 8], "the first shard was kept"
    assert whole["settings"] == small["settings"] == resumed["settings"]
    assert resumed["result"] == whole["result"]
    for name in ("mean", "half_width"):
        assert small["result"]["total"][name] == pytest.approx(whole["result"]["total"][name], rel=1e-4)


def test_more_images_continue_fewer(gaussian: Target, tmp_path: Path) -> None:
    fresh = measure(gaussian, tmp_path / "fresh", "bits", num=96)
    measure(gaussian, tmp_path, "bits", num=64)
    assert evaluation(gaussian, tmp_path, num=96).forecast(["bits"])[0] == 32 * 50 * 2, "one shard is left"
    assert measure(gaussian, tmp_path, "bits", num=96)["result"] == fresh["result"]


def test_held_out_images_are_scored_and_training_images_measure_the_variance(gaussian: Target, tmp_path: Path) -> None:
    images = gaussian.data.images.copy()
    images[gaussian.data.train] = 0
    total = measure(changed(gaussian, images=images), tmp_path, "bits", method="vlb")["result"]["total"]
    honest = measure(gaussian, tmp_path / "honest", "bits", method="vlb")["result"]["total"]
    assert total == honest
    images = gaussian.data.images.copy()
    images[gaussian.data.held_out] = 0
    variance = evaluation(changed(gaussian, images=images), tmp_path, variance="analytic").stages.variance
    level = SCHEDULE(0.5)
    assert isinstance(variance, Optimal)
    truth = float(ORACLE.posterior_variance(level).mean())
    assert float(variance.posterior_variance(level)) == pytest.approx(truth, rel=0.1)


def test_every_shard_meets_noise_of_its_own(gaussian: Target, tmp_path: Path) -> None:
    images = np.repeat(gaussian.data.images[:1], 600, axis=0)
    measure(changed(gaussian, images=images), tmp_path, "bits", num=96, method="vlb")
    assert len({file.read_bytes() for file in tmp_path.glob("parts/scored-*/*.part")}) == 3


@pytest.mark.parametrize("batch", [64, 3])
@METHODS
def test_a_conditional_model_is_scored_given_each_images_own_condition(
    method: str, batch: int, conditional: Target, tmp_path: Path
) -> None:
    report = measure(conditional, tmp_path, "bits", batch=batch, method=method, num=40)
    assert report["result"]["images"] == 40
    # what the last noise level leaves to say costs 3.5 bits, and the steps before it nothing
    assert report["result"]["total"]["mean"] < 3.6
    assert method == "flow" or report["result"]["rate"]["mean"] < 1e-4
    assert "each image was scored given its own labels" in report["notes"]


def test_conditions_come_together_as_often_as_in_training(conditional: Target) -> None:
    def table(num: int) -> Tensor:
        condition = conditional.condition(seed=5, num=num)
        assert isinstance(condition, Attributes)
        return condition.table

    def pairs(table: Tensor) -> Tensor:
        return torch.bincount((3 * table[:, 0] + table[:, 1] + 1).long(), minlength=12)

    counts, training = pairs(table(6000)), pairs(torch.from_numpy(conditional.data.table[conditional.data.train]))
    assert training[11] == counts[11] == 0, "no d of shade 1: the attributes are not chosen one by one"
    there = training > 0
    wanted = 6000 * training[there] / 200
    assert ((counts[there] - wanted) ** 2 / wanted).sum() < 29.6, "ten degrees of freedom, p = 0.001"
    assert torch.equal(table(1500), table(6000)[:1500]), "each by its index"


def test_conditions_are_those_of_training_images_and_held_out_images_come_in_random_order(conditional: Target) -> None:
    table = np.array(conditional.data.table)
    table[conditional.data.held_out] = [2, 5]  # a shade that no training image has
    other = relabelled(conditional, table)
    condition = other.condition(seed=5, num=500)
    assert isinstance(condition, Attributes)
    assert float(condition.table[:, 1].max()) == 1
    rows = conditional.held_out(15)
    assert torch.equal(rows, split_rows(conditional.data, "held_out")[:15])
    assert rows.tolist() != sorted(rows.tolist())


@pytest.mark.parametrize("batch", [64, 7])
def test_images_are_generated_for_their_conditions(batch: int, conditional: Target, tmp_path: Path) -> None:
    condition = conditional.condition(0, 50)
    assert isinstance(condition, Attributes)
    images = evaluation(conditional, tmp_path, batch, num=50, steps=3).stages.images()
    assert torch.equal(images[:, 0, 0, 0], drawn_as(condition.table))


@pytest.mark.parametrize("method", ["vlb", "flow"])
def test_a_wrong_condition_would_cost_much(method: str, conditional: Target, tmp_path: Path) -> None:
    table = conditional.data.table
    for name, other in (("kind", table * [0, 1] + (table + 1) % 4 * [1, 0]), ("shade", table[:, :1] * [1, 0] + [0, 8])):
        report = measure(relabelled(conditional, other), tmp_path / name, "bits", method=method, num=40)
        assert report["result"]["total"]["mean"] > 20, name


def test_results_of_other_conditions_are_not_mistaken(conditional: Target, tmp_path: Path) -> None:
    """The same images and weights with other labels are scored, and generated, anew."""
    other = relabelled(conditional, conditional.data.table[::-1].copy())
    own, theirs = (evaluation(one, tmp_path, num=8).stages for one in (conditional, other))
    assert own.scoring != theirs.scoring
    assert own.sampling != theirs.sampling


def test_images_depend_on_what_they_should(gaussian: Target, tmp_path: Path) -> None:
    def images(batch: int = 64, **settings: Any) -> Tensor:
        return evaluation(gaussian, tmp_path / str(batch), batch, num=20, **settings).stages.images()

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


def test_clipping_is_of_what_is_scored_and_of_what_is_generated(gaussian: Target, tmp_path: Path) -> None:
    wide = target(GaussianOracle(SCHEDULE, torch.zeros(SHAPE), torch.full(SHAPE, 4.0)), gaussian.data)
    ways = [evaluation(wide, tmp_path, num=20, steps=5, sampler="ddpm", range=way).stages for way in ("clip", "free")]
    assert not torch.equal(ways[0].images(), ways[1].images())
    clipped, free = (way.bits().total.mean for way in ways)
    assert clipped < free, "what lies outside can't be right"


def test_analytic_ddpm_has_the_right_deviation_in_few_steps(gaussian: Target, tmp_path: Path) -> None:
    """For Gaussian data the best variance makes the chain exact at any number of steps; the small one is too narrow.

    The last step adds no noise: it leaves E[x_0 | x_t], whose deviation is alpha STD^2 / sqrt(alpha^2 STD^2 + sigma^2).
    """

    def deviation(variance: str) -> float:
        settings = {"num": 400, "steps": 10, "sampler": "ddpm", "variance": variance, "range": "free"}
        return float(to_model(evaluation(gaussian, tmp_path, **settings).stages.images()).std())

    last = SCHEDULE(5 / 50)
    truth = float(last.alpha * STD**2 / (last.abar * STD**2 + last.sigma**2).sqrt())
    assert deviation("analytic") == pytest.approx(truth, rel=0.04)
    assert deviation("small") < 0.9 * truth
