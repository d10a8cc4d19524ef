"""`sfumato plan`: the cost of a training, and what follows from it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

from sfumato.cli.main import main
from sfumato.config.presets import resolve
from sfumato.config.units import parse_seconds, suggested
from sfumato.nets import Interface


def test_everything_is_said_and_nothing_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["plan", "digits", "--seconds", "0.2", "--train.grid_steps=2"]) == 0
    said, err = capsys.readouterr()
    assert "measuring the speed of training for about 0.2 s" in err, "it may take long"
    for word in (
        "parameters",
        "arithmetic",
        "memory",
        "disk",
        "images/s",
        "length",
        "time",
        "an hour",
        "sfumato train digits",
    ):
        assert word in said
    assert list(tmp_path.iterdir()) == []


def test_json_has_the_figures(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "digits", "--seconds", "0", "--json", "--train.batch", "16"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["batch"] == 16
    config = resolve("small8").net
    with torch.device("meta"):
        net = config.build(Interface(1))
    matrices = sum(p.numel() for p in net.matrices().values())  # Muon keeps one moment of them
    assert found["memory_bytes"] == 20 * found["parameters"] - 4 * matrices + 16 * found["activation_bytes"]
    assert found["disk_bytes"] == 60 * found["parameters"] - 12 * matrices + found["store_bytes"]
    assert found["seconds"] is None


@pytest.mark.parametrize("seconds", [3, 31, 95, 119, 300, 1500, 5300, 5501, 30_000])
def test_a_suggested_budget_is_long_enough_and_can_be_read(seconds: float) -> None:
    length = parse_seconds(suggested(seconds))
    assert seconds <= length * 1.02
    assert length <= max(60, 2.1 * seconds)


def test_what_does_not_fit_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sfumato.train.forecast.available_memory", lambda device: 30_000_000)
    assert main(["plan", "digits", "--seconds", "0", "--train.batch", "4096"]) == 0
    said = capsys.readouterr().out
    assert "this will not fit" in said
    advice = re.search(r"use --train\.micro (\d+): so many images at once, the same batch of 4096", said)
    assert advice
    assert main(["plan", "digits", "--seconds", "0", "--train.batch", "4096", "--train.micro", advice[1]]) == 0
    said = capsys.readouterr().out
    assert "this will not fit" not in said
    assert f"with {advice[1]} images at once" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["digits", "--seconds", "-1"], "--seconds is -1"),
        (["digits", "--preset", "digit"], "unknown preset"),
        (["nowhere/at/all"], "there is no"),
        (["digits", "--train.bach", "3"], "bach"),
    ],
)
def test_mistakes_are_one_line(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", *words]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1
