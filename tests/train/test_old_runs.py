"""Run folders of earlier versions load, sample and resume: what a user has trained stays of use."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from sfumato.generate.recipe import Recipe
from sfumato.generate.sample import sample
from sfumato.model import load
from sfumato.run.events import Finished, Started, Stepped
from sfumato.run.folder import Run
from sfumato.run.log import read_events
from sfumato.run.summary import RunSummary
from sfumato.train import checkpoint, train
from sfumato.train.extend import More

RUNS = Path(__file__).parent.parent / "fixtures" / "runs"
VERSIONS = sorted(path.name for path in RUNS.iterdir() if path.is_dir())


@pytest.fixture(params=VERSIONS)
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Run:
    """A copy of the run of one version."""
    shutil.copytree(RUNS / request.param, tmp_path / "run")
    return Run(tmp_path / "run")


def test_there_is_one_of_each_version() -> None:
    assert VERSIONS == ["v1", "v2", "v3", "v4"]


@pytest.mark.parametrize("weights", ["ema", "raw", "best"])
def test_its_weights_are_sampled_from(old: Run, weights: str) -> None:
    model = load(old, weights)
    assert model.images <= 96
    pictures = sample(model, 2, Recipe(steps=2))
    assert pictures.shape == (2, 1, 8, 8)
    assert bool(pictures.isfinite().all())


def test_its_summary_is_read(old: Run) -> None:
    summary = RunSummary.read(old)
    assert (summary.planned, summary.finished, len(summary.checkpoints)) == (160, False, 1)
    assert 80 <= summary.images <= 96
    assert summary.held_out is not None
    assert summary.describe()["loss"] > 0


def test_it_resumes_to_its_end_and_goes_on(old: Run) -> None:
    config = old.config()
    data = load(old).data()
    position = checkpoint.last_good(old)
    assert position is not None
    before = [line for line in read_events(old.events_path) if line["event"] == "stepped"]
    events = list(train(config, old, data, accept_changes=True))
    assert isinstance(events[0], Started)
    assert events[0].resumed_at == position.images
    assert isinstance(events[-1], Finished)
    lines = [line for line in read_events(old.events_path) if line["event"] == "stepped"]
    assert [line["step"] for line in lines] == list(range(1, 21))
    assert lines[: len(before)] == before, "what was logged stays"
    more = list(train(config, old, data, accept_changes=True, more=More(images=40, added=True)))
    assert more[-1].images == 200
    assert all(event.loss < 100 for event in more if isinstance(event, Stepped))
    assert load(old).images == 200


def test_a_resumed_old_run_starts_from_the_weights_that_were_saved(old: Run) -> None:
    """No step is taken: the state is saved again with the same tensors."""
    position = checkpoint.last_good(old)
    assert position is not None
    before = load(old.checkpoint(position.images), "raw").net.state_dict()
    events = train(old.config(), old, load(old).data(), accept_changes=True)
    next(events)
    events.close()
    after = load(old, "raw").net.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
