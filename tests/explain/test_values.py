"""What the sections collect is what the library says: the bound, the distances, the spectra, the film."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from sfumato.data.sources.protocol import printable
from sfumato.diagnose import as_json, conclude, measure, observe
from sfumato.diffusion import (
    Cosine,
    Gaussian,
    Linear,
    Noise,
    Simple,
    bits_per_dim,
    posterior,
    prior_term,
    training_loss,
    vlb,
)
from sfumato.evaluate.evaluation import Evaluation
from sfumato.evaluate.results import results_folder
from sfumato.evaluate.settings import Settings
from sfumato.explain import Context
from sfumato.explain.figure import Figure
from sfumato.explain.inside import attention_map, executed
from sfumato.explain.packing import embedded, i16, plain, unit
from sfumato.explain.report import Report, collect
from sfumato.explain.sections import bound, chain, check, diagnosis, distances, forward, quality, ranking, schedules
from sfumato.explain.sections import reverse as film
from sfumato.explain.sections.cards import provenance
from sfumato.report.figures import spaced

from .conftest import FILE, opened_run


def test_the_bound_is_the_librarys_at_every_step(context: Context) -> None:
    """With every step of the chain measured, the sum of the terms is the whole bound of `vlb`."""
    steps = torch.arange(1, 51)
    found = bound.terms(context, "held_out", steps)
    assert found is not None
    values, condition = context.needed.rows(found.rows)
    x_0 = context.model.codec.encode(values)

    class Reversed(Noise):  # `vlb` counts from the noisy end
        def step(self, i: int) -> torch.Tensor:
            return super().step(49 - i)

    noise = Reversed(context.seed, torch.arange(len(x_0)), context.model.shape)
    times = [k / 50 for k in range(50, -1, -1)]
    decoder = context.model.codec.decoder
    whole = vlb(context.model.denoiser, x_0, times, noise, context.variance, condition, decoder)
    ours = bound.whole(steps, found.bits, 50) + found.prior
    torch.testing.assert_close(ours, whole.total.double(), rtol=1e-4, atol=1e-4)


def test_terms_between_measured_steps_lie_on_a_line_of_logarithms() -> None:
    steps, bits = torch.tensor([1, 2, 10, 50]), torch.tensor([[3.0, 1.0, 0.2, 0.04]], dtype=torch.float64)
    every = torch.arange(2, 51).double()
    assert float(bound.whole(steps, bits, 50)) == pytest.approx(3.0 + float((2 / every).sum()), rel=1e-9)


def test_the_weight_of_the_bound_is_that_of_its_terms(context: Context) -> None:
    """L_{t-1} of an error e of the noise is weight e^2, in nats: against `Bound`, whose variance is the small one."""
    steps = torch.tensor([2, 10, 30, 49])
    weights = bound.bound_weight(context, steps)
    for step, weight in zip(steps.tolist(), weights.tolist(), strict=True):
        s, t = context.schedule((step - 1) / 50), context.schedule(step / 50)
        x_t, error = torch.zeros(1, 1, 1, 1, dtype=torch.float64), 0.3
        x_0 = torch.zeros_like(x_t)
        guess = x_0 - float(t.sigma / t.alpha) * error
        right = posterior(x_t, x_0, s, t)
        wrong = Gaussian(posterior(x_t, guess, s, t).mean, right.logvar)
        assert float(right.kl(wrong)) == pytest.approx(weight * error**2, rel=1e-6)


def test_distances_are_those_of_the_two_gaussians(context: Context) -> None:
    steps, mse = torch.tensor([5, 25]), torch.tensor([0.02, 0.3], dtype=torch.float64)
    kl, wasserstein = distances.distances(context, steps, mse)
    for k, step in enumerate(steps.tolist()):
        s, t = context.schedule((step - 1) / 50), context.schedule(step / 50)
        x_t = torch.zeros(1, 1, 1, 1, dtype=torch.float64)
        right, wrong = (posterior(x_t, torch.full_like(x_t, v), s, t) for v in (0.0, math.sqrt(float(mse[k]))))
        assert float(kl[k]) == pytest.approx(float(right.kl(wrong)) / math.log(2), rel=1e-6)
        assert float(wasserstein[k]) == pytest.approx(float((right.mean - wrong.mean).square()), rel=1e-6)


def test_white_noise_has_the_same_power_at_every_frequency() -> None:
    noise = torch.randn(400, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    power = forward.radial_power(noise).mean(0)
    assert power.shape == (9,)
    assert power.numpy() == pytest.approx(1.0, abs=0.15)
    flat = forward.radial_power(torch.full((1, 3, 8, 8), 0.5))
    assert float(flat[0, 0]) == pytest.approx(0.25 * 64)
    assert float(flat[0, 1:].max()) < 1e-9


def test_kolmogorovs_distance() -> None:
    assert chain.kolmogorov(torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0])) == 1.0
    assert chain.kolmogorov(torch.tensor([1.0, 3.0]), torch.tensor([2.0, 4.0])) == 0.5
    assert chain.kolmogorov(torch.arange(9.0), torch.arange(9.0)) == 0.0


def test_a_pixel_is_decided_when_its_guess_stays() -> None:
    guesses = torch.tensor([0.9, 0.0, 0.5, 0.45, 0.5]).reshape(1, 5, 1, 1, 1)
    assert film.decided(guesses).tolist() == [[[2]]]
    assert film.decided(torch.zeros(1, 5, 1, 1, 1)).tolist() == [[[0]]]


def test_steps_are_even_in_logsnr(context: Context) -> None:
    steps = spaced(Linear(), 9)
    logsnr = Linear()(steps.double() / 1000).logsnr
    assert len(steps) == 9
    assert float(logsnr.diff().std() / logsnr.diff().mean().abs()) < 0.05
    assert spaced(Linear(1), 5).tolist() == [1]


def test_a_ranking_uses_one_noise_for_all_images(context: Context) -> None:
    rows = torch.from_numpy(context.data.train[:6])
    steps = torch.tensor([10, 30])
    together = ranking.losses(context, rows, steps)
    assert together.mean(0).tolist() == pytest.approx([1, 1])
    swapped = ranking.losses(context, rows.flip(0), steps).flip(0)
    torch.testing.assert_close(together, swapped, rtol=1e-4, atol=1e-5)


def test_units_are_executed_in_order_with_their_skips(context: Context) -> None:
    net = context.model.net
    units, maps = executed(net, torch.randn(2, 3, 8, 8), torch.tensor([3.0, 3.0]))
    names = [each.name for each in units]
    assert names.index("entrance") < names.index("middle_1") < names.index("exit")
    assert sum(each.parameters for each in units) == pytest.approx(sum(p.numel() for p in net.parameters()), rel=0.01)
    single, _ = executed(
        net, torch.randn(1, 3, 8, 8), torch.tensor([3.0])
    )  # products of weights are taken once a batch
    assert sum(each.flops for each in single) == pytest.approx(net.cost(8, 8).flops, rel=1e-3)
    skips = {units[n].name for each in units for n in each.skips}
    assert "entrance" in skips
    assert maps
    assert all(
        torch.allclose(weights.sum(-1), torch.ones_like(weights[..., 0]), atol=1e-5) for weights in maps.values()
    )


def test_an_attention_map_is_softmax_of_the_products() -> None:
    qkv = torch.randn(1, 3 * 4, 2, 3, generator=torch.Generator().manual_seed(1))
    rows = qkv.flatten(2).transpose(1, 2)
    q, k = rows[..., :4], rows[..., 4:8]
    torch.testing.assert_close(attention_map(qkv, 1, False), (q @ k.transpose(1, 2) / 2).softmax(-1))


def test_numbers_survive_packing() -> None:
    values = np.array([-1.5, 0.25, 1.0])
    packed = i16(values)
    assert packed.values * packed.scale == pytest.approx(values, abs=1e-4)
    assert unit(np.array([-2.0, 0.0, 0.5, 3.0]), -1, 1).values.tolist() == [0, 128, 191, 255]
    assert plain({"a": math.nan, "b": (1, np.float64(2))}) == {"a": None, "b": [1, 2.0]}
    assert "<" not in embedded({"a": "</script><!--"})


def test_values_are_from_the_command_the_default_or_elsewhere(context: Context) -> None:
    rows = {key: place for key, _, place in provenance(context.model.config, ["sfumato", "train", "--net.base", "8"])}
    assert rows["net.base"] == "command line"
    assert rows["train.batch"] == "preset or file"
    assert rows["augment.p"] == "default"


def test_a_report_is_a_function_of_the_run(report: Report, hostile: Path) -> None:
    chosen = [each for each in report.sections if each.section.name in ("forward", "bound", "reverse", "ranking")]
    again = collect(opened_run(hostile), [each.section for each in chosen])
    assert [embedded([f.data for f in a.figures]) for a in again] == [
        embedded([f.data for f in a.figures]) for a in chosen
    ]


def test_the_loss_of_one_moment(context: Context) -> None:
    """The stored predictions are the network's own: their error is the training loss."""
    moments = context.moments
    k, step = 2, int(context.moments.steps[2])
    x_0, eps = context.images.x_0[:2], context.noise(2).prior()
    level = context.schedule(step / 50)
    alpha, sigma = float(level.alpha), float(level.sigma)
    guess = (alpha * x_0 + sigma * eps - alpha * moments.x0[:, k]) / sigma
    condition = context.images.condition
    rows = None if condition is None else condition.take(torch.arange(2))
    terms = training_loss(Simple(), context.model.denoiser, x_0, [step / 50] * 2, eps, rows)
    torch.testing.assert_close((guess - eps).square().flatten(1).mean(1), terms.loss, rtol=1e-3, atol=1e-5)


def found(report: Report, name: str) -> Figure:
    return next(figure for each in report.sections for figure in each.figures if figure.name == name)


def test_an_image_is_gone_where_little_of_it_is_left(context: Context) -> None:
    x_0 = context.images.x_0
    for schedule in (Linear(), Cosine()):
        first = schedules.gone(x_0, schedule)
        left = [float(bits_per_dim(prior_term(x_0.double(), schedule(k / 1000))).mean()) for k in (first - 1, first)]
        assert left[1] < schedules.GONE <= left[0]
    assert schedules.gone(x_0, Linear()) < schedules.gone(x_0, Cosine()), "the linear schedule is done earlier"


def test_the_diagnosis_is_that_of_the_command(report: Report, context: Context) -> None:
    assert context.total <= diagnosis.STEPS, "so nothing is left out here"
    evidence = measure(Path(context.name), context.effort.diagnosed, 0, "cpu", lambda done, total: None)
    findings = conclude(evidence)
    figure = found(report, "diagnosis")
    said = as_json(evidence, observe(evidence), findings)["verdict"]
    num = context.effort.diagnosed
    assert figure.findings == (f"{said[0].upper()}{said[1:]} This is from {num} samples of each kind.",)
    assert f"from {num} samples of each kind" in figure.caption
    assert [each["text"] for each in figure.data["findings"]] == [each.sentence for each in findings]
    assert figure.data["findings"][0]["level"] >= 2, "five steps are too few"
    assert figure.data["findings"][0]["commands"]


def test_the_check_finds_what_was_planted(report: Report) -> None:
    data = found(report, "check").data
    assert [name for name, _ in data["unreadable"]] == [printable(FILE.format(99))]
    assert "exact duplicates" in {item["title"] for item in data["advice"]}
    copies = next(sheet for sheet in data["sheets"] if sheet["title"].startswith("Duplicates (1 "))
    assert copies["captions"] == [check.cut(printable(FILE.format(n)), 40) for n in (5, 6)]
    tiles = copies["pictures"].values
    assert tiles.shape == (2, 3, check.SIDE, check.SIDE)
    assert (tiles[0] == tiles[1]).all()


def test_fewer_images_are_scanned_where_they_are_large() -> None:
    class Sized:
        def __init__(self, num: int, side: int) -> None:
            self.num, self.side = num, side

        def __len__(self) -> int:
            return self.num

        def size(self, i: int) -> tuple[int, int]:
            return self.side, self.side

    assert check.scanned(Sized(5000, 64), 600) == 600  # type: ignore[arg-type]
    assert check.scanned(Sized(5000, 4000), 600) == 62  # type: ignore[arg-type]


def test_samples_are_judged_against_the_data(hostile: Path) -> None:
    context = opened_run(hostile)
    values, _ = context.needed.rows(torch.from_numpy(context.data.train))
    x_0 = context.model.codec.encode(values)
    distances = []
    for samples in (x_0, torch.randn(x_0.shape, generator=torch.Generator().manual_seed(0))):
        context.__dict__["samples"] = samples
        figure = quality.collect(context)
        distances.append([view["value"] for _, view in figure.data["views"]])
    assert max(distances[0]) < 0.01, "the data themselves"
    assert max(distances[1]) > 0.1, "noise"
    assert "nothing like the data" in figure.findings[0]


def test_results_of_evaluate_are_shown_with_their_intervals(hostile: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(hostile, run)
    context = opened_run(run)
    assert quality.evaluated(context) == []
    stored = Evaluation(context.needed, Settings(num=8), results_folder(run)).perform(("bits", "quality"))
    bits, measured = quality.evaluated(context)
    assert (bits["kind"], measured["kind"]) == ("bits", "quality")
    assert bits["lines"][0].endswith("lower is better")
    assert not any(line.startswith("- ") for line in bits["lines"]), "the dashes are a terminal's"
    frechet = next(m for m in stored["quality"]["result"]["measures"] if m["name"] == "frechet")
    row = next(row for row in measured["measures"] if row[0] == "frechet")
    assert row[1:6] == [frechet["value"], frechet["low"], frechet["high"], frechet["floor"], "lower"]
    assert not any("sliced" in line for line in measured["lines"]), "the table is not there twice"
    other = opened_run(run, weights="raw")
    assert quality.evaluated(other) == [], "results of other weights"
