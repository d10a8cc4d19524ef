"""The loop: the same bits however often it is cut off, and every refusal in one line."""

from __future__ import annotations

import json
import math
import time
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import scipy.linalg
from PIL import Image

from sfumato.config.presets import PRESETS, resolve
from sfumato.generate.pictures import tiles
from sfumato.generate.recipe import Recipe
from sfumato.generate.sample import sample
from sfumato.model import load
from sfumato.run.events import Finished, HeldOut, Sampled, Saved, Started, Stepped
from sfumato.run.folder import Run
from sfumato.train import checkpoint, train
from sfumato.train.session import Session

from .conftest import begun, final, go, log_of, tiny


def test_events_come_in_order_and_the_run_is_recorded(digits, run):
    events = go(tiny(), run, digits)
    assert isinstance(events[0], Started)
    assert isinstance(events[-1], Finished)
    assert isinstance(events[-2], Saved)
    assert [e.images for e in events] == sorted(e.images for e in events)
    steps = [e for e in events if isinstance(e, Stepped)]
    assert [e.step for e in steps] == list(range(1, 21))
    assert [e.images for e in steps] == [8 * e.step for e in steps]
    assert all(sum(e.buckets.count) == 8 and math.isclose(e.buckets.mean, e.loss) for e in steps)
    assert [e.images for e in events if isinstance(e, HeldOut)] == [0, 80, 160]
    assert [e.images for e in events if isinstance(e, Sampled)] == [8, 160]
    assert run.finished_path.exists()
    model = load(run)
    assert (model.images, model.kind, model.shape) == (160, "ema", (1, 8, 8))
    assert model.attributes == digits.attributes
    for name in ("config.toml", "environment.json", "plan.json"):
        assert (run.path / name).exists()


@pytest.mark.parametrize("cut", [[10], [1], [19], [3, 4, 11, 17]])
def test_interrupted_and_resumed_is_the_same_bit_for_bit(digits, run, whole, cut):
    for steps in cut:
        seen = go(tiny(), run, digits, steps)
        assert seen[-1].step == steps
    seen = go(tiny(), run, digits)
    assert seen[0].resumed_at == 8 * cut[-1]
    assert final(run) == final(whole)
    assert log_of(run) == log_of(whole)


def test_closed_between_two_events_nothing_is_missed(digits, tmp_path, whole):
    """Stop at every single event once: what was due and not yet reported is reported on resuming, and nothing twice."""
    run, at = Run(tmp_path / "run"), 0
    while not run.finished_path.exists():
        at += 1
        events = train(tiny(), run, digits)
        for number, _ in enumerate(events):
            if number == at % 7:
                events.close()
                break
        assert at < 80
    assert final(run) == final(whole)
    assert log_of(run) == log_of(whole)


def test_seconds_of_earlier_sessions_count(digits, run, monkeypatch):
    begun(tiny(), run, digits, 10)
    _, position = checkpoint.newest(run, pytest.fail)
    assert position.seconds > 0
    monkeypatch.setattr(time, "perf_counter", lambda: 0.0)  # no time passes in this session
    assert {event.seconds for event in go(tiny(), run, digits) if isinstance(event, Stepped)} == {position.seconds}


def test_another_seed_is_another_run(digits, run, whole):
    begun(tiny(train__seed="1"), run, digits, 5)
    assert final(run).values() != final(whole).values()


def test_a_finished_run_says_so_and_changes_nothing(digits, whole):
    before = {path: path.read_bytes() for path in whole.path.rglob("*") if path.is_file() and path.name != "lock"}
    events = go(tiny(), whole, digits)
    assert [type(e) for e in events] == [Finished]
    assert events[0].again
    assert events[0].images == 160
    assert before == {p: p.read_bytes() for p in whole.path.rglob("*") if p.is_file() and p.name != "lock"}


def test_grids_are_of_the_same_seeds_and_of_both_kinds(digits, run):
    events = go(tiny(train__raw_grids="true"), run, digits)
    grids = [e for e in events if isinstance(e, Sampled)]
    assert [(e.images, e.kind) for e in grids] == [(8, "ema"), (8, "raw"), (160, "ema"), (160, "raw")]
    assert all(e.pictures.shape == (4, 1, 8, 8) and e.pictures.dtype == np.uint8 for e in grids)
    for event in grids:
        with Image.open(run.grid(event.images, event.kind)) as picture:
            assert picture.text["images"] == str(event.images)
            assert (tiles(picture) == event.pictures).all()


def test_reports_of_several_steps_add_up(digits, tmp_path, monkeypatch):
    """As on a GPU: sixteen steps a report, fewer before a grid or a held-out loss, and the same bits in the end."""
    run, single = Run(tmp_path / "many"), Run(tmp_path / "one")
    one = [e for e in go(tiny(), single, digits) if isinstance(e, Stepped)]
    init = Session.__init__

    def windowed(self, *arguments):
        init(self, *arguments)
        self.window = 16

    monkeypatch.setattr(Session, "__init__", windowed)
    many = [e for e in go(tiny(), run, digits) if isinstance(e, Stepped)]
    assert [(e.step, e.steps) for e in many] == [(1, 1), (10, 9), (16, 6), (20, 4)]
    for event in many:
        part = [e for e in one if event.step - event.steps < e.step <= event.step]
        assert event.loss == pytest.approx(sum(e.loss for e in part) / len(part))
        assert event.grad_norm == pytest.approx(sum(e.grad_norm for e in part) / len(part))
        assert sum(event.buckets.count) == sum(sum(e.buckets.count) for e in part)
    assert final(run) == final(single)


def test_the_log_is_json_throughout(whole):
    for line in whole.events_path.read_text().splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def frechet(a, b) -> float:
    """The Frechet distance of two sets of images as pixels in [-1, 1], each taken for a Gaussian."""
    a, b = (np.asarray(x).reshape(len(x), -1).astype(np.float64) / 127.5 - 1 for x in (a, b))
    c_a, c_b = np.cov(a.T), np.cov(b.T)
    root = scipy.linalg.sqrtm((c_a + 1e-9 * np.eye(len(c_a))) @ (c_b + 1e-9 * np.eye(len(c_b)))).real
    return float(np.square(a.mean(0) - b.mean(0)).sum() + np.trace(c_a + c_b - 2 * root))


@pytest.mark.slow
def test_half_a_minute_on_digits_learns_digits(digits, run):
    """The held-out loss falls to less than 0.45 of its first value, and samples come near the data.

    The scale of the distance: noise is 40 away from the digits, two random halves of the digits are 0.25 apart.
    """
    config = resolve("small8", None, {"train.images": "16000", "train.grids": "0"})
    assert config.net == PRESETS["small8"].config.net
    plain = replace(digits, config=config.data)
    losses = [e.loss for e in train(config, run, plain) if isinstance(e, HeldOut)]
    assert losses[-1] < 0.45 * losses[0]
    assert all(b < 1.01 * a for a, b in pairwise(losses))
    model = load(run)
    pictures = model.codec.shown(sample(model, 500, Recipe("ddim", steps=25), seed=1, batch=250))
    assert frechet(pictures, plain.images[plain.train]) < 1.5
