"""What every metric offers, and the intervals of their values."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sfumato.errors import UserError
from sfumato.evaluate import METRICS, Metric, MetricValue, compare
from sfumato.evaluate.extractors import pixels
from sfumato.evaluate.metrics.protocol import Interval, resamples
from sfumato.evaluate.text import words

from .targets import normal

METRIC = pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)


def interval_of(value: MetricValue, *args: int, **options: int) -> Interval:
    found = value.interval(*args, **options)
    assert found is not None
    return found


@METRIC
def test_a_metric_names_its_numbers_and_tells_sets_apart(metric: Metric) -> None:
    """Whatever it measures: alike sets are nearer to a perfect value, and every image has an influence."""
    real, alike, other = normal(80, 4), normal(60, 4, seed=1), 0.7 * normal(60, 4, seed=2) + 2
    near, far = metric(real, alike, 0), metric(real, other, 0)
    assert set(near) == set(far) == set(metric.titles)
    for name, value in near.items():
        assert abs(value.value - far[name].value) > 0.2
        assert sorted(len(psi) for psi in value.influences) == [60, 80]
        low, high, error = interval_of(value)
        assert value.least <= low <= value.value <= high <= value.most
        assert error > 0


@METRIC
def test_sets_that_cant_be_compared_are_refused(metric: Metric) -> None:
    with pytest.raises(UserError, match="the sets have 0 and 50 images; at least"):
        metric(normal(0, 3), normal(50, 3), 0)
    with pytest.raises(UserError, match="features of 3 and of 4 numbers"):
        metric(normal(50, 3), normal(50, 4), 0)


class MeanDistance(Metric):
    """A metric without influence functions."""

    titles = {"mean": "distance of means"}  # noqa: RUF012

    def __call__(self, real: Tensor, generated: Tensor, seed: int) -> dict[str, MetricValue]:
        return {"mean": MetricValue(float((real.mean(0) - generated.mean(0)).norm()))}

    def note(self, num: int, dim: int) -> str:
        return f"means of {num}"


def test_a_new_metric_is_one_registry_line_and_needs_no_influence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METRICS, "mean", MeanDistance())
    extractor = pixels.open_features(Path(), (1, 2, 2))
    measured = compare(normal(40, 4), normal(20, 4, seed=1), extractor)[-1]
    assert (measured.name, measured.low, measured.high, measured.error) == ("mean", None, None, None)
    assert measured.value != measured.baseline > 0
    assert measured.notes == ("means of 20",)
    result = {"split": "train", "measures": [json.loads(json.dumps(measured.to_dict()))]}
    settings = {"sampler": "ddim", "steps": 50, "seed": 0}
    line = words({"kind": "quality", "result": result, "settings": settings, "notes": []}).splitlines()[-1]
    assert line.split() == ["distance", "of", "means", f"{measured.value:.4g}", "-", f"{measured.baseline:.4g}"]


def test_the_interval_of_a_mean() -> None:
    x = normal(400)
    found = interval_of(MetricValue(float(x.mean()), (x,)), replicates=4000)
    error = float(x.std()) / 20
    assert found.error == pytest.approx(error, rel=0.05)
    assert found.low == pytest.approx(float(x.mean()) - 1.96 * error, abs=0.15 * error)
    assert found.high == pytest.approx(float(x.mean()) + 1.96 * error, abs=0.15 * error)


def test_independent_samples_add_their_variances_and_constants_count_for_nothing() -> None:
    x, y = 3 * normal(100), 4 * normal(100, seed=1)
    found = interval_of(MetricValue(0.0, (x + 1000, y)), replicates=4000)
    expected = (float(x.var()) / 100 + float(y.var()) / 100) ** 0.5
    assert found.error == pytest.approx(expected, rel=0.05)
    assert found.low < 0 < found.high


def test_equal_samples_are_drawn_apart() -> None:
    x = normal(100)
    both, one = (interval_of(MetricValue(0.0, psi), replicates=4000).error for psi in ((x, -x), (x,)))
    assert both == pytest.approx(2**0.5 * one, rel=0.05)


def test_the_seed_decides() -> None:
    found = MetricValue(0.0, (normal(50),))
    assert found.interval(1) == found.interval(1)
    assert found.interval(1) != found.interval(2)


def test_an_interval_stays_where_the_measure_can_be() -> None:
    found = interval_of(MetricValue(0.1, (normal(10),), least=0.0, most=0.2))
    assert (found.low, found.high) == (0.0, 0.2)


def test_draws_are_uniform_and_a_function_of_their_key() -> None:
    draws = resamples(0, torch.arange(2000), 10, 0)
    counts = torch.bincount(draws.flatten(), minlength=10)
    assert counts.min() > 2000 - 5 * 1800**0.5
    assert counts.max() < 2000 + 5 * 1800**0.5
    assert torch.equal(draws[7:9], resamples(0, torch.tensor([7, 8]), 10, 0))
    assert not torch.equal(draws, resamples(0, torch.arange(2000), 10, 1))


@pytest.mark.slow
@METRIC
def test_intervals_hold_what_they_promise(metric: Metric) -> None:
    """Fresh draws, over and over: the mean of the measure lies in about 95 % of the intervals, and their errors are the
    measure's deviation within a third."""
    values: dict[str, list[float]] = {}
    errors: dict[str, list[float]] = {}
    ends: dict[str, list[tuple[float, float]]] = {}
    spread = torch.linspace(0.7, 1.3, 16, dtype=torch.float64)
    for trial in range(100):
        x, y = normal(300, 16, seed=2 * trial), normal(300, 16, seed=2 * trial + 1) * spread + 0.2
        for name, found in metric(x, y, 0).items():
            interval = interval_of(found)
            values.setdefault(name, []).append(found.value)
            errors.setdefault(name, []).append(interval.error)
            ends.setdefault(name, []).append((interval.low, interval.high))
    for name, numbers in values.items():
        mean, deviation = torch.tensor(numbers).mean(), torch.tensor(numbers).std()
        held = sum(low <= mean <= high for low, high in ends[name])
        assert held >= 85, f"{name}: {held} of 100 intervals"
        assert 2 / 3 < float(torch.tensor(errors[name]).mean() / deviation) < 2, name
