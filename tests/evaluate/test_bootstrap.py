from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sfumato.evaluate.address import order, resamples
from sfumato.evaluate.bootstrap import Linearised
from sfumato.evaluate.measure import MEASURES


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_interval_of_a_mean() -> None:
    x = normal(400)
    found = Linearised(float(x.mean()), (x,)).interval(replicates=4000)
    error = float(x.std()) / 20
    assert found.error == pytest.approx(error, rel=0.05)
    assert found.low == pytest.approx(float(x.mean()) - 1.96 * error, abs=0.15 * error)
    assert found.high == pytest.approx(float(x.mean()) + 1.96 * error, abs=0.15 * error)


def test_independent_samples_add_their_variances_and_constants_count_for_nothing() -> None:
    x, y = 3 * normal(100), 4 * normal(100, seed=1)
    found = Linearised(0.0, (x + 1000, y)).interval(replicates=4000)
    expected = (float(x.var()) / 100 + float(y.var()) / 100) ** 0.5
    assert found.error == pytest.approx(expected, rel=0.05)
    assert found.low < 0 < found.high


def test_equal_samples_are_drawn_apart() -> None:
    x = normal(100)
    both, one = (Linearised(0.0, psi).interval(replicates=4000).error for psi in ((x, -x), (x,)))
    assert both == pytest.approx(2**0.5 * one, rel=0.05)


def test_the_seed_decides() -> None:
    found = Linearised(0.0, (normal(50),))
    assert found.interval(1) == found.interval(1)
    assert found.interval(1) != found.interval(2)


def test_an_interval_stays_where_the_measure_can_be() -> None:
    found = Linearised(0.1, (normal(10),), least=0.0, most=0.2).interval()
    assert (found.low, found.high) == (0.0, 0.2)


def test_draws_are_uniform_and_of_their_address() -> None:
    draws = resamples(0, torch.arange(2000), 10, 0)
    counts = torch.bincount(draws.flatten(), minlength=10)
    assert counts.min() > 2000 - 5 * 1800**0.5
    assert counts.max() < 2000 + 5 * 1800**0.5
    assert torch.equal(draws[7:9], resamples(0, torch.tensor([7, 8]), 10, 0))
    assert not torch.equal(draws, resamples(0, torch.arange(2000), 10, 1))
    assert order(0, "a", 100).tolist() != order(0, "b", 100).tolist()


@pytest.mark.slow
@pytest.mark.parametrize("measure", list(MEASURES))
def test_intervals_hold_what_they_promise(measure: str) -> None:
    """Fresh draws, over and over: the mean of the measure lies in about 95 % of the intervals, and their errors are the
    measure's deviation within a third."""
    values: dict[str, list[float]] = {}
    errors: dict[str, list[float]] = {}
    ends: dict[str, list[tuple[float, float]]] = {}
    spread = torch.linspace(0.7, 1.3, 16, dtype=torch.float64)
    for trial in range(100):
        x, y = normal(300, 16, seed=2 * trial), normal(300, 16, seed=2 * trial + 1) * spread + 0.2
        for name, found in MEASURES[measure](x, y, 0).items():
            interval = found.interval()
            values.setdefault(name, []).append(found.value)
            errors.setdefault(name, []).append(interval.error)
            ends.setdefault(name, []).append((interval.low, interval.high))
    for name, numbers in values.items():
        mean, deviation = torch.tensor(numbers).mean(), torch.tensor(numbers).std()
        held = sum(low <= mean <= high for low, high in ends[name])
        assert held >= 85, f"{name}: {held} of 100 intervals"
        assert 2 / 3 < float(torch.tensor(errors[name]).mean() / deviation) < 2, name
