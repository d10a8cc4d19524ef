"""The loop: the same bits however often it is cut off, and every refusal in one line."""

from __future__ import annotations

import errno
import json
import math
import os
import random
import signal
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import safetensors.torch
import torch

from sfumato.data.pixels import to_bytes
from sfumato.errors import UserError
from sfumato.pictures import tiles
from sfumato.run import Run
from sfumato.train import checkpoint, loop, train
from sfumato.train.events import (
    Finished,
    HeldOut,
    Sampled,
    Saved,
    Skipped,
    Started,
    Stepped,
    Warned,
)
from sfumato.train.plan import Plan
from sfumato.train.record import read_events, record
from sfumato.weights import load_weights

from .conftest import tiny

TIMES = ("seconds", "cost")


def go(config, run: Run, data, steps: int | None = None, **more) -> list:
    """Train to the end, or close the generator after so many steps, and return the events."""
    events, seen = record(train(config, run, data, **more), run), []
    for event in events:
        seen.append(event)
        if isinstance(event, Stepped) and event.step == steps:
            events.close()
            break
    return seen


def final(run: Run) -> dict[str, bytes]:
    """Every tensor file of the newest checkpoint, and the weights files, byte by byte."""
    newest = max(p for p in run.checkpoints.iterdir() if p.name.isdigit())
    files = [*newest.glob("*.safetensors"), *run.weights.iterdir()]
    return {f"{path.parent.name}/{path.name}": path.read_bytes() for path in files}


def diary(run: Run) -> list[dict]:
    """The log without clocks and without what only tells of interruptions."""
    lines = [line for line in read_events(run.events_path) if line["event"] not in ("started", "saved")]
    return [{k: v for k, v in line.items() if k not in TIMES} for line in lines]


@pytest.fixture(scope="module")
def whole(digits, tmp_path_factory) -> Run:
    """Twenty steps that nobody interrupted."""
    run = Run(tmp_path_factory.mktemp("whole") / "run")
    go(tiny(digits), run, digits)
    return run


def test_a_run_tells_its_story_in_order(digits, tmp_path):
    run = Run(tmp_path / "run")
    events = go(tiny(digits), run, digits)
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
    assert (run.path / "finished.json").exists()
    model = load_weights(run)
    assert (model.images, model.kind, model.shape) == (160, "ema", (1, 8, 8))
    assert model.classes == digits.classes
    for name in ("config.toml", "environment.json", "plan.json"):
        assert (run.path / name).exists()


@pytest.mark.parametrize("cut", [[10], [1], [19], [3, 4, 11, 17]])
def test_interrupted_and_resumed_is_the_same_bit_for_bit(digits, tmp_path, whole, cut):
    run = Run(tmp_path / "run")
    for steps in cut:
        seen = go(tiny(digits), run, digits, steps)
        assert seen[-1].step == steps
    seen = go(tiny(digits), run, digits)
    assert seen[0].resumed_at == 8 * cut[-1]
    assert final(run) == final(whole)
    assert diary(run) == diary(whole)


def test_closed_between_looks_nothing_is_missed(digits, tmp_path, whole):
    """Stop at every single event once: what was due and not yet told is told on resuming, and nothing twice."""
    run, at = Run(tmp_path / "run"), 0
    while not run.finished_path.exists():
        at += 1
        events = record(train(tiny(digits), run, digits), run)
        for number, _ in enumerate(events):
            if number == at % 7:
                events.close()
                break
        assert at < 80
    assert final(run) == final(whole)
    assert diary(run) == diary(whole)


def in_child(action) -> int:
    """Run an action in a child process and return its id."""
    pid = os.fork()
    if pid == 0:
        try:
            action()
            os._exit(0)
        finally:
            os._exit(1)
    return pid


def test_killed_at_random_moments_is_the_same_bit_for_bit(digits, tmp_path, whole):
    """SIGKILL eight times, with a save after every step so that many a blow falls into one."""
    run, draw = Run(tmp_path / "run"), random.Random(1)
    config = tiny(digits, train__save_every="0")
    kills = 0
    while kills < 8:
        pid = in_child(lambda: go(config, run, digits))
        time.sleep(draw.uniform(0.02, 0.25))
        os.kill(pid, signal.SIGKILL)
        if not os.WIFSIGNALED(os.waitpid(pid, 0)[1]):
            break
        kills += 1
    go(config, run, digits)
    assert kills >= 2
    ours, theirs = final(run), final(whole)
    for name in ours:  # the headers differ in save_every alone
        a, b = safetensors.torch.load(ours[name]), safetensors.torch.load(theirs[name])
        assert all(torch.equal(a[key], b[key]) for key in a)
        assert a.keys() == b.keys()
    assert diary(run) == diary(whole)
    for picture in whole.samples.iterdir():
        assert (run.samples / picture.name).read_bytes() == picture.read_bytes()


def test_another_seed_is_another_run(digits, tmp_path, whole):
    run = Run(tmp_path / "run")
    go(tiny(digits, train__seed="1"), run, digits, 5)
    assert final(run).values() != final(whole).values()


def test_a_finished_run_says_so_and_changes_nothing(digits, whole):
    before = {path: path.read_bytes() for path in whole.path.rglob("*") if path.is_file() and path.name != "lock"}
    events = go(tiny(digits), whole, digits)
    assert [type(e) for e in events] == [Finished]
    assert events[0].again
    assert events[0].images == 160
    assert before == {p: p.read_bytes() for p in whole.path.rglob("*") if p.is_file() and p.name != "lock"}


def test_grids_are_of_the_same_seeds_and_of_both_kinds(digits, tmp_path):
    from PIL import Image

    run = Run(tmp_path / "run")
    events = go(tiny(digits, train__raw_grids="true"), run, digits)
    grids = [e for e in events if isinstance(e, Sampled)]
    assert [(e.images, e.kind) for e in grids] == [(8, "ema"), (8, "raw"), (160, "ema"), (160, "raw")]
    assert all(e.pictures.shape == (4, 1, 8, 8) and e.pictures.dtype == torch.uint8 for e in grids)
    with Image.open(run.samples / "000000000160.png") as picture:
        assert picture.text["images"] == "160"
        assert (tiles(picture) == grids[2].pictures.numpy()).all()
    with Image.open(run.samples / "000000000160-raw.png") as picture:
        assert (tiles(picture) == grids[3].pictures.numpy()).all()


# --- refusals


def test_another_configuration_is_refused_with_the_difference(digits, tmp_path):
    run = Run(tmp_path / "run")
    go(tiny(digits), run, digits, 2)
    with pytest.raises(UserError, match=r"optim\.lr 0\.001 -> 0\.002, train\.seed 0 -> 3"):
        go(tiny(digits, optim__lr="0.002", train__seed="3"), run, digits)
    with pytest.raises(UserError, match=r"train\.images 160 -> 320"):
        go(tiny(digits, train__images="320"), run, digits)


def test_a_second_trainer_is_refused(digits, tmp_path):
    run = Run(tmp_path / "run")
    events = train(tiny(digits), run, digits)
    next(events)
    with pytest.raises(UserError, match="being trained"):
        next(train(tiny(digits), run, digits))
    events.close()
    go(tiny(digits), run, digits, 1)


def test_a_folder_inside_the_data_is_refused_and_nothing_is_written(digits, tmp_path):
    inside = replace(digits, source_name=str(tmp_path))
    with pytest.raises(UserError, match="inside the data"):
        go(tiny(digits), Run(tmp_path / "run"), inside)
    assert list(tmp_path.iterdir()) == []


def test_no_length_is_refused(digits, tmp_path):
    with pytest.raises(UserError, match="how long"):
        go(tiny(digits, train__images="none"), Run(tmp_path / "run"), digits)


def test_changed_data_is_refused_unless_accepted(digits, tmp_path):
    run = Run(tmp_path / "run")
    go(tiny(digits), run, digits, 3)
    other = replace(digits, held_out=digits.held_out[1:])
    with pytest.raises(UserError, match=r"images changed.*accept"):
        go(tiny(digits), run, other)
    assert isinstance(go(tiny(digits), run, other, accept_changes=True)[-1], Finished)


@pytest.mark.parametrize(("module", "name"), [(torch, "torch"), (loop, "sfumato")])
def test_another_version_is_refused_unless_accepted(digits, tmp_path, monkeypatch, module, name):
    run = Run(tmp_path / "run")
    go(tiny(digits), run, digits, 3)
    monkeypatch.setattr(module, "__version__", "9.9.9")
    with pytest.raises(UserError, match=rf"version of {name}.*9\.9\.9"):
        go(tiny(digits), run, digits)
    assert isinstance(go(tiny(digits), run, digits, accept_changes=True)[-1], Finished)


# --- trouble on the way


def saved_every_step(digits):
    return tiny(digits, train__save_every="0")


def test_a_damaged_newest_checkpoint_falls_back_and_is_told(digits, tmp_path, whole):
    run = Run(tmp_path / "run")
    go(saved_every_step(digits), run, digits, 6)
    newest = max(run.checkpoints.iterdir())
    data = bytearray((newest / "optim.safetensors").read_bytes())
    data[len(data) // 2] ^= 4
    (newest / "optim.safetensors").write_bytes(data)
    events = go(saved_every_step(digits), run, digits)
    assert events[0].resumed_at == 40
    (warning,) = [e for e in events if isinstance(e, Warned)]
    assert "000000000048" in warning.message
    assert "000000000040" in warning.message
    tensors = [safetensors.torch.load(files["weights/ema.safetensors"]) for files in (final(run), final(whole))]
    assert all(torch.equal(tensors[0][name], tensors[1][name]) for name in tensors[0])
    assert [line for line in diary(run) if line["event"] != "warned"] == diary(whole)


def test_all_checkpoints_damaged_is_no_new_run(digits, tmp_path):
    run = Run(tmp_path / "run")
    go(saved_every_step(digits), run, digits, 4)
    for folder in run.checkpoints.iterdir():
        (folder / "manifest.json").write_text("{}")
    before = sorted(run.path.rglob("*"))
    with pytest.raises(UserError, match="no checkpoint"):
        go(saved_every_step(digits), run, digits)
    assert sorted(run.path.rglob("*")) == before


def test_a_full_disk_is_loud_and_training_goes_on(digits, tmp_path, monkeypatch):
    run = Run(tmp_path / "run")
    save, broken = checkpoint.save, [True]

    def failing(folder, position, files):
        if broken[0] and position.images >= 32:
            raise OSError(errno.ENOSPC, "No space left on device")
        return save(folder, position, files)

    monkeypatch.setattr(checkpoint, "save", failing)
    seen = []
    for event in record(train(saved_every_step(digits), run, digits), run):
        seen.append(event)
        if isinstance(event, Stepped) and event.step == 10:
            assert load_weights(run).images == 24  # what was saved stays
            broken[0] = False
    warnings = [e for e in seen if isinstance(e, Warned)]
    assert [e.images for e in warnings] == [32, 40, 48, 56, 64, 72]
    assert all("NOT SAVED" in e.message and "No space" in e.message for e in warnings)
    assert [e.images for e in seen if isinstance(e, Saved)][2:5] == [24, 80, 88]
    assert isinstance(seen[-1], Finished)


def test_a_last_save_that_fails_is_an_error(digits, tmp_path, monkeypatch):
    run = Run(tmp_path / "run")
    go(tiny(digits), run, digits, 5)

    def failing(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", failing)
        with pytest.raises(UserError, match=r"could not save at 160.*No space.*last checkpoint is of 40"):
            go(tiny(digits), run, digits)
        with pytest.raises(UserError, match=r"could not save at 56.*No space"):
            go(tiny(digits), run, digits, 7)
    assert not run.finished_path.exists()
    assert go(tiny(digits), run, digits)[0].resumed_at == 40


def poison(monkeypatch, when) -> None:
    """Make the loss of chosen steps NaN; `when` is given the step's number, from 1."""
    original = loop.Learner.step

    def step(self):
        objective, number = self.objective, self.images // self.config.train.batch + 1

        def poisoned(*arguments):
            terms = objective(*arguments)
            return type(terms)(terms.loss * (math.nan if when(number) else 1.0), terms.t)

        self.objective = poisoned
        try:
            return original(self)
        finally:
            self.objective = objective

    monkeypatch.setattr(loop.Learner, "step", step)


def test_a_step_that_is_not_finite_is_skipped_and_told(digits, tmp_path, monkeypatch):
    poison(monkeypatch, lambda number: number in (4, 5, 9))
    run = Run(tmp_path / "run")
    events = go(tiny(digits), run, digits)
    skips = [e for e in events if isinstance(e, Skipped)]
    assert [(e.images, e.steps, e.in_a_row) for e in skips] == [(32, 1, 1), (40, 1, 2), (72, 1, 1)]
    assert [e.step for e in events if isinstance(e, Stepped)] == [n for n in range(1, 21) if n not in (4, 5, 9)]
    assert isinstance(events[-1], Finished)
    lines = list(read_events(run.events_path))
    assert sum(line["event"] == "skipped" for line in lines) == 3
    assert "NaN" not in run.events_path.read_text()


def test_many_skips_in_a_row_stop_at_the_last_good_checkpoint(digits, tmp_path, monkeypatch):
    run = Run(tmp_path / "run")
    go(tiny(digits), run, digits, 3)
    good = final(run)
    poison(monkeypatch, lambda number: number > 6)
    with pytest.raises(UserError, match=r"diverged.*10 steps in a row.*last checkpoint is of 24.*optim\.lr"):
        go(tiny(digits), run, digits)
    assert final(run) == good
    monkeypatch.undo()
    assert go(tiny(digits), run, digits)[0].resumed_at == 24


def test_an_error_in_the_middle_of_a_step_saves_nothing(digits, tmp_path, monkeypatch):
    run = Run(tmp_path / "run")
    go(tiny(digits), run, digits, 3)
    good = final(run)
    apply = loop.Learner._apply

    def interrupted(self, terms, loss):
        outcome = apply(self, terms, loss)  # the weights have moved, the clock has not
        if self.images == 48:
            raise KeyboardInterrupt
        return outcome

    with monkeypatch.context() as patch:
        patch.setattr(loop.Learner, "_apply", interrupted)
        with pytest.raises(KeyboardInterrupt):
            go(tiny(digits), run, digits)
    assert final(run) == good
    go(tiny(digits), run, digits)


def test_out_of_memory_names_a_batch(digits, tmp_path, monkeypatch):
    def step(self):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(loop.Learner, "step", step)
    with pytest.raises(UserError, match=r"train\.batch=4"):
        go(tiny(digits), Run(tmp_path / "run"), digits)


def test_reports_of_several_steps_add_up(digits, tmp_path, monkeypatch):
    """As on a GPU: sixteen steps a report, cut where anybody looks, and the same bits in the end."""
    run, single = Run(tmp_path / "many"), Run(tmp_path / "one")
    one = [e for e in go(tiny(digits), single, digits) if isinstance(e, Stepped)]
    init = loop._Session.__init__

    def windowed(self, *arguments):
        init(self, *arguments)
        self.every = 16

    monkeypatch.setattr(loop._Session, "__init__", windowed)
    many = [e for e in go(tiny(digits), run, digits) if isinstance(e, Stepped)]
    assert [(e.step, e.steps) for e in many] == [(1, 1), (10, 9), (16, 6), (20, 4)]
    for event in many:
        part = [e for e in one if event.step - event.steps < e.step <= event.step]
        assert event.loss == pytest.approx(sum(e.loss for e in part) / len(part))
        assert event.grad_norm == pytest.approx(sum(e.grad_norm for e in part) / len(part))
        assert sum(event.buckets.count) == sum(sum(e.buckets.count) for e in part)
    assert final(run) == final(single)


def test_saving_takes_a_small_share_of_the_time(digits, tmp_path, monkeypatch):
    run = Run(tmp_path / "run")
    config, plan = tiny(digits, train__save_every="10"), Plan(160, 20, 8, 0, 0)
    session = loop._Session(config, run, digits, torch.device("cpu"), plan)
    session.learner.images = 8
    now = session.save_clock
    for cost, gone, due in ((0, 9, False), (0, 11, True), (1, 11, False), (1, 19, False), (1, 21, True)):
        session.save_cost = cost
        monkeypatch.setattr(time, "perf_counter", lambda gone=gone: now + gone)
        assert session._save_is_due() is due


def test_the_log_is_json_throughout(whole):
    for line in whole.events_path.read_text().splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


@pytest.mark.slow
def test_killed_twenty_times_is_the_same_bit_for_bit(digits, tmp_path: Path):
    config = tiny(digits, train__images="2400", train__save_every="0")
    calm, hurt, draw = Run(tmp_path / "calm"), Run(tmp_path / "hurt"), random.Random(2)
    go(config, calm, digits)
    for _ in range(20):
        pid = in_child(lambda: go(config, hurt, digits))
        time.sleep(draw.uniform(0.3, 1.0))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    go(config, hurt, digits)
    assert final(hurt) == final(calm)
    assert diary(hurt) == diary(calm)


def frechet(a, b) -> float:
    """The Frechet distance of two sets of images as pixels in [-1, 1], each taken for a Gaussian."""
    import numpy as np
    import scipy.linalg

    a, b = (np.asarray(x).reshape(len(x), -1).astype(np.float64) / 127.5 - 1 for x in (a, b))
    c_a, c_b = np.cov(a.T), np.cov(b.T)
    root = scipy.linalg.sqrtm((c_a + 1e-9 * np.eye(len(c_a))) @ (c_b + 1e-9 * np.eye(len(c_b)))).real
    return float(np.square(a.mean(0) - b.mean(0)).sum() + np.trace(c_a + c_b - 2 * root))


@pytest.mark.slow
def test_half_a_minute_on_digits_learns_digits(digits, tmp_path):
    """The held-out loss falls to less than 0.45 of its first value, and samples come near the data.

    The scale of the distance: noise is 40 away from the digits, two random halves of the digits are 0.25 apart.
    """
    from sfumato.config import resolve
    from sfumato.generate import sample
    from sfumato.presets import PRESETS

    config = resolve("digits", None, {"train.images": "16000", "train.grids": "0"})
    assert config.net == PRESETS["digits"].config.net
    plain = replace(digits, config=config.data)
    run = Run(tmp_path / "run")
    losses = [e.loss for e in train(config, run, plain) if isinstance(e, HeldOut)]
    assert losses[-1] < 0.45 * losses[0]
    assert all(b < 1.01 * a for a, b in pairwise(losses))
    model = load_weights(run)
    pictures = to_bytes(sample(model, 500, seed=1, steps=25, batch=250))
    assert frechet(pictures, plain.images[plain.train]) < 1.5
