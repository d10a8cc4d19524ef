"""States of a run by name, branches, weights to begin with, averages: on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sfumato.explain import Context
from sfumato.run.folder import Run

from .conftest import TINY, Command, trained

WORDS = ("--images", "80", "--train.keep", "every 24", "--ema.snapshots", "4")


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory, _cache: None) -> Path:
    """A finished run that keeps states of 24, 48 and 72 images."""
    return trained(tmp_path_factory, "kept", "digits", *WORDS)


def test_a_state_is_sampled_described_and_measured_by_its_images(kept: Path, sfumato: Command) -> None:
    result = sfumato("sample", f"{kept}@48", "--num", "4", "--steps", "2", "--json")
    assert result.code == 0, result.err
    assert Path(json.loads(result.out)["out"]).name == "kept-48-dpmpp-2-2-seed0.png"
    assert json.loads(result.out)["file"] == str(kept / "checkpoints" / f"{48:012d}" / "ema.safetensors")
    info = json.loads(sfumato("info", f"{kept}@48", "--json").out)
    assert (info["images_seen"], info["images"], info["lineage"]) == (48, 80, "")
    best = json.loads(sfumato("info", f"{kept}@best", "--json").out)
    assert best["weights"].endswith("best.safetensors")
    context = Context.open(Path(f"{kept}@48"))
    assert context.summary is not None
    assert context.summary.images == 48, "figures of its training end where it was saved"
    measured = sfumato("evaluate", f"{kept}@48", "--bits", "--num", "4", "--json")
    assert measured.code == 0, measured.err
    assert (kept / "evaluation").is_dir()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("sample {kept}@50k", "keeps no state of 50,000 images: there is {kept}@24, {kept}@48, {kept}@72, {kept}@80"),
        ("info {kept}@5x", "'5x' is not a number of images: write {kept}@200k, or {kept}@best"),
        ("edit vary {kept}@50k image.png", "keeps no state of 50,000 images"),
        ("diagnose {kept}@50k", "keeps no state of 50,000 images"),
        ("evaluate {kept}@50k", "keeps no state of 50,000 images"),
        ("sample {kept}@best --weights raw", "@best and --weights raw both choose weights: give one"),
        ("train --from {kept}@50k --run new", "keeps no state of 50,000 images"),
        ("train --from {kept}@48", "--from needs --run, the folder of the branch"),
        ("train --from {kept}@48 --run new --init faces", "leave --init, --preset, --config and --dry-run out"),
        ("train", "train needs DATA, for example"),
        ("train digits --run new --init nowhere --images 8", "nowhere does not exist"),
        ("ema {kept} --length soon", "--length can't be 'soon': write 0.05, or 0.03,0.05,0.1"),
        ("ema {kept} --length 0.5", "a length of 0.5 can't be computed: give one above 0, at most 0.25"),
        ("ema {kept} --length 0.1,0.2 --out a.safetensors", "--out names one file: give one --length"),
        ("ema nowhere --length 0.1", "nowhere is not a run folder"),
    ],
)
def test_mistakes_are_one_line(line: str, said: str, kept: Path, sfumato: Command, tmp_path: Path) -> None:
    result = sfumato(*line.format(kept=kept).split())
    assert result.code == 2
    assert result.err.count("\n") == 1
    assert said.format(kept=kept) in result.err
    assert not (tmp_path / "new").exists()


def test_a_branch_and_a_run_with_its_weights(kept: Path, sfumato: Command, tmp_path: Path) -> None:
    branched = sfumato("train", "--from", f"{kept}@48", "--run", "branch", "--lr", "1e-4")
    assert branched.code == 0, branched.err
    assert "resuming at 48" in branched.out
    assert "from 48 images on: optim.lr 0.006 -> 0.0001" in branched.out
    assert "finished: 80 images" in branched.out
    assert f"a branch of {kept}@48, from 48 images on" in sfumato("info", "branch").out
    begun = sfumato("train", "digits", "--run", "begun", "--init", "branch", *WORDS, *TINY)
    assert begun.code == 0, begun.err
    assert "begun with branch: " in begun.out
    assert "tensors taken over" in begun.out
    assert Run(tmp_path / "begun").read(tmp_path / "begun" / "lineage.json")["init"] == "branch"  # type: ignore[index]


def test_an_average_of_another_length_is_weights_to_sample_from(kept: Path, sfumato: Command) -> None:
    written = sfumato("ema", f"{kept}@48", "--length", "0.05,0.1", "--json")
    assert written.code == 0, written.err
    first, second = map(json.loads, written.out.splitlines())
    assert first["out"] == str(kept / "weights" / "ema-0.05-48.safetensors")
    assert (first["images"], second["length"]) == (48, 0.1)
    assert first["error"] < 1e-6, "0.05 is tracked"
    assert sfumato("sample", second["out"], "--num", "4", "--steps", "2").code == 0
    assert "states: its profile is" in sfumato("ema", kept, "--length", "0.07").out
