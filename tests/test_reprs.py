"""What a notebook shows of a value is a line, whatever it holds."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sfumato.config.data import DataConfig
from sfumato.data import Dataset, open_data
from sfumato.evaluate import METRICS, find_memorised
from sfumato.run.events import Buckets, HeldOut
from sfumato.run.folder import Run
from sfumato.run.summary import RunSummary


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return open_data(DataConfig("digits", labels="source"), tmp_path_factory.mktemp("cache"))


def test_data_and_events(digits: Dataset) -> None:
    assert repr(digits).startswith("<Dataset digits: ")
    assert repr(digits.batch(torch.arange(3), 0)) == "Batch(3 of 1x8x8, labelled)"
    losses = Buckets((1.0,) * 10, (2,) * 10)
    assert repr(losses) == "Buckets(mean 0.5 of 20)"
    assert repr(Buckets()) == "Buckets(empty)"
    assert len(repr(HeldOut(640, 0.5, losses, 1.0, 0.4, losses, True))) < 200


def test_results(digits: Dataset, tmp_path: Path) -> None:
    real, ours = torch.randn(2, 40, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for value in METRICS["prdc"](real, ours, 0).values():
        assert repr(value) == f"MetricValue({value.value:.6g}, higher is better)"
    memorised = find_memorised(digits, torch.tensor(digits.images[digits.held_out[:20]]), cache=tmp_path)
    assert repr(memorised) == f"Memorisation({memorised.sentence})"
    assert repr(memorised.spaces[0]).startswith("NearestDistances(pixels: 20 images, ")
    summary = RunSummary(Run(tmp_path), {}, {}, None, (), False, {}, (), ())
    assert repr(summary) == f"RunSummary({str(tmp_path)!r}: 0 images)"
