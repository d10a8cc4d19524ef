"""Training on after the planned end: the plan, the rate, the bits, and what is refused."""

from __future__ import annotations

import math
import time
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from sfumato.config.train import OptimConfig
from sfumato.errors import UserError
from sfumato.run.events import Finished, Replanned, Started, Stepped
from sfumato.run.folder import Run
from sfumato.run.plan import Course, Plan, read_course
from sfumato.run.summary import RunSummary
from sfumato.train import speed as speeds
from sfumato.train.budget import Speed
from sfumato.train.extend import More
from sfumato.train.optim import learning_rate
from sfumato.train.plan import begin, resolve_course

from .conftest import begun, equal, final, go, log_of, tiny

PLAIN = {"train__grids": "0", "train__held_outs": "0", "ema__half_life": "50", "optim__warmup": "16"}


def rates(events) -> list[float]:
    return [event.lr for event in events if isinstance(event, Stepped)]


@pytest.mark.parametrize(
    ("images", "budget", "more"),
    [
        ("+1M", None, More(images=1_000_000, added=True)),
        ("500k", None, More(images=500_000)),
        (None, "+1h", More(seconds=3600.0, added=True)),
        (None, "6m", More(seconds=360.0)),
        (None, None, None),
    ],
)
def test_a_plus_asks_for_more(images, budget, more) -> None:
    assert More.parse(images, budget) == more


@pytest.mark.parametrize("decay", ["constant", "late"])
def test_before_the_decay_a_longer_run_is_one_that_was_planned_so_long(digits, run, tmp_path, decay) -> None:
    """The weights, the average and the moments have the bits of a run of that length from the start."""
    whole = Run(tmp_path / "whole")
    begun(tiny(train__images="320", optim__decay=decay, **PLAIN), whole, digits)
    config = tiny(optim__decay=decay, **PLAIN)
    begun(config, run, digits, 14)  # 112 of 160 images: 70 %
    events = go(config, run, digits, more=More(images=160, added=True))
    assert [event.images for event in events if isinstance(event, Replanned)] == [112]
    for name in ("raw", "ema", "optim"):
        one, other = (load_file(each.checkpoint(320) / f"{name}.safetensors") for each in (run, whole))
        assert equal(one, other)


@pytest.mark.parametrize("decay", ["late", "cosine", "linear"])
def test_a_finished_run_warms_up_and_decays_again(digits, run, decay) -> None:
    config = tiny(optim__decay=decay, optim__warmup="0", train__grids="0")
    before = rates(go(config, run, digits))
    events = go(config, run, digits, more=More(images=400, added=True))
    assert isinstance(events[-1], Finished)
    assert events[-1].images == 560
    assert [event.step for event in events if isinstance(event, Stepped)] == list(range(21, 71))
    after, lr = rates(events), config.optim.lr
    u = [8 * k / 400 for k in range(50)]
    decayed = {
        "late": [min(1.0, (1 - x) / 0.3) for x in u],
        "cosine": [(1 + math.cos(math.pi * x)) / 2 for x in u],
        "linear": [1 - x for x in u],
    }[decay]
    expected = [lr * min(1.0, 8 * (k + 1) / 20) * decayed[k] for k in range(50)]  # 5 % of 400 images are 20
    assert after == pytest.approx(expected)
    assert before[-1] < 0.2 * lr < max(after), "the rate had gone down, and has risen again"
    assert [line["step"] for line in log_of(run) if line["event"] == "stepped"] == list(range(1, 71))
    assert RunSummary.read(run).planned == 560


def test_an_extension_that_was_cut_off_has_the_bits_of_one_that_was_not(digits, run, tmp_path) -> None:
    config, more = tiny(), More(images=160, added=True)
    whole = Run(tmp_path / "whole")
    begun(config, whole, digits)
    go(config, whole, digits, more=more)
    begun(config, run, digits)
    go(config, run, digits, 25, more=more)
    go(config, run, digits, 31, more=more)  # the same request resumes; it does not add
    events = go(config, run, digits)  # and so does the first command
    assert events[-1].images == 320
    assert final(run) == final(whole)
    assert log_of(run) == log_of(whole)


def test_an_extension_goes_on_from_an_older_checkpoint_with_the_same_bits(digits, run, tmp_path) -> None:
    """The newest checkpoint rots after the request: the steps to it are taken again by the plan of before."""
    config, more = tiny(train__save_every="0"), More(images=80, added=True)
    whole = Run(tmp_path / "whole")
    for each in (whole, run):
        begun(config, each, digits)
    go(config, whole, digits, more=more)
    _, course = resolve_course(config, run, digits, more=more)
    begin(run, config, course, torch.device("cpu"))
    (run.checkpoint(160) / "optim.safetensors").write_bytes(b"")
    events = go(config, run, digits)
    assert events[0].resumed_at == 152
    assert final(run) == final(whole)


def test_the_same_addition_is_made_again_after_it_was_finished(digits, run) -> None:
    begun(tiny(), run, digits)
    for end in (240, 320):
        events = go(tiny(), run, digits, more=More(images=80, added=True))
        assert events[-1].images == end
        assert not events[-1].again
    course = read_course(run.read(run.plan_path))
    assert course is not None
    assert [(plan.images, plan.since, plan.start) for plan in course.plans] == [
        (160, 0, 0),
        (240, 160, 160),
        (320, 240, 240),
    ]


def test_a_total_is_reached_once_and_a_smaller_one_is_refused(digits, run) -> None:
    begun(tiny(), run, digits)
    assert go(tiny(train__images="240"), run, digits)[-1].images == 240
    again = go(tiny(train__images="240"), run, digits)
    assert [type(event) for event in again] == [Finished]
    assert again[0].again
    assert go(tiny(), run, digits)[0].again, "the first configuration means the run as it is"
    with pytest.raises(UserError, match=r"planned for 240 images, more than that: leave the length out"):
        go(tiny(train__images="200"), run, digits)
    assert run.config().train.images == 160


def test_a_longer_budget_is_planned_for_what_is_left_of_it(digits, run, monkeypatch) -> None:
    monkeypatch.setattr(speeds, "measure", lambda *_: Speed(0.5, 0.0, 0.0))
    monkeypatch.setattr(time, "perf_counter", lambda: 100.0)
    config = tiny(
        train__images="none", train__budget="20", train__grids="0", train__held_outs="0", optim__decay="cosine"
    )
    go(config, run, digits)
    steps = run.config().train.images // 8
    for more, seconds in ((More(seconds=60.0), 60.0), (More(seconds=40.0, added=True), 40.0)):
        _, course = resolve_course(config, run, digits, more=more)
        assert course.last.steps == steps + int(0.98 * seconds / 0.5), "no time has passed by this clock"
        assert (course.last.since, course.last.start, course.last.budget) == (8 * steps, 8 * steps, seconds)
    other = Run(run.path.parent / "other")
    go(tiny(train__images="160"), other, digits, 3)
    with pytest.raises(UserError, match=r"planned for 160 images, more than that budget, in which"):
        resolve_course(tiny(), other, digits, more=More(seconds=2.0))


def test_a_budget_that_is_spent_is_refused_with_the_way_to_add(digits, run) -> None:
    begun(tiny(), run, digits)
    with pytest.raises(UserError, match=r"has been trained for \d+s.*write --budget \+0.001s"):
        resolve_course(tiny(), run, digits, more=More(seconds=0.001))


def test_adding_needs_a_run(digits, run) -> None:
    with pytest.raises(UserError, match="not a run that could be extended"):
        go(tiny(), run, digits, more=More(images=8, added=True))
    assert not run.path.exists()


def test_grids_and_held_out_losses_are_spread_over_what_is_added() -> None:
    plan = Plan(320, 40, 8, 4, 2, since=160, start=160)
    assert plan.grid_steps == [25, 30, 35, 40]
    assert plan.held_out_steps == [30, 40]
    assert replace(plan, grids=0, held_outs=0).grid_steps == []


def test_an_extension_replaces_what_was_planned_for_later() -> None:
    first, corrected, later = Plan(160, 20, 8, 0, 0), Plan(200, 25, 8, 0, 0, since=40), Plan(180, 23, 8, 0, 0, since=80)
    more = Plan(400, 50, 8, 0, 0, since=56, asked="images 400")
    course = Course((first, corrected, later), 80).extended(more)
    assert course == Course((first, corrected, more), 56)
    assert read_course(course.to_table()) == course


def test_the_rate_of_an_extension_counts_from_its_start() -> None:
    config = OptimConfig(lr=1.0, warmup=0.0, decay="late")
    assert learning_rate(config, 1000, 10, 2000, start=1000) == pytest.approx(10 / 50)
    assert learning_rate(config, 1500, 10, 2000, start=1000) == 1.0
    assert learning_rate(config, 1850, 10, 2000, start=1000) == pytest.approx(0.5)
    assert learning_rate(config, 1000, 10, 2000) == 1.0


def test_the_log_says_that_it_goes_on(digits, run) -> None:
    begun(tiny(), run, digits)
    events = go(tiny(), run, digits, more=More(images=80, added=True))
    (change,) = [event for event in events if isinstance(event, Replanned)]
    assert (change.images, change.former, change.plan.images, change.plan.asked) == (160, 160, 240, "images +80")
    assert isinstance(events[0], Started)
