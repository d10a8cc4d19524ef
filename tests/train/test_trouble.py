"""The loop in trouble: refused in one line, or loud and going on, and never a checkpoint the worse for it."""

from __future__ import annotations

import errno
import math
import os
import shutil
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
from sfumato.run.plan import Course, Plan
from sfumato.train import checkpoint, saver, train
from sfumato.train import session as sessions
from sfumato.train.checkpoint import find_damage, not_finite
from sfumato.train.trainer import Trainer

from .conftest import Altered, begun, equal, final, go, log_of, tiny

# --- refusals


def test_another_configuration_is_refused_with_the_difference(digits, run):
    begun(tiny(), run, digits, 2)
    with pytest.raises(UserError, match=r"train\.seed 0 -> 3, optim\.lr 0\.\d+ -> 0\.002"):
        go(tiny(optim__lr="0.002", train__seed="3"), run, digits)


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
    begun(tiny(), run, digits, 3)
    if changed == "images":
        digits = replace(digits, held_out=digits.held_out[1:])
    else:
        monkeypatch.setattr({"torch": torch, "sfumato": saver}[changed.split()[-1]], "__version__", "9.9.9")
    with pytest.raises(
        UserError, match=rf"{changed} changed .*{'' if changed == 'images' else '9.9.9'}.*--accept-changes"
    ):
        go(tiny(), run, digits)
    assert isinstance(go(tiny(), run, digits, accept_changes=True)[-1], Finished)


# --- trouble on the way


SAVED_OFTEN = tiny(train__save_every="0")


def test_a_damaged_newest_checkpoint_falls_back_and_is_reported(digits, run, whole):
    begun(SAVED_OFTEN, run, digits, 6)
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
    begun(SAVED_OFTEN, run, digits, 4)
    for folder in run.checkpoints.iterdir():
        (folder / "manifest.json").write_text("{}")
    before = sorted(run.path.rglob("*"))
    with pytest.raises(UserError, match="no checkpoint"):
        go(SAVED_OFTEN, run, digits)
    assert sorted(run.path.rglob("*")) == before


def test_a_full_disk_is_loud_and_training_goes_on(digits, run, monkeypatch):
    save, broken = checkpoint.save, [True]

    def failing(run, position, *files):
        if broken[0] and position.images >= 32:
            raise OSError(errno.ENOSPC, "No space left on device")
        return save(run, position, *files)

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

    monkeypatch.setattr(sessions, "save_png", failing)
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
    begun(tiny(), run, digits, 5)

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
    original = Trainer.step

    def step(self):
        objective, number = self.objective, self.images // self.config.train.batch + 1
        self.objective = Altered(objective, lambda loss: loss * (math.nan if when(number) else 1.0))
        try:
            return original(self)
        finally:
            self.objective = objective

    monkeypatch.setattr(Trainer, "step", step)


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
    begun(tiny(), run, digits, 3)
    good = {name: content for name, content in final(run).items() if not name.endswith("best.safetensors")}
    poison(monkeypatch, lambda number: number > 6)
    with pytest.raises(UserError, match=r"diverged.*10 steps in a row.*last checkpoint is of 24.*optim\.lr"):
        go(tiny(), run, digits)
    best = "weights/best.safetensors"  # a held-out pass came after the checkpoint, on an average that is still sound
    assert {name: content for name, content in final(run).items() if name != best} == good
    assert load(run.path / best).images > 24
    monkeypatch.undo()
    assert go(tiny(), run, digits)[0].resumed_at == 24


@pytest.mark.parametrize("steps", [3, 20])
def test_a_training_without_a_finite_step_never_finishes(digits, run, monkeypatch, steps: int):
    """Ten bad steps from the start, or all of a shorter training, are a refusal and no advice about the rate."""
    poison(monkeypatch, lambda number: True)
    with pytest.raises(UserError, match=rf"all {min(steps, 10)} steps so far was not finite: run 'sfumato data check'"):
        go(tiny(train__images=str(8 * steps)), run, digits)
    assert not run.finished_path.exists()


def test_an_error_in_the_middle_of_a_step_saves_nothing(digits, run, monkeypatch):
    begun(tiny(), run, digits, 3)
    good = final(run)
    apply = Trainer._apply

    def interrupted(self, *given):
        metrics = apply(self, *given)  # the weights have moved, the clock has not
        if self.images == 48:
            raise KeyboardInterrupt
        return metrics

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_apply", interrupted)
        with pytest.raises(KeyboardInterrupt):
            go(tiny(), run, digits)
    assert final(run) == good
    go(tiny(), run, digits)


def test_out_of_memory_names_a_batch(digits, tmp_path, monkeypatch):
    def step(self):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Trainer, "step", step)
    with pytest.raises(UserError, match=r"train\.batch=4"):
        go(tiny(), Run(tmp_path / "run"), digits)


def test_saving_takes_a_small_share_of_the_time(digits, run, monkeypatch):
    config, course = tiny(train__save_every="10"), Course((Plan(160, 20, 8, 0, 0),))
    session = sessions.Session(config, run, digits, torch.device("cpu"), course)
    session.trainer.images = 8
    now = session.saver.clock
    for cost, gone, due in ((0, 9, False), (0, 11, True), (1, 11, False), (1, 19, False), (1, 21, True)):
        session.pace.save = cost
        monkeypatch.setattr(time, "perf_counter", lambda gone=gone: now + gone)
        assert session.saver.is_due() is due


# --- the weights files are those of the newest checkpoint


def meddle(events, when, act, seen: list | None = None) -> None:
    """Go on to the end, and do something at one event."""
    for event in events:
        if seen is not None:
            seen.append(event)
        if when(event):
            act()


def at_step(step: int):
    return lambda event: isinstance(event, Stepped) and event.step == step


def weights_of(folder) -> dict[str, bytes]:
    return {name: (folder / f"{name}.safetensors").read_bytes() for name in ("raw", "ema")}


def copies(run: Run) -> bool:
    return weights_of(run.weights) == weights_of(run.list_checkpoints()[0])


@pytest.mark.parametrize("at", [0, 1])
def test_killed_between_the_last_checkpoint_and_its_weights(digits, run, monkeypatch, at):
    begun(tiny(), run, digits, 10)
    pid = os.fork()
    if pid == 0:
        calls = iter(range(9))
        write = checkpoint.write_atomic

        def deadly(*arguments, **more):
            if run.checkpoint(160).exists() and next(calls) == at:
                os._exit(9)
            write(*arguments, **more)

        monkeypatch.setattr(checkpoint, "write_atomic", deadly)
        try:
            go(tiny(), run, digits)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
    assert run.checkpoint(160).exists()
    assert not copies(run)
    assert isinstance(go(tiny(), run, digits)[-1], Finished)
    assert copies(run)
    assert load(run).images == 160


def test_a_finished_run_mends_its_weights(digits, run):
    begun(tiny(), run, digits)
    good, older = weights_of(run.weights), run.weights / "older"
    run.weights_file("ema").rename(older)
    run.weights_file("raw").write_bytes(older.read_bytes())
    (event,) = go(tiny(), run, digits)
    assert event.again
    assert weights_of(run.weights) == good
    run.weights_file("ema").write_bytes(b"mine")
    shutil.rmtree(run.checkpoint(160))  # an older one is not what the run ended with
    go(tiny(), run, digits)
    assert run.weights_file("ema").read_bytes() == b"mine"


def test_weights_that_can_not_be_written_are_a_warning_and_an_error_at_the_end(digits, run):
    seen = []

    def take_away():
        run.weights.rename(run.path / "aside")
        run.weights.write_text("")

    with pytest.raises(UserError, match=r"weights files were not written .*the checkpoint of 160 images stands"):
        meddle(train(SAVED_OFTEN, run, digits), at_step(5), take_away, seen)
    assert any("not written" in e.message and "of 48 images stands" in e.message for e in seen if isinstance(e, Warned))
    assert not any("NOT SAVED" in e.message for e in seen if isinstance(e, Warned))
    assert [e.images for e in seen if isinstance(e, Saved)] == list(range(8, 160, 8))
    assert not run.finished_path.exists()
    run.weights.unlink()
    (run.path / "aside").rename(run.weights)
    go(SAVED_OFTEN, run, digits)
    assert copies(run)


# --- nothing begins anew over what exists


def snapshot(run: Run) -> dict:
    return {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file() and path != run.lock_path}


@pytest.mark.parametrize("lost", ["all", "log too", "weights too", "all but the best and config.toml"])
def test_a_run_whose_checkpoints_are_gone_is_refused(digits, run, lost):
    begun(tiny(), run, digits, 10)
    shutil.rmtree(run.checkpoints)
    if lost != "all":
        (shutil.rmtree if lost == "weights too" else os.unlink)(
            run.weights if lost == "weights too" else run.events_path
        )
    if "best" in lost:
        run.weights_file("ema").unlink()
        run.weights_file("raw").unlink()
    before = snapshot(run)
    words = "on 80 images and" if run.events_path.exists() else "was trained and"
    with pytest.raises(UserError, match=rf"{words} has no checkpoint.*new --run"):
        go(tiny(), run, digits)
    assert snapshot(run) == before


def test_a_finished_run_without_checkpoints_stays_finished(digits, run):
    begun(tiny(), run, digits)
    shutil.rmtree(run.checkpoints)
    before = snapshot(run)
    assert go(tiny(), run, digits)[0].again
    assert snapshot(run) == before


def test_a_run_killed_before_its_first_checkpoint_begins_again(digits, run, whole):
    pid = os.fork()
    if pid == 0:
        for event in train(tiny(), run, digits):
            if isinstance(event, Stepped) and event.step == 15:
                os._exit(9)
    os.waitpid(pid, 0)
    assert load(run, "best").images == 80
    go(tiny(), run, digits)
    assert final(run) == final(whole)


def test_a_newest_checkpoint_that_is_gone_is_reported(digits, run):
    begun(SAVED_OFTEN, run, digits, 6)
    shutil.rmtree(run.checkpoint(48))
    events = go(SAVED_OFTEN, run, digits, 6)
    assert events[0].resumed_at == 40
    assert [e.message for e in events if isinstance(e, Warned)] == [
        "the checkpoint of 48 images is gone: resuming from 40 images"
    ]


# --- the run folder is the one that was locked


@pytest.mark.parametrize("change", ["moved", "deleted", "lock deleted", "another lock"])
def test_a_run_folder_that_changes_is_named_and_does_not_grow_again(digits, run, change):
    def act():
        if change == "moved":
            run.path.rename(run.path.with_name("elsewhere"))
        elif change == "deleted":
            shutil.rmtree(run.path)
        else:
            run.lock_path.unlink()
            if change == "another lock":
                run.lock_path.write_text("")

    def when(event):
        return isinstance(event, Saved) and event.images == 40

    with pytest.raises(UserError, match=r"moved or deleted .*last checkpoint is of 40 images"):
        meddle(train(SAVED_OFTEN, run, digits), when, act)
    if "lock" not in change:
        assert not run.path.exists()
    if change == "moved":
        run = Run(run.path.with_name("elsewhere"))
    if change != "deleted":
        assert go(SAVED_OFTEN, run, digits)[0].resumed_at == 40


def test_a_run_folder_deleted_before_the_end_is_no_success(digits, run):
    events = train(tiny(train__grids="0", train__held_outs="0"), run, digits)
    with pytest.raises(UserError, match="moved or deleted"):
        meddle(events, at_step(3), lambda: shutil.rmtree(run.path))
    assert not run.path.exists()


def test_a_log_that_was_deleted_is_reported(digits, run):
    seen = []
    meddle(train(tiny(), run, digits), at_step(5), run.events_path.unlink, seen)
    (warning,) = [e for e in seen if isinstance(e, Warned)]
    assert "events.jsonl was removed" in warning.message


# --- a training that diverges


def images_of(run: Run) -> list[int]:
    return [int(folder.name) for folder in run.list_checkpoints()]


def test_nothing_is_saved_while_steps_are_skipped(digits, run, monkeypatch):
    poison(monkeypatch, lambda number: number > 6)
    for _ in range(3):  # restarts do not creep on
        with pytest.raises(UserError, match=r"diverged.*up to image 128; the last checkpoint is of 48"):
            go(SAVED_OFTEN, run, digits)
        assert images_of(run) == [48, 40]
    events = train(SAVED_OFTEN, run, digits)
    for event in events:
        if isinstance(event, Skipped) and event.images == 72:
            events.close()
    assert images_of(run) == [48, 40]


@pytest.mark.parametrize("bad", [1, 2])
def test_a_run_does_not_end_in_skipped_steps(digits, run, monkeypatch, bad):
    poison(monkeypatch, lambda number: number > 20 - bad)
    if bad == 1:  # one batch can be bad
        assert isinstance(go(tiny(), run, digits)[-1], Finished)
        return
    with pytest.raises(UserError, match=r"diverged: .* last 2 steps"):
        go(SAVED_OFTEN, run, digits)
    assert not run.finished_path.exists()
    assert images_of(run) == [144, 136]


def test_a_rate_that_overflows_leaves_no_value_that_is_not_finite(digits, run):
    config = tiny(train__save_every="0", optim__lr="1e38", optim__warmup="0")
    with pytest.raises(UserError, match=r"diverged.*best\.safetensors is of 0 images"):
        go(config, run, digits)
    for path in run.path.rglob("*.safetensors"):
        assert not_finite({"file": safetensors.torch.load(path.read_bytes())}) is None, path
    assert all(find_damage(folder) is None for folder in run.list_checkpoints())


def test_a_rate_that_ruins_the_weights_stops_at_the_same_image_each_time(digits, run):
    config, ends = tiny(train__save_every="0", optim__lr="1e10", optim__warmup="0"), []
    for _ in range(3):
        with pytest.raises(UserError, match=r"diverged.*up to image (\d+)") as error:
            go(config, run, digits)
        ends.append(str(error.value).partition("up to image ")[2].partition(";")[0])
    assert len(set(ends)) == 1
    steps = [line["images"] for line in read_events(run.events_path) if line["event"] == "stepped"]
    assert images_of(run)[0] <= max(steps)


def test_a_resume_with_other_threads_is_reported(digits, run):
    begun(tiny(), run, digits, 3)
    old = run.read(run.environment_path)
    run.write(run.environment_path, {**old, "threads": 7, "device": "a card"})
    (warning,) = [e for e in go(tiny(), run, digits, 5) if isinstance(e, Warned)]
    assert warning.message.startswith("threads 7 -> 1, device a card -> cpu since this run began")
