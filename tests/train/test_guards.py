"""Steps that are not finite are named, a streak leads back once, and an overfitting run can end by itself."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch

from sfumato.errors import UserError
from sfumato.model import load
from sfumato.run.events import Finished, HeldOut, Skipped, Started, Stepped, Warned
from sfumato.run.folder import Run
from sfumato.train.trainer import Trainer

from .conftest import begun, equal, final, go, log_of, tensors, tiny


def poison_position(monkeypatch, *positions: int) -> None:
    """Make the losses of some positions of the training stream NaN."""
    losses = Trainer._losses

    def poisoned(self, examples):
        bad = torch.isin(examples.positions, torch.tensor(positions))
        return losses(self, examples) * torch.where(bad, math.nan, 1.0)

    monkeypatch.setattr(Trainer, "_losses", poisoned)


def test_the_images_times_and_layer_of_a_skipped_step_are_named(digits, run, monkeypatch):
    poison_position(monkeypatch, 18, 21)
    (skipped,) = [event for event in go(tiny(), run, digits, 4) if isinstance(event, Skipped)]
    assert (skipped.images, skipped.steps) == (24, 1)
    index = digits.batch(torch.tensor([18, 21]), 0).index.tolist()
    assert skipped.reason.startswith("the loss of 2 of 8 images was not finite (row 2 at t = ")
    for row, i in zip((2, 5), index, strict=True):
        assert f"row {row} at t = " in skipped.reason
        assert f"'{digits.origins[i]}'" in skipped.reason
    assert skipped.reason.endswith("the first gradient that was not finite is that of exit.bias")


def test_a_gradient_that_alone_is_not_finite_is_named(digits, run, monkeypatch):
    backward = torch.Tensor.backward

    def spoiled(self, *arguments, **more):
        backward(self, *arguments, **more)
        weight = dict(trainers[0].net.named_parameters())["middle_1.conv_1.weight"]
        if trainers[0].images == 16:
            weight.grad[0] = math.inf

    trainers, build = [], Trainer._build
    monkeypatch.setattr(Trainer, "_build", lambda self: (trainers.insert(0, self), build(self))[1])
    monkeypatch.setattr(torch.Tensor, "backward", spoiled)
    (skipped,) = [event for event in go(tiny(), run, digits, 4) if isinstance(event, Skipped)]
    assert skipped.reason.startswith("the gradient was not finite, all losses were (greatest loss ")
    assert skipped.reason.endswith("is that of middle_1.conv_1.weight")


def test_skipped_steps_change_nothing_bit_for_bit(digits, monkeypatch):
    trainer = Trainer(tiny(), digits)
    trainer.step()
    before = tensors(trainer)
    poison_position(monkeypatch, *range(8, 16))
    trainer.step()
    assert equal(before, tensors(trainer))


def test_a_passing_fault_leads_back_once_and_the_run_ends_as_if_it_had_not_been(digits, run, monkeypatch, tmp_path):
    """Ten bad steps in a row the first time; the second time the same steps are sound."""
    calm = Run(tmp_path / "calm")
    begun(tiny(), calm, digits)
    losses, failed = Trainer._losses, []

    def faulty(self, examples):
        result, n = losses(self, examples), int(examples.positions[0])
        if len(failed) < 10 and n >= 48:
            failed.append(n)
            return result * math.nan
        return result

    begun(tiny(), run, digits, 3)
    monkeypatch.setattr(Trainer, "_losses", faulty)
    events = go(tiny(), run, digits)
    starts = [event.resumed_at for event in events if isinstance(event, Started)]
    assert starts == [24, 24]
    messages = [event.message for event in events if isinstance(event, Warned)]
    (warning,) = [message for message in messages if not message.startswith("overfitting")]
    assert "10 steps in a row was not finite" in warning
    assert "back at the checkpoint of 24 images" in warning
    assert isinstance(events[-1], Finished)
    assert final(run) == final(calm)
    assert [line for line in log_of(run) if line["event"] != "warned"] == log_of(calm)


def test_a_fault_that_comes_again_ends_with_a_diagnosis(digits, run, monkeypatch):
    begun(tiny(), run, digits, 3)
    poison_position(monkeypatch, *range(48, 1000))
    with pytest.raises(UserError, match=r"again after going back to it: no passing fault.*row 0 at t = .*of 24 images"):
        go(tiny(), run, digits)


def test_a_newer_checkpoint_can_be_gone_back_to_again(digits, run, monkeypatch):
    """Two passing faults far apart: each leads back to its own last checkpoint."""
    losses, left = Trainer._losses, {24: 10, 120: 10}

    def faulty(self, examples):
        result, n = losses(self, examples), int(examples.positions[0])
        key = 24 if n < 110 else 120
        if n >= key and left[key]:
            left[key] -= 1
            return result * math.nan
        return result

    monkeypatch.setattr(Trainer, "_losses", faulty)
    events = go(tiny(train__images="240", train__save_every="0"), run, digits)
    assert [event.resumed_at for event in events if isinstance(event, Started)] == [0, 24, 120]
    assert isinstance(events[-1], Finished)


# --- the end at the turn of the held-out loss


def overfitting(digits):
    """Sixteen images to train on, so many held out, and a network that learns them by heart."""
    rows = digits.train
    return replace(digits, train=rows[:8], held_out=rows[100:164])


HUNGRY = {
    "net__base": "32",
    "net__groups": "8",
    "net__dropout": "0.0",
    "train__images": "40000",
    "train__held_outs": "250",
    "train__grids": "0",
    "train__held_out_images": "64",
    "optim__name": "adamw",
    "optim__lr": "3e-3",
    "data__flip": "false",
}


def test_a_run_that_overfits_ends_at_the_turn_and_keeps_the_best_weights(digits, run):
    data = overfitting(digits)
    events = go(tiny(train__stop="overfit", **HUNGRY), run, data)
    losses = {event.images: event.loss for event in events if isinstance(event, HeldOut)}
    best = min(losses, key=losses.get)
    last = events[-1]
    assert isinstance(last, Finished)
    assert best < last.images < 40_000
    assert load(run.weights_file("best")).images == best
    assert losses[last.images] > losses[best]
    (warning,) = [event.message for event in events if isinstance(event, Warned)]
    assert warning.startswith("overfitting: the held-out loss rose")
    assert json.loads(run.finished_path.read_text())["overfits"]
    (again,) = go(tiny(train__stop="overfit", **HUNGRY), run, data)
    assert again.again
    assert again.images == last.images


@pytest.mark.slow
def test_without_asking_an_overfitting_run_goes_on(digits, run):
    """The same run to a little beyond its turn."""
    few = {"train__images": "4000", "train__held_outs": "4", "net__base": "8", "net__groups": "4"}
    events = go(tiny(**HUNGRY | few), run, overfitting(digits))
    assert any(isinstance(event, Warned) and event.message.startswith("overfitting") for event in events)
    assert max(event.images for event in events if isinstance(event, Stepped)) == 4000
    assert not json.loads(run.finished_path.read_text())["overfits"]
