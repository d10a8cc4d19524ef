"""The loop in trouble: refused in one line, or loud and going on, and never a checkpoint the worse for it."""

from __future__ import annotations

import errno
import math
import time
from dataclasses import replace

import pytest
import safetensors.torch
import torch

from sfumato.errors import UserError
from sfumato.model import load
from sfumato.run.events import Finished, Sampled, Saved, Skipped, Stepped, Warned
from sfumato.run.folder import Run
from sfumato.run.log import read_events
from sfumato.run.plan import Plan
from sfumato.train import checkpoint, loop, train

from .conftest import Altered, equal, final, go, log_of, tiny

# --- refusals


def test_another_configuration_is_refused_with_the_difference(digits, run):
    go(tiny(), run, digits, 2)
    with pytest.raises(UserError, match=r"optim\.lr 0\.001 -> 0\.002, train\.seed 0 -> 3"):
        go(tiny(optim__lr="0.002", train__seed="3"), run, digits)
    with pytest.raises(UserError, match=r"train\.images 160 -> 320"):
        go(tiny(train__images="320"), run, digits)


def test_a_second_trainer_is_refused(digits, run):
    events = train(tiny(), run, digits)
    next(events)
    with pytest.raises(UserError, match="being trained"):
        next(train(tiny(), run, digits))
    events.close()
    go(tiny(), run, digits, 1)


def test_a_folder_inside_the_data_is_refused_and_nothing_is_written(digits, tmp_path):
    inside = replace(digits, source_name=str(tmp_path))
    with pytest.raises(UserError, match="inside the data"):
        go(tiny(), Run(tmp_path / "run"), inside)
    assert list(tmp_path.iterdir()) == []


def test_no_length_is_refused(digits, tmp_path):
    with pytest.raises(UserError, match="no training length"):
        go(tiny(train__images="none"), Run(tmp_path / "run"), digits)


@pytest.mark.parametrize("changed", ["images", "version of torch", "version of sfumato"])
def test_changes_are_refused_unless_accepted(digits, run, monkeypatch, changed):
    go(tiny(), run, digits, 3)
    if changed == "images":
        digits = replace(digits, held_out=digits.held_out[1:])
    else:
        monkeypatch.setattr({"torch": torch, "sfumato": loop}[changed.split()[-1]], "__version__", "9.9.9")
    with pytest.raises(
        UserError, match=rf"{changed} changed .*{'' if changed == 'images' else '9.9.9'}.*--accept-changes"
    ):
        go(tiny(), run, digits)
    assert isinstance(go(tiny(), run, digits, accept_changes=True)[-1], Finished)


# --- trouble on the way


SAVED_OFTEN = tiny(train__save_every="0")


def test_a_damaged_newest_checkpoint_falls_back_and_is_reported(digits, run, whole):
    go(SAVED_OFTEN, run, digits, 6)
    newest = max(run.checkpoints.iterdir())
    data = bytearray((newest / "optim.safetensors").read_bytes())
    data[len(data) // 2] ^= 4
    (newest / "optim.safetensors").write_bytes(data)
    events = go(SAVED_OFTEN, run, digits)
    assert events[0].resumed_at == 40
    (warning,) = [e for e in events if isinstance(e, Warned)]
    assert "000000000048" in warning.message
    assert "000000000040" in warning.message
    assert equal(*(safetensors.torch.load(final(r)["weights/ema.safetensors"]) for r in (run, whole)))
    assert [line for line in log_of(run) if line["event"] != "warned"] == log_of(whole)


def test_all_checkpoints_damaged_is_no_new_run(digits, run):
    go(SAVED_OFTEN, run, digits, 4)
    for folder in run.checkpoints.iterdir():
        (folder / "manifest.json").write_text("{}")
    before = sorted(run.path.rglob("*"))
    with pytest.raises(UserError, match="no checkpoint"):
        go(SAVED_OFTEN, run, digits)
    assert sorted(run.path.rglob("*")) == before


def test_a_full_disk_is_loud_and_training_goes_on(digits, run, monkeypatch):
    save, broken = checkpoint.save, [True]

    def failing(run, position, files):
        if broken[0] and position.images >= 32:
            raise OSError(errno.ENOSPC, "No space left on device")
        return save(run, position, files)

    monkeypatch.setattr(checkpoint, "save", failing)
    seen = []
    for event in train(SAVED_OFTEN, run, digits):
        seen.append(event)
        if isinstance(event, Stepped) and event.step == 10:
            assert load(run).images == 24  # what was saved stays
            broken[0] = False
    warnings = [e for e in seen if isinstance(e, Warned)]
    assert [e.images for e in warnings] == [32, 40, 48, 56, 64, 72]
    assert all("NOT SAVED" in e.message and "No space" in e.message for e in warnings)
    assert [e.images for e in seen if isinstance(e, Saved)][2:5] == [24, 80, 88]
    assert isinstance(seen[-1], Finished)


def test_a_log_that_can_not_be_written_is_reported_once_and_waits(digits, run, whole):
    aside, seen = run.path / "aside", []
    for event in train(tiny(), run, digits):
        seen.append(event)
        if isinstance(event, Stepped) and event.step == 5:
            run.events_path.rename(aside)
            run.events_path.mkdir()
        if isinstance(event, Stepped) and event.step == 12:
            run.events_path.rmdir()
            aside.rename(run.events_path)
    (warning,) = [e for e in seen if isinstance(e, Warned)]
    assert str(run.events_path) in warning.message
    assert [line for line in log_of(run) if line["event"] != "warned"] == log_of(whole)


def test_a_grid_that_can_not_be_written_is_reported(digits, run, monkeypatch):
    def failing(*_):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(loop, "save_png", failing)
    events = go(tiny(train__grids="1"), run, digits)
    (drawn,) = [i for i, e in enumerate(events) if isinstance(e, Sampled)]
    assert events[drawn].pictures.shape == (4, 1, 8, 8)
    assert str(run.grid(160)) in events[drawn + 1].message
    assert "Read-only" in events[drawn + 1].message
    assert isinstance(events[-1], Finished)


def test_every_step_is_in_exactly_one_line_wherever_the_run_is_cut(digits, run, monkeypatch):
    """Lines of six steps: closing ends the line before the checkpoint is saved."""
    monkeypatch.setattr("sfumato.run.log.MAX_LINES", 3)
    for steps in (4, 11, None):
        go(tiny(), run, digits, steps)
    lines = [line for line in read_events(run.events_path) if line["event"] == "stepped"]
    assert [(line["step"], line["steps"]) for line in lines] == [(4, 4), (6, 2), (11, 5), (12, 1), (18, 6), (20, 2)]


def test_a_last_save_that_fails_is_an_error(digits, run, monkeypatch):
    go(tiny(), run, digits, 5)

    def failing(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", failing)
        with pytest.raises(UserError, match=r"could not save at 160.*No space.*last checkpoint is of 40"):
            go(tiny(), run, digits)
        with pytest.raises(UserError, match=r"could not save at 56.*No space"):
            go(tiny(), run, digits, 7)
    assert not run.finished_path.exists()
    assert go(tiny(), run, digits)[0].resumed_at == 40


def poison(monkeypatch, when) -> None:
    """Make the loss of chosen steps NaN; `when` is given the step's number, from 1."""
    original = loop.Trainer.step

    def step(self):
        objective, number = self.objective, self.images // self.config.train.batch + 1
        self.objective = Altered(objective, lambda loss: loss * (math.nan if when(number) else 1.0))
        try:
            return original(self)
        finally:
            self.objective = objective

    monkeypatch.setattr(loop.Trainer, "step", step)


def test_a_step_that_is_not_finite_is_skipped_and_reported(digits, run, monkeypatch):
    poison(monkeypatch, lambda number: number in (4, 5, 9))
    events = go(tiny(), run, digits)
    skips = [e for e in events if isinstance(e, Skipped)]
    assert [(e.images, e.steps, e.in_a_row) for e in skips] == [(32, 1, 1), (40, 1, 2), (72, 1, 1)]
    assert [e.step for e in events if isinstance(e, Stepped)] == [n for n in range(1, 21) if n not in (4, 5, 9)]
    assert isinstance(events[-1], Finished)
    lines = list(read_events(run.events_path))
    assert sum(line["event"] == "skipped" for line in lines) == 3
    assert "NaN" not in run.events_path.read_text()


def test_many_skips_in_a_row_stop_at_the_last_good_checkpoint(digits, run, monkeypatch):
    go(tiny(), run, digits, 3)
    good = {name: content for name, content in final(run).items() if not name.endswith("best.safetensors")}
    poison(monkeypatch, lambda number: number > 6)
    with pytest.raises(UserError, match=r"diverged.*10 steps in a row.*last checkpoint is of 24.*optim\.lr"):
        go(tiny(), run, digits)
    best = "weights/best.safetensors"  # a held-out pass came after the checkpoint, on an average that is still sound
    assert {name: content for name, content in final(run).items() if name != best} == good
    assert load(run.path / best).images > 24
    monkeypatch.undo()
    assert go(tiny(), run, digits)[0].resumed_at == 24


def test_an_error_in_the_middle_of_a_step_saves_nothing(digits, run, monkeypatch):
    go(tiny(), run, digits, 3)
    good = final(run)
    apply = loop.Trainer._apply

    def interrupted(self, terms, loss):
        metrics = apply(self, terms, loss)  # the weights have moved, the clock has not
        if self.images == 48:
            raise KeyboardInterrupt
        return metrics

    with monkeypatch.context() as patch:
        patch.setattr(loop.Trainer, "_apply", interrupted)
        with pytest.raises(KeyboardInterrupt):
            go(tiny(), run, digits)
    assert final(run) == good
    go(tiny(), run, digits)


def test_out_of_memory_names_a_batch(digits, tmp_path, monkeypatch):
    def step(self):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(loop.Trainer, "step", step)
    with pytest.raises(UserError, match=r"train\.batch=4"):
        go(tiny(), Run(tmp_path / "run"), digits)


def test_saving_takes_a_small_share_of_the_time(digits, run, monkeypatch):
    config, plan = tiny(train__save_every="10"), Plan(160, 20, 8, 0, 0)
    session = loop.Session(config, run, digits, torch.device("cpu"), plan)
    session.trainer.images = 8
    now = session.save_clock
    for cost, gone, due in ((0, 9, False), (0, 11, True), (1, 11, False), (1, 19, False), (1, 21, True)):
        session.save_cost = cost
        monkeypatch.setattr(time, "perf_counter", lambda gone=gone: now + gone)
        assert session.save_is_due() is due
