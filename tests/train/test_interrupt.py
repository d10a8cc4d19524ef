"""Ctrl-C in a program that trains, and a generator that is left behind."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from sfumato.errors import UserError
from sfumato.run.events import Started
from sfumato.train import train
from sfumato.train.trainer import Trainer

from .conftest import TINY, tiny

LEFT = """
import sys
import sfumato
from sfumato.train import train

config = sfumato.resolve("small8", overrides=%r)
events = train(config, sfumato.Run(sys.argv[1]), sfumato.open_data(config.data))
for event in events:
    if event.images == 16:
        break
"""
"""A program that ends with its generator still named, in the middle of a training."""


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


def test_the_end_of_a_program_saves_and_says_nothing(digits, run, tmp_path):
    ended = subprocess.run([sys.executable, "-c", LEFT % TINY, run.path], capture_output=True, text=True, cwd=tmp_path)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    assert [folder.name for folder in run.list_checkpoints()] == ["000000000016"]
