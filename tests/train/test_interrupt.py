"""Ctrl-C in a program that trains, and a generator that is left behind."""

from __future__ import annotations

import signal

import pytest

from sfumato.errors import UserError
from sfumato.run.events import Started
from sfumato.train import train
from sfumato.train.trainer import Trainer

from .conftest import tiny


def test_ctrl_c_within_a_step_finishes_it_and_saves(digits, run, monkeypatch):
    step = Trainer.step

    def pressed(self):
        if self.images == 16:
            signal.raise_signal(signal.SIGINT)
        return step(self)

    monkeypatch.setattr(Trainer, "step", pressed)
    with pytest.raises(KeyboardInterrupt):
        list(train(tiny(), run, digits))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    monkeypatch.setattr(Trainer, "step", step)
    started = next(train(tiny(), run, digits))
    assert isinstance(started, Started)
    assert started.resumed_at == 24


def test_a_generator_left_behind_is_named(digits, run):
    earlier = train(tiny(), run, digits)
    next(earlier)
    with pytest.raises(UserError, match="by this very process: close the earlier generator"):
        next(train(tiny(), run, digits))
    earlier.close()
