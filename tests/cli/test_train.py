"""`sfumato train`: what it decides, writes, says, refuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
import torch
from PIL import Image

from sfumato.cli import launch
from sfumato.cli.options import split_overrides
from sfumato.config.data import DataConfig
from sfumato.data import open_data
from sfumato.data.store import sizes
from sfumato.explain.context import Context
from sfumato.explain.figure import Missing
from sfumato.model import load
from sfumato.report.text import duration
from sfumato.run.folder import Run
from sfumato.weights import read

from .conftest import TINY, Command, tiny

BRIEF = ["--images", "80", *TINY]


def test_overrides_are_taken_out_in_both_spellings() -> None:
    words = ["faces", "--net.base", "64", "--seed", "1", "--a.b.c=d=e", "--budget=2m", "--net.x", "-1"]
    assert split_overrides(words) == (
        (("net.base", "64"), ("a.b.c", "d=e"), ("net.x", "-1")),
        ["faces", "--seed", "1", "--budget=2m"],
    )


def test_a_run_is_trained_told_and_not_trained_twice(sfumato: Command, tmp_path: Path) -> None:
    first = sfumato("train", "digits", *BRIEF)
    assert first.code == 0
    assert "1,797 images of 1x8x8" in first.out
    assert "small8: 1,697 images of 8x8" in first.out, "the preset and why"
    assert "finished: 80 images" in first.out
    run = Run(tmp_path / "runs" / "digits")
    assert {p.stem for p in run.weights.iterdir()} == {"best", "ema", "raw"}
    assert run.config().net.base == 8
    before = run.events_path.read_bytes()
    again = sfumato("train", "digits", *BRIEF)
    assert again.code == 0
    assert "nothing to do" in again.out
    assert run.events_path.read_bytes() == before


def test_a_finished_run_goes_on_by_its_folder_or_by_the_first_command(sfumato: Command, tmp_path: Path) -> None:
    assert sfumato("train", "digits", *BRIEF).code == 0
    more = sfumato("train", "runs/digits", "--images", "+40")
    assert more.code == 0
    assert "as this run was begun" in more.out
    assert "going on to 120 images instead of 80; the learning rate rises again" in more.out
    assert "finished: 120 images" in more.out
    assert "resuming at 80: 120 images in steps of 8" in more.out, "by the new plan, not the one that it replaces"
    (last,) = [line for line in more.out.splitlines() if line.startswith("finished")]
    figures = json.loads(sfumato("info", "runs/digits", "--json").out)
    assert f", loss {figures['loss']:.4f}, " in last, "of the steps of both sessions"
    assert last.startswith(f"finished: 120 images in {duration(figures['seconds'])}")
    again = sfumato("train", "digits", *BRIEF)
    assert "this run is finished: 120 images" in again.out
    assert "sfumato train runs/digits --images +500k goes on" in again.out
    assert "finished: 160 images" in sfumato("train", "digits", *TINY, "--images", "160").out, "a total"
    assert Run(tmp_path / "runs" / "digits").config().train.images == 80, "what it was begun with"
    plan = json.loads(sfumato("train", "runs/digits", "--images", "+1k", "--dry-run", "--json").out)["plan"]
    assert (plan["images"], plan["start"], plan["asked"]) == (1160, 160, "images +1000")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("train photos --net.bsae 3", "unknown key net.bsae; did you mean 'net.base'?"),
        ("train photos --net.base x", "net.base"),
        ("train photos --preset small8 --optim.lr=-1", "--lr = -1.0: must be above 0"),
        ("train photos --train.log nothing", "there is no sink 'nothing'"),
        ("train photos --labels nowhere.csv", "there is no 'nowhere.csv'"),
        ("train photos --labels source", "--labels is source, but"),
        ("train photos --init nowhere", "nowhere does not exist"),
        ("train photos --run taken", "taken holds files, but no run"),
        ("train photos --run photos/run", "lies inside the data"),
        ("train photos --preset small8 --run {run}", "is trained on digits: choose another --run"),
        ("evaluate {run} --data photos --extractor nothing", "there is no feature extractor 'nothing'"),
        ("evaluate {run} --data photos --extractor inception:nowhere", "nowhere"),
        ("evaluate {run} --data photos --out taken/mine", "--out taken/mine is a file"),
    ],
)
def test_what_is_wrong_is_said_before_an_image_is_decoded(
    line: str, said: str, plain: Path, refused: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "photos").mkdir()
    for n in range(4):
        Image.new("L", (8, 8), 60 * n).save(tmp_path / "photos" / f"{n}.png")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine").write_text("x")
    monkeypatch.setattr("sfumato.data.dataset.open_store", lambda *_: pytest.fail("images were read"))
    assert said in refused(*line.format(run=plain).split())


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("digits --run new --images +40", "new is not a run that could be extended: give its length without a plus"),
        ("{run} --run other", "is a run, not images: leave --run out to go on with it"),
        ("{run} --preset small8", "is a run, which has its configuration: leave --preset and --config out"),
        ("{run} --images 40", "is planned for 80 images, more than that: leave the length out"),
        ("{run} --train.log tensorbord", "did you mean 'tensorboard'?"),
        ("{run} --images +x", '"x" is not a number of images'),
        ("{run} --budget 0.001s", "does not cover: write --budget +0.001s to go on for so long"),
        ("fashion --run {run}", "is trained on digits: choose another --run for fashion"),
    ],
)
def test_what_cannot_be_extended_is_refused(line: str, said: str, plain: Path, refused: Command) -> None:
    assert said in refused("train", *line.format(run=plain).split(), "--dry-run")


def test_json_is_one_object_a_line(sfumato: Command) -> None:
    result = sfumato("train", "digits", "--json", "--run", "r", *BRIEF)
    events = [json.loads(line) for line in result.out.splitlines()]
    assert [events[0]["event"], events[-1]["event"]] == ["started", "finished"]
    assert [e["images"] for e in events if e["event"] == "stepped"] == list(range(8, 88, 8))


def test_a_dry_run_writes_nothing_and_its_output_is_a_config(sfumato: Command, tmp_path: Path) -> None:
    result = sfumato("train", "digits", "--dry-run", "--seed", "5", "--images", "1.5k", *TINY)
    assert result.code == 0
    assert list(tmp_path.iterdir()) == []
    table = tomllib.loads(result.out)
    assert (table["net"]["base"], table["train"]["seed"], table["train"]["images"]) == (8, 5, 1500)
    assert table["diffusion"]["schedule"] == {"kind": "cosine", "num_steps": 50, "s": 0.008}
    for fact in (
        "# parameters",
        "# cost",
        "# memory",
        "# length      1,500 images in 188 steps",
        "# data        digits: 1,797 images",
    ):
        assert fact in result.out
    (tmp_path / "kept.toml").write_text(result.out)
    again = sfumato("train", "digits", "--dry-run", "--config", "kept.toml")
    assert tomllib.loads(again.out) == table


def test_a_networks_values_are_laid_over_the_chosen_preset(sfumato: Command, tmp_path: Path) -> None:
    """They fit the preset's others (8 channels and its groups of 8), not those of the largest network."""
    (tmp_path / "part.toml").write_text("[net]\nbase = 16\n")
    for words in (("--net.base", "16"), ("--config", "part.toml")):
        said = json.loads(sfumato("train", "digits", "--dry-run", "--json", "--images", "64", *words).out)
        assert (said["config"]["net"]["base"], said["config"]["net"]["groups"]) == (16, 8)


def test_dry_run_in_json(sfumato: Command) -> None:
    said = json.loads(sfumato("train", "fashion", "--dry-run", "--json").out)
    assert said["shape"] == [1, 28, 28]
    assert 16 * said["parameters"] < said["state_bytes"] < 20 * said["parameters"], "Muon keeps one moment of most"


def test_a_budget_plans_a_length(sfumato: Command) -> None:
    result = sfumato("train", "digits", "--dry-run", "--budget", "20s", *TINY)
    train = tomllib.loads(result.out)["train"]
    assert train["budget"] == 20
    assert train["images"] > 100
    assert "planned from" in result.out


def test_a_preset_is_chosen_by_size_or_taken_as_asked(sfumato: Command, tmp_path: Path) -> None:
    assert "# run         runs/fashion " in sfumato("train", "fashion", "--dry-run").out
    assert "# run         runs/faces " in sfumato("train", "faces", "--preset", "small8", "--dry-run").out
    for n in range(3):
        Image.new("RGB", (60, 40), (80 * n, 0, 0)).save(tmp_path / f"{n}.png")
    result = sfumato("train", tmp_path, "--dry-run", "--run", tmp_path.parent / "elsewhere")
    assert "small64: 3 images of" in result.out
    assert "only 3 training images" in sfumato("data", tmp_path, "--out", tmp_path.parent / "sheet.png").out


def test_short_names_of_what_is_set_most_often(sfumato: Command) -> None:
    words = ["--lr", "3e-4", "--batch=16", "--size", "12x16", "--labels", "source", "--images", "1e3"]
    report = json.loads(sfumato("train", "digits", *words, "--dry-run", "--json").out)
    config = report["config"]
    assert (config["optim"]["lr"], config["train"]["batch"], config["train"]["images"]) == (3e-4, 16, 1000)
    assert (config["data"]["size"], config["data"]["labels"]) == ([16, 12], "source")
    assert report["shape"] == [1, 16, 12]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("nowhere", "there is no folder and no built-in data 'nowhere'"),
        ("./nowhere", "there is no './nowhere'"),
        ("facse", "did you mean 'faces'?"),
        ("empty", "'empty' holds no files"),
        ("bad", "no readable image"),
        ("digits --preset smal8", "did you mean 'small8'?"),
        ("digits --net.bsae 8", "unknown key net.bsae; did you mean 'net.base'?"),
        ("digits --net.base eight", 'net.base = "eight": expected a whole number'),
        ("digits --diffusion.schedule.kind cosin", "did you mean 'cosine'?"),
        ("digits --net.groups 5", "net.groups is 5"),
        ("digits --budget soon", '"soon" is not a length of time'),
        ("digits --images few", '"few" is not a number of images'),
        ("digits --images 1k --budget 1m", "--budget and --images both say how long"),
        ("digits --config nowhere.toml", "nowhere.toml can't be read"),
        ("digits --device gpu", "--device can't be 'gpu': write --device cuda"),
        ("digits --device xpu", "--device can't be 'xpu': choose auto, cpu, cuda or mps"),
        ("digits --lr fast", '--lr = "fast": expected a number'),
        ("digits --lr 0.1 --optim.lr 0.2", "--lr and --optim.lr are the same value: give one"),
        ("digits --size 8,8,8", '--size = "8,8,8": expected 2 values, such as --size 8,16'),
        ("digits --diffusion.schedule linear", "a kind is chosen by --diffusion.schedule.kind linear"),
        ("digits --run file.txt", "file.txt is a file"),
        ("bad --run bad/run", "lies inside the data"),
        ("good --run good/run --data.size 8,8", "lies inside the data"),
        ("good --run bad --data.size 8,8", "bad holds files, but no run"),
        ("good --data.labels source", "good' has no labels"),
        ("good --data.labels true", "--labels: there is no 'true' in the working folder"),
    ],
)
def test_a_mistake_is_one_line_and_changes_nothing(line: str, said: str, refused: Command, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.png").write_text("not an image")
    (tmp_path / "file.txt").write_text("x")
    (tmp_path / "good").mkdir()
    for n in range(3):
        Image.new("L", (8, 8), 80 * n).save(tmp_path / "good" / f"{n}.png")
    before = sorted(tmp_path.rglob("*"))
    assert said in refused("train", *line.split(), "--train.grids", "0", "--dry-run")
    assert sorted(tmp_path.rglob("*")) == before


def test_another_configuration_is_refused_with_the_difference(plain: Path, refused: Command) -> None:
    # refused as the training starts, after the heading has been printed; a dry run has no heading
    said = refused(
        "train", "digits", "--run", plain, "--dry-run", "--images", "80", *tiny("--net.base", "16"), "--optim.lr=0.5"
    )
    assert "net.base 8 -> 16, optim.lr 0.006 -> 0.5" in said


def _pictures(folder: Path, step: int = 10) -> Path:
    folder.mkdir(parents=True)
    for n in range(24):
        Image.new("L", (8, 8), step * n).save(folder / f"{n}.png")
    return folder


def test_the_same_images_by_another_path_are_the_same_run(
    sfumato: Command, refused: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos, words = _pictures(tmp_path / "photos"), ["--images", "16", "--size", "8,8", *TINY]
    assert sfumato("train", "photos", *words).code == 0
    begun = Path("runs/photos/config.toml").read_bytes()
    for path in ("photos/", "./photos", photos, "runs/../photos"):
        assert "this run is finished" in sfumato("train", path, *words).out, path
    os.symlink(photos, tmp_path / "link")
    assert "this run is finished" in sfumato("train", "link", "--run", "runs/photos", *words).out
    assert Path("runs/photos/config.toml").read_bytes() == begun

    other = _pictures(tmp_path / "b" / "photos", 9)
    said = refused("train", "b/photos", *words, "--dry-run")
    assert "runs/photos is trained on photos: choose another --run for b/photos, such as runs/photos-2" in said
    assert other.is_dir()

    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert "this run is finished" in sfumato("train", "../photos", "--run", "../runs/photos", *words).out


def test_a_run_keeps_its_size_where_another_would_be_chosen_today(
    sfumato: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also without the store of its images: it is made again in the size of the run."""
    Image.new("L", (16, 15)).save(_pictures(tmp_path / "pics") / "odd.png")
    for n in range(24):
        Image.new("L", (10, 10), n).save(tmp_path / "pics" / f"{n}.png")
    with monkeypatch.context() as before:
        before.setattr(sizes, "NEARLY_ALL", 2.0)
        assert sfumato("train", "pics", "--images", "16", "--run", "runs/k", *TINY).code == 0
    config = Path("runs/k/config.toml").read_text()
    monkeypatch.setenv("SFUMATO_CACHE", str(tmp_path / "another"))
    assert open_data(DataConfig("pics")).shape == (1, 10, 10)
    assert sfumato("train", "runs/k", "--images", "+16").code == 0
    assert load("runs/k").codec.image_shape == load("runs/k").data().shape == (1, 8, 8)
    assert 'size = "none"' in config


def test_a_run_goes_on_when_its_images_were_moved(
    sfumato: Command, refused: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By their content, with the bits of a run whose images stayed, and the place is remembered."""
    for name in ("pics", "stay"):
        _pictures(tmp_path / name)
    for name, run in (("pics", "runs/k"), ("stay", "runs/s")):
        words = "--images", "16", "--size", "8,8", "--run", run, *tiny("--train.grids", "0")
        assert sfumato("train", name, *words).code == 0
    _pictures(tmp_path / "others", 9)
    (tmp_path / "pics").rename(tmp_path / "pics2")
    begun = Path("runs/k/config.toml").read_bytes()

    with pytest.raises(Missing) as missing:
        _ = Context.open(Path("runs/k")).needed
    assert str(missing.value).startswith("the model's own images are not at pics any more: name them with --data; did")
    said = refused("train", "runs/k")
    assert "runs/k is trained on pics, which is not there: sfumato train PATH --run runs/k goes on" in said
    assert said.rstrip().endswith("did you mean 'pics2'?")
    for words in ((), ("--accept-changes",)):
        said = refused("train", "others", "--run", "runs/k", *words)
        assert "runs/k is trained on pics: choose another --run for others" in said
    assert sfumato("train", "pics2", "--run", "runs/k", "--dry-run").code == 0
    assert Path("runs/k/config.toml").read_bytes() == begun, "nothing is remembered yet"

    out = sfumato("train", "pics2", "--run", "runs/k", "--images", "+16").out
    assert out.count("the images of pics are at pics2 now: they are the same") == 1
    assert sfumato("train", "runs/s", "--images", "+16").code == 0
    moved, stayed = (read(Run(Path(run)).weights_file("raw"))[1] for run in ("runs/k", "runs/s"))
    assert all(torch.equal(value, stayed[name]) for name, value in moved.items())
    assert Run(Path("runs/k")).config().data.source == "pics2"

    (tmp_path / "pics2").rename(tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path / "elsewhere")
    out = sfumato("train", ".", "--run", "../runs/k").out
    assert "this run is finished" in out
    assert f"the images of pics2 are at {tmp_path / 'elsewhere'} now: they are the same" in " ".join(out.split())
    monkeypatch.chdir(tmp_path)
    out = sfumato("train", "runs/k").out
    assert "this run is finished" in out, "the full path was remembered"
    assert "they are the same" not in out


def test_the_images_of_a_run_are_found_from_another_folder(
    sfumato: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sfumato.model import load

    _pictures(tmp_path / "photos")
    assert sfumato("train", "photos", "--images", "16", "--size", "8,8", *TINY).code == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    model = load("../runs/photos")
    assert model.config.data.source == "photos"  # a weights file names no path of this machine
    assert model.data().source_name == str(tmp_path / "photos")
    # moved with its images: the recorded folder is gone, the path as typed leads there
    moved = tmp_path.with_name(f"{tmp_path.name}-moved")
    moved.mkdir()
    for name in ("photos", "runs"):
        (tmp_path / name).rename(moved / name)
    monkeypatch.chdir(moved)
    assert load("runs/photos").data().source_name == str(moved / "photos")


def test_a_full_disk_is_said(sfumato: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    result = sfumato("train", "digits", "--run", "full", *BRIEF)
    assert result.code == 2
    assert result.err.splitlines()[-1].startswith("sfumato: full can't be written (No space left on device)")


def test_a_budget_begins_with_the_process_and_ends_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a process that is 4 s old, whose end will take 2 s; a program that calls `main` is as old as it likes."""
    monkeypatch.setattr(launch, "age", lambda: 4.0)
    for own, spent in ((True, 6.0), (False, 0.0)):
        monkeypatch.setattr(launch, "own_process", own)
        assert time.perf_counter() - launch.begun() == pytest.approx(spent, abs=0.5)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the system does not say when a process was started")
def test_a_process_knows_its_age() -> None:
    code = "import time; time.sleep(0.4); from sfumato.cli.launch import age; print(age())"
    start = time.perf_counter()
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert 0.4 <= float(said) <= time.perf_counter() - start + 0.02
