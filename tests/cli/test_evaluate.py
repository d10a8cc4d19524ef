"""`sfumato evaluate`: figures in words or JSON, kept, resumed, shared."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sfumato.cli import signals
from sfumato.evaluate.work import Work

from .conftest import TINY, Command

FEW = ("--num", 12, "--steps", 3, "--device", "cpu")


def test_all_three_by_default_in_words_and_then_from_the_files(sfumato: Command, plain: Path) -> None:
    result = sfumato("evaluate", plain, *FEW, "--out", "out")
    assert result.code == 0
    sections = [section.splitlines() for section in result.out.split("\n\n")]
    assert [section[0] for section in sections] == ["bits", "quality", "memorisation"]
    assert " bits per dimension, 95 % interval " in sections[0][1]
    assert sections[1][1] == "12 images drawn by dpmpp-2 in 3 steps, seed 0, against 12 training images"
    assert "signs of repeating" in sections[2][1] or "repeat" in sections[2][1]
    for section in sections:
        assert Path(section[-1].removeprefix("- ")).is_file()
    assert result.err.startswith(f"evaluating {plain} on cpu: 1,236 evaluations of the network, about ")
    again = sfumato("evaluate", plain, *FEW, "--out", "out", "--batch", 5)
    assert (again.code, again.out, again.err) == (0, result.out, "")


def test_json_is_one_object_with_the_files_contents(sfumato: Command, plain: Path) -> None:
    said = json.loads(sfumato("evaluate", plain, *FEW, "--bits", "--memorisation", "--json", "--out", "out").out)
    assert set(said) == {"bits", "memorisation"}
    for report in said.values():
        assert json.loads(Path(report["file"]).read_bytes()) == {k: v for k, v in report.items() if k != "file"}
    assert said["bits"]["environment"]["packages"]["sfumato"]


def test_results_lie_in_the_run(sfumato: Command, plain: Path, tmp_path: Path) -> None:
    run, alone = tmp_path / "run", tmp_path / "alone.safetensors"
    shutil.copytree(plain, run)
    shutil.copy(run / "weights" / "ema.safetensors", alone)
    for source in (run, run / "weights" / "ema.safetensors", alone):
        assert sfumato("evaluate", source, "--bits", *FEW).code == 0
    for folder in (run, tmp_path):
        assert len(list((folder / "evaluation").glob("bits-*.json"))) == 1
    assert sfumato("evaluate", run, "--bits", "--weights", "raw", *FEW).code == 0
    assert len(list((run / "evaluation").glob("bits-*.json"))) == 2


def test_options_reach_the_measurement(sfumato: Command, plain: Path) -> None:
    line = "--bits --quality --sampler ddpm --variance analytic --method vlb --repeats 2 --seed 3 --range free "
    line += "--extractor pixels --real held_out --json --out out"
    said = json.loads(sfumato("evaluate", plain, *FEW, *line.split()).out)
    assert said["bits"]["settings"] | {
        "method": "vlb", "steps": 3, "repeats": 2, "variance": "analytic", "seed": 3, "clip": False, "num": 12,
    } == said["bits"]["settings"]  # fmt: skip
    settings = said["quality"]["settings"]
    assert settings | {"sampler": "ddpm", "variance": "analytic", "real": "held_out"} == settings
    assert settings["extractor"]["name"] == "pixels"


def test_a_conditional_model_is_measured_with_labels(sfumato: Command, labelled: Path) -> None:
    report = json.loads(sfumato("evaluate", labelled, *FEW, "--json", "--out", "out").out)
    assert report["bits"]["settings"]["labels"] == "each image's own"
    assert report["quality"]["settings"]["labels_like"] == report["bits"]["settings"]["data"]


def test_a_learned_variance_is_scored_and_sampled_with(sfumato: Command, tmp_path: Path) -> None:
    learned = ["--diffusion.variance", "learned", "--diffusion.objective", "hybrid"]
    assert sfumato("train", "digits", "--run", tmp_path / "run", "--images", 40, *TINY, *learned).code == 0
    words = [tmp_path / "run", *FEW, "--bits", "--quality", "--sampler", "ddpm", "--json"]
    own = json.loads(sfumato("evaluate", *words).out)
    assert {own[kind]["settings"]["variance"] for kind in own} == {"learned"}
    small = json.loads(sfumato("evaluate", *words, "--variance", "small").out)
    for kind in own:
        assert small[kind]["result"] != own[kind]["result"], kind


def test_other_images_are_brought_to_the_models_size(sfumato: Command, plain: Path, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for n in range(60):
        Image.new("RGB", (20, 30), (4 * n, 0, 255 - 4 * n)).save(folder / f"{n}.png")
    report = json.loads(sfumato("evaluate", plain, "--bits", *FEW, "--data", folder, "--json", "--out", "out").out)
    assert report["bits"]["images"] == str(folder)
    assert any("as asked" in note for note in report["bits"]["notes"])
    assert any("held-out images were scored; 12 were asked for" in note for note in report["bits"]["notes"])


SHARED = ("--num", 48, "--steps", 3, "--method", "vlb", "--batch", 8, "--device", "cpu", "--json")


def launched(plain: Path, out: Path, rank: int) -> subprocess.Popen[str]:
    environment = os.environ | {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    words = ["evaluate", plain, *SHARED, "--out", out]
    return subprocess.Popen(
        [sys.executable, "-m", "sfumato", *map(str, words)], stdout=subprocess.PIPE, text=True, env=environment
    )


def test_two_processes_come_to_the_same(sfumato: Command, plain: Path, tmp_path: Path) -> None:
    both = [launched(plain, tmp_path / "shared", rank) for rank in range(2)]
    said = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert said[1] == "", "the first alone speaks"
    alone = json.loads(sfumato("evaluate", plain, *SHARED, "--out", "alone").out)
    shared = json.loads(said[0])
    for kind, report in alone.items():
        assert shared[kind]["result"] == report["result"], kind


def test_a_helper_leaves_only_the_sums_to_the_first(
    sfumato: Command, plain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    helper = sfumato("evaluate", plain, *FEW, "--out", "out")
    assert (helper.code, helper.out, helper.err) == (0, "", "")
    monkeypatch.setenv("RANK", "0")
    first = sfumato("evaluate", plain, *FEW, "--out", "out")
    assert first.out.startswith("bits\n")
    assert "evaluating" not in first.err


def test_an_interrupted_evaluation_says_how_to_go_on(
    sfumato: Command, plain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*arguments: Any) -> bytes:
        raise signals.Stop(2)

    with monkeypatch.context() as patch:
        patch.setattr(Work, "_draw", stop)
        result = sfumato("evaluate", plain, *FEW, "--out", "out")
    assert (result.code, result.out) == (130, "")
    assert result.err.splitlines()[-1] == "sfumato: stopped; the same command goes on from there"
    assert "36 evaluations" in sfumato("evaluate", plain, *FEW, "--out", "out").err, "the scored part is kept"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("RUN --num 0", "num is 0"),
        ("RUN --steps 51", "steps is 51, and the model's chain has 50"),
        ("RUN --batch 0", "batch is 0"),
        ("RUN --sampler ddpm --eta 0.5", "eta belongs to ddim"),
        ("RUN --method vbl", "--method can't be 'vbl'; did you mean 'vlb'?"),
        ("bare --weights best", "bare has no 'best' weights; it has ema"),
        ("FILE --weights raw", "--weights raw chooses between the weights of a run"),
        ("RUN --variance learned", "this model has learnt no variance"),
        ("RUN --extractor inception", "'inception' needs a file of weights"),
        ("RUN --extractor inception:no.pth", "there is no file of weights 'no.pth'"),
        ("RUN --extractor dinov2:FILE", "does not hold the weights of DINOv2"),
        ("RUN --extractor pixel", "did you mean 'pixels'?"),
        ("RUN --data nowhere", "there is no folder and no built-in data 'nowhere'"),
        ("RUN --data other", "other has class = a, b, and the model knows 0, 1, 2, 3, ..."),
        ("RUN --device tpu", "--device can't be 'tpu'"),
        ("RUN --out taken", "Not a directory: taken/parts"),
        ("nowhere", "nowhere does not exist"),
    ],
)
def test_a_mistake_is_one_line(line: str, said: str, refused: Command, labelled: Path, tmp_path: Path) -> None:
    for n in range(6):
        (folder := tmp_path / "other" / "ab"[n % 2]).mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), 40 * n).save(folder / f"{n}.png")
    (tmp_path / "taken").touch()
    (tmp_path / "bare" / "weights").mkdir(parents=True)
    file = Path(shutil.copy(labelled / "weights" / "ema.safetensors", tmp_path / "bare" / "weights"))
    words = [str(labelled) if word == "RUN" else word.replace("FILE", str(file)) for word in line.split()]
    assert said in refused("evaluate", *words)
    assert not (labelled / "evaluation").exists()
