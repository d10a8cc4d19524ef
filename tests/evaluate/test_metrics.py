"""What every metric offers, the intervals of their values, and what the kernel and the sliced distance are."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from sfumato.errors import UserError
from sfumato.evaluate import METRICS, Metric, MetricValue, compare, kid, open_extractor, sliced_wasserstein
from sfumato.evaluate.metrics.protocol import Interval, resamples
from sfumato.evaluate.metrics.sliced import directions
from sfumato.evaluate.text import words

from .targets import normal

METRIC = pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)


def interval_of(value: MetricValue, *args: int, **options: int) -> Interval:
    found = value.interval(*args, **options)
    assert found is not None
    return found


@METRIC
def test_a_metric_tells_sets_apart(metric: Metric) -> None:
    """Whatever it measures; and every image has an influence."""
    real, alike, other = normal(80, 4), normal(60, 4, seed=1), 0.7 * normal(60, 4, seed=2) + 2
    near, far = metric(real, alike, 0), metric(real, other, 0)
    assert set(near) == set(far)
    for name, value in near.items():
        assert abs(value.value - far[name].value) > 0.2
        assert sorted(len(psi) for psi in value.influences) == [60, 80]
        low, high, error = interval_of(value)
        assert value.least <= low <= value.value <= high <= value.most
        assert error > 0


@METRIC
def test_sets_that_cant_be_compared_are_refused(metric: Metric) -> None:
    for first, second, message in (
        (normal(0, 3), normal(50, 3), "the sets have 0 and 50 images; at least"),
        (normal(50, 3), normal(50, 4), "features of 3 and of 4 numbers"),
        (normal(50, 3), normal(50, 3).index_fill(0, torch.tensor(6), torch.nan), "not finite for image 6"),
    ):
        with pytest.raises(UserError, match=message):
            metric(first, second, 0)


def mean_distance(real: Tensor, generated: Tensor, seed: int) -> dict[str, MetricValue]:
    """A metric without influence functions."""
    return {"mean": MetricValue(float((real.mean(0) - generated.mean(0)).norm()), note="seen")}


def test_a_new_metric_is_one_registry_line_and_needs_no_influence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METRICS, "mean", mean_distance)
    measured = compare(normal(40, 4), normal(20, 4, seed=1), open_extractor("pixels", (1, 2, 2)))[-1]
    assert (measured.name, measured.low, measured.high, measured.error) == ("mean", None, None, None)
    assert measured.value != measured.baseline > 0
    assert measured.notes == ("seen",)
    result = {"split": "train", "measures": [json.loads(json.dumps(measured.to_dict()))]}
    settings = {"sampler": "ddim", "steps": 50, "seed": 0}
    line = words({"kind": "quality", "result": result, "settings": settings, "notes": []}).splitlines()[-1]
    assert line.split() == ["mean", f"{measured.value:.4g}", "-", f"{measured.baseline:.4g}"]


# Intervals


def test_the_interval_of_a_mean() -> None:
    x = normal(400)
    low, high, error = interval_of(MetricValue(float(x.mean()), (x,)), replicates=4000)
    expected = float(x.std()) / 20
    assert error == pytest.approx(expected, rel=0.05)
    ends = [float(x.mean()) - 1.96 * expected, float(x.mean()) + 1.96 * expected]
    assert [low, high] == pytest.approx(ends, abs=0.15 * expected)


def test_independent_samples_add_their_variances_and_constants_count_for_nothing() -> None:
    x, y = 3 * normal(100), 4 * normal(100, seed=1)
    low, high, error = interval_of(MetricValue(0.0, (x + 1000, y)), replicates=4000)
    assert error == pytest.approx((float(x.var()) / 100 + float(y.var()) / 100) ** 0.5, rel=0.05)
    assert low < 0 < high
    both, one = (interval_of(MetricValue(0.0, psi), replicates=4000).error for psi in ((x, -x), (x,)))
    assert both == pytest.approx(2**0.5 * one, rel=0.05), "equal samples are drawn independently"


def test_the_seed_decides_and_an_interval_stays_where_the_metric_can_be() -> None:
    found = MetricValue(0.0, (normal(50),))
    assert found.interval(1) == found.interval(1) != found.interval(2)
    assert interval_of(MetricValue(0.1, (normal(10),), least=0.0, most=0.2))[:2] == (0.0, 0.2)


def test_draws_are_uniform_and_a_function_of_their_key() -> None:
    draws = resamples(0, torch.arange(2000), 10, 0)
    counts = torch.bincount(draws.flatten(), minlength=10)
    assert (counts - 2000).abs().max() < 5 * 1800**0.5
    assert torch.equal(draws[7:9], resamples(0, torch.tensor([7, 8]), 10, 0))
    assert not torch.equal(draws, resamples(0, torch.arange(2000), 10, 1))


DEVIATIONS = torch.linspace(0.7, 1.3, 16, dtype=torch.float64)
GAUSSIANS: dict[str, Callable[[int], tuple[Tensor, Tensor]]] = {
    "of 16 numbers, other than the real ones": lambda n: (
        normal(300, 16, seed=2 * n),
        normal(300, 16, seed=2 * n + 1) * DEVIATIONS + 0.2,
    ),
    "of 10 numbers": lambda n: (normal(500, 10, seed=2 * n), normal(500, 10, seed=2 * n + 1)),
    "of 32 numbers": lambda n: (normal(500, 32, seed=2 * n), normal(500, 32, seed=2 * n + 1)),
}
"""A real and a generated set by number. In sets of one law distances have an influence of zero, and so no interval."""
ONE_LAW = [("prdc", sets) for sets in list(GAUSSIANS)[1:]]


def intervals(metric: str, sets: str, trials: int) -> dict[str, tuple[Tensor, Tensor]]:
    """The values of a metric (trials,) and their intervals (trials, 3), of so many fresh draws."""
    found: dict[str, list[tuple[float, Interval]]] = {}
    for trial in range(trials):
        for name, value in METRICS[metric](*GAUSSIANS[sets](trial), 0).items():
            found.setdefault(name, []).append((value.value, interval_of(value, trial)))
    return {
        name: (torch.tensor([value for value, _ in each]), torch.tensor([interval for _, interval in each]))
        for name, each in found.items()
    }


@pytest.mark.slow
@pytest.mark.parametrize(("metric", "sets"), [(name, next(iter(GAUSSIANS))) for name in METRICS] + ONE_LAW)
def test_intervals_hold_what_they_promise(metric: str, sets: str) -> None:
    """The mean of the metric lies in about 95 % of the intervals, and their errors are the metric's deviation within a
    quarter."""
    for name, (values, ends) in intervals(metric, sets, 200).items():
        held = int(((ends[:, 0] <= values.mean()) & (values.mean() <= ends[:, 1])).sum())
        assert 180 <= held <= 196, f"{name}: {held} of 200 intervals"
        assert float(ends[:, 2].mean() / values.std()) == pytest.approx(1, abs=0.25), name


@pytest.mark.parametrize(
    ("sets", "deviations"),
    [("of 10 numbers", (0.0145, 0.0146, 0.0503, 0.0089)), ("of 32 numbers", (0.0212, 0.0204, 0.0876, 0.0101))],
)
def test_errors_of_prdc_are_the_deviations_over_a_hundred_draws(sets: str, deviations: tuple[float, ...]) -> None:
    """Once density's was 0.75 of it in 32 dimensions, and coverage's 1.7 of it in 10."""
    draws = [METRICS["prdc"](*GAUSSIANS[sets](n), 0).values() for n in range(4)]
    variances = [[sum(float(psi.var()) / len(psi) for psi in value.influences) for value in draw] for draw in draws]
    errors = torch.tensor(variances).mean(0).sqrt()
    torch.testing.assert_close(errors, torch.tensor(deviations), rtol=0.25, atol=0)


# The kernel distance


def by_pairs(x: Tensor, y: Tensor) -> float:
    """The definition, pair by pair."""

    def mean(a: Tensor, b: Tensor, same: bool) -> float:
        pairs = [(p @ q / len(p) + 1) ** 3 for i, p in enumerate(a) for j, q in enumerate(b) if not (same and i == j)]
        return float(torch.stack(pairs).mean())

    return mean(x, x, True) + mean(y, y, True) - 2 * mean(x, y, False)


def test_the_kernel_distance_is_its_definition_averaged_over_blocks() -> None:
    x, y = normal(12, 4), 1.3 * normal(12, 4, seed=1) + 0.2
    assert kid(x[:9], y[:7]).value == pytest.approx(by_pairs(x[:9], y[:7]), rel=1e-12)
    found = kid(x, y, block=4)
    assert found.value == pytest.approx(sum(by_pairs(x[i : i + 4], y[i : i + 4]) for i in (0, 4, 8)) / 3, rel=1e-12)
    assert [len(psi) for psi in found.influences] == [12, 12]


@pytest.mark.parametrize("which", [0, 1])
def test_its_influence_is_what_an_images_loss_would_cost(which: int) -> None:
    """n times the change without image i: 2 n / (n - 2) of its kernel within, 2 n / (n - 1) of that across."""
    sets = [normal(400, 4), 1.3 * normal(300, 4, seed=1) + 0.2]
    found, n = kid(*sets), len(sets[which])
    changes = []
    for image in range(0, n, 20):
        less = [torch.cat((x[:image], x[image + 1 :])) if k == which else x for k, x in enumerate(sets)]
        changes.append(n * (found.value - kid(*less).value))
    psi = found.influences[which]
    expected = (psi - psi.mean())[::20]
    torch.testing.assert_close(torch.tensor(changes).double(), expected, rtol=0.02, atol=0.02 * float(psi.std()))


def test_its_mean_is_the_moments_closed_form() -> None:
    """In one dimension MMD^2 = sum over k of C(3, k) (m_k - m'_k)^2; N(0, 1) against N(1, 1): 3 + 3 + 16 = 22."""
    x, y = normal(2000, 60, 1), normal(2000, 60, 1, seed=1) + 1
    values = torch.tensor([kid(a, b).value for a, b in zip(x, y, strict=True)])
    assert abs(float(values.mean()) - 22) < 4 * float(values.std()) / 2000**0.5


def test_it_is_zero_on_average_where_nothing_differs() -> None:
    values = torch.tensor([kid(a, b).value for a, b in normal(400, 2, 20, 3)])
    assert abs(float(values.mean())) < 4 * float(values.std()) / 20
    assert float(values.min()) < 0 < float(values.max())


# The sliced Wasserstein distance


def test_directions_are_unit_vectors_of_a_key_and_evenly_distributed() -> None:
    u = directions(3, 4000, 5)
    torch.testing.assert_close(u.square().sum(1), torch.ones(4000, dtype=torch.float64))
    torch.testing.assert_close(u.T @ u / 4000, torch.eye(5, dtype=torch.float64) / 5, atol=0.01, rtol=0)
    assert torch.equal(u[:7], directions(3, 7, 5))
    assert not torch.equal(u, directions(4, 4000, 5))


def test_a_shift_is_seen_from_every_direction() -> None:
    """Carrying a whole set by s costs (u . s)^2 along u."""
    x, shift = normal(50, 6), normal(6, seed=1)
    expected = (directions(0, 512, 6) @ shift).square().mean().sqrt()
    assert sliced_wasserstein(x, x + shift).value == pytest.approx(float(expected), rel=1e-10)


@pytest.mark.parametrize(("n", "m"), [(40, 40), (6, 9), (9, 6)])
def test_in_one_dimension_it_is_a_matter_of_sorting(n: int, m: int) -> None:
    """Unequal numbers are those of equally many copies."""
    x, y = normal(n, 1), 2 * normal(m, 1, seed=1) + 1
    expected = (x.repeat(m, 1).sort(0).values - y.repeat(n, 1).sort(0).values).square().mean().sqrt()
    assert sliced_wasserstein(x, y, 4).value == pytest.approx(float(expected), rel=1e-12)


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("counts", [(800, 800), (800, 1200)])
def test_influence_is_the_cost_of_one_more_image(counts: tuple[int, int], which: int) -> None:
    """One image counted twice: the change, times how many there are, is its influence."""
    sets = [normal(counts[0], 2), 1.5 * normal(counts[1], 2, seed=1) + 0.5]
    plain, changes = sliced_wasserstein(*sets, 32), []
    psi = plain.influences[which]
    for image in range(0, 800, 40):
        more = [torch.cat((x, x[image : image + 1])) if k == which else x for k, x in enumerate(sets)]
        changes.append((sliced_wasserstein(*more, 32).value - plain.value) * len(more[which]))
    expected = (psi - psi.mean())[0:800:40]
    torch.testing.assert_close(torch.tensor(changes).double(), expected, atol=0.05 * float(psi.std()), rtol=0.02)
