"""States that are kept, requests to a training that runs, and values that are changed on the way."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file

from sfumato.config.presets import preset_of, resolve
from sfumato.config.train import TrainConfig
from sfumato.errors import UserError
from sfumato.model import load
from sfumato.run.events import Changed, Sampled, Saved, Stepped, Warned, from_json, to_json
from sfumato.run.folder import Run
from sfumato.run.plan import Change, Course, Plan, read_course
from sfumato.train import checkpoint, train
from sfumato.train.extend import More

from .conftest import begun, equal, final, go, log_of, tiny


def kept(run: Run) -> list[int]:
    return [int(path.name) for path in reversed(run.list_checkpoints())]


# --- milestones


@pytest.mark.parametrize(
    ("keep", "reached"),
    [("every 30", [32, 64, 96, 120, 152]), ("20,100", [24, 104]), ("40", [40]), ("", []), ("every 1k", [])],
)
def test_a_milestone_is_the_step_that_reaches_it(keep: str, reached: list[int]) -> None:
    config = TrainConfig(batch=8, keep=keep)
    assert [n for n in range(8, 168, 8) if config.is_kept(n)] == reached
    assert config.num_kept(160) == len(reached)


@pytest.mark.parametrize("keep", ["every", "every day", "x,100", "-5"])
def test_a_milestone_that_is_no_number_is_refused(keep: str) -> None:
    with pytest.raises(ValueError, match="write every 100k, or 50k,200k,1M"):
        TrainConfig(keep=keep)


def test_milestones_stay_besides_the_newest_two_and_change_no_bits(digits, run, whole) -> None:
    begun(tiny(train__keep="24,64", train__save_every="0"), run, digits)
    assert kept(run) == [24, 64, 152, 160]
    assert checkpoint.is_kept(run.checkpoint(64))
    assert not checkpoint.is_kept(run.checkpoint(152))
    for name in ("raw", "ema", "optim"):
        one, other = (load_file(each.checkpoint(160) / f"{name}.safetensors") for each in (run, whole))
        assert equal(one, other)


def test_a_milestone_survives_a_resume_and_a_second_save_of_its_state(digits, run) -> None:
    config = tiny(train__keep="every 40")
    begun(config, run, digits, 5)  # closed at the milestone: saved once more, as the last save
    assert kept(run) == [40]
    assert checkpoint.is_kept(run.checkpoint(40))
    go(config, run, digits)
    assert kept(run) == [40, 80, 120, 160]


def test_a_state_is_loaded_by_its_images(digits, run) -> None:
    begun(tiny(train__keep="24,64"), run, digits)
    assert load(f"{run.path}@64").images == load(f"{run.path}@60").images == 64, "the step that reached 60"
    assert load(f"{run.path}@24", "raw").kind == "raw"
    assert load(f"{run.path}@best").path == run.weights_file("best")
    with pytest.raises(UserError, match=r"keeps no state of 100 images: there is .*@24, .*@64, .*@160 \(train.keep"):
        load(f"{run.path}@100")
    with pytest.raises(UserError, match=r"'soon' is not a number of images: write .*@200k, or .*@best"):
        load(f"{run.path}@soon")


# --- requests


@pytest.mark.parametrize("by", ["file", "signal"])
def test_a_grid_and_a_checkpoint_are_made_when_asked_for(by: str, digits, run, whole) -> None:
    events, seen = train(tiny(), run, digits), []
    for event in events:
        seen.append(event)
        if isinstance(event, Stepped) and event.step == 7:
            for path, number in ((run.sample_now_path, signal.SIGUSR1), (run.save_now_path, signal.SIGUSR2)):
                if by == "file":
                    path.touch()
                else:
                    os.kill(os.getpid(), number)
    assert {type(event) for event in seen if event.images == 56} == {Stepped, Sampled, Saved}
    assert run.grid(56).exists()
    assert kept(run) == [56, 160]
    assert not run.sample_now_path.exists()
    assert not run.save_now_path.exists()
    for name in ("raw", "ema", "optim"):
        one, other = (load_file(each.checkpoint(160) / f"{name}.safetensors") for each in (run, whole))
        assert equal(one, other)
    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL


def test_a_signal_that_is_handled_elsewhere_is_left_alone(digits, run) -> None:
    seen = []
    signal.signal(signal.SIGUSR1, lambda *_: seen.append(1))
    try:
        for event in train(tiny(), run, digits):
            if isinstance(event, Stepped) and event.step == 7:
                os.kill(os.getpid(), signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, signal.SIG_DFL)
    assert seen == [1]
    assert not run.grid(56).exists()


# --- values that are changed on the way


def test_a_changed_rate_holds_from_the_checkpoint_on_and_is_logged(digits, run) -> None:
    config = tiny(optim__decay="constant", optim__warmup="0")
    begun(config, run, digits, 10)
    other = replace(config, optim=replace(config.optim, lr=1e-4))
    events = go(other, run, digits)
    assert [event for event in events if isinstance(event, Changed)] == [Changed(80, "optim.lr 0.006 -> 0.0001")]
    assert [line["lr"] for line in log_of(run) if line["event"] == "stepped"] == [0.006] * 10 + [0.0001] * 10
    assert run.config() == other
    assert load(run).config == other


def test_a_change_is_not_applied_to_steps_before_it(digits, run, tmp_path) -> None:
    """The checkpoint that a change came into force at rots: the step to it is taken again by the values of before."""
    config = tiny(train__save_every="0")
    other = replace(config, optim=replace(config.optim, lr=1e-3))
    straight = Run(tmp_path / "straight")
    for each in (straight, run):
        go(config, each, digits, 10)
    begun(other, straight, digits)
    events = train(other, run, digits)
    next(events)
    next(events)  # the change is recorded
    events.close()
    (run.checkpoint(80) / "optim.safetensors").write_bytes(b"")
    seen = go(other, run, digits)
    assert seen[0].resumed_at == 72
    assert any(isinstance(event, Warned) for event in seen)
    assert final(run) == final(straight)
    lines = [line for line in log_of(run) if line["event"] != "warned"]
    assert lines == log_of(straight)


def test_grids_can_be_asked_for_more_often(digits, run) -> None:
    begun(tiny(train__grids="0"), run, digits, 5)
    events = go(tiny(train__grids="2", train__keep="every 80"), run, digits)
    assert [event.images for event in events if isinstance(event, Sampled)] == [160]
    assert kept(run) == [80, 160]


@pytest.mark.parametrize(
    "key", ["net__base", "train__batch", "train__seed", "optim__name", "diffusion__parameterization", "data__held_out"]
)
def test_what_the_state_depends_on_stays(key: str, digits, run) -> None:
    values = {"net__base": "8", "train__batch": "16", "train__seed": "1", "optim__name": "adamw"}
    values |= {"diffusion__parameterization": "eps", "data__held_out": "0.5"}
    begun(tiny(), run, digits, 2)
    with pytest.raises(UserError, match=rf"was started with another configuration .*{key.replace('__', '.')}"):
        go(tiny(**{key: values[key]}), run, digits)


def test_a_run_with_another_network_names_a_few_differences_and_a_folder_that_is_free(digits, run) -> None:
    begun(tiny(), run, digits, 2)
    Path(f"{run.path}-2").mkdir()
    other = tiny(net__base="8", train__batch="16", train__seed="1", diffusion__parameterization="eps", optim__lr="1")
    with pytest.raises(UserError) as error:
        go(other, run, digits)
    first, ready = str(error.value).split("): ")
    assert first.count(" -> ") == 3
    assert "(net.base " in first
    assert ", and 2 more" in first
    assert f"--run {run.path}-3, or go on with it, sfumato train {run.path}" in ready


def test_a_network_is_known_by_its_preset() -> None:
    small, edm = (resolve(name, overrides={"optim.lr": "1e-4"}) for name in ("small32", "cifar10-edm"))
    assert (preset_of(small), preset_of(edm)) == ("small32", "cifar10-edm")
    assert preset_of(tiny(net__base="72")) == ""


def test_a_finished_run_is_changed_only_with_a_length(digits, run) -> None:
    begun(tiny(), run, digits)
    other = tiny(optim__lr="1e-4")
    with pytest.raises(UserError, match=r"is finished \(optim.lr 0.006 -> 0.0001 would change nothing\): add a length"):
        go(other, run, digits)
    events = go(other, run, digits, more=More(images=80, added=True))
    assert max(event.lr for event in events if isinstance(event, Stepped)) == pytest.approx(1e-4)


def test_changes_pass_through_plan_json() -> None:
    first = Course((Plan(160, 20, 8, 0, 0),)).changed(40, "a 1 -> 2", {"a": 1}).changed(80, "a 2 -> 3", {"a": 2})
    assert read_course(first.to_table()) == first
    assert [first.config_before(n) for n in (40, 41, 80, 81)] == [{"a": 1}, {"a": 2}, {"a": 2}, None]
    again = first.changed(40, "a 3 -> 9", {"a": 3})  # from an older checkpoint: what was to come at 80 does not
    assert again.changes == (Change(40, "a 1 -> 2", {"a": 1}), Change(40, "a 3 -> 9", {"a": 2}))
    assert read_course({**first.to_table(), "changes": [{"since": "x", "text": "", "was": {}}]}) is None


def test_a_change_is_an_event_of_the_log() -> None:
    event = Changed(80, "optim.lr 0.001 -> 0.0001")
    assert from_json(to_json(event)) == event
