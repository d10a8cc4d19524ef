"""`sfumato info`: what it says is so."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from sfumato.diffusion import Cosine
from sfumato.model import load
from sfumato.report.curves import SIZE
from sfumato.run.events import HeldOut
from sfumato.run.folder import Run
from sfumato.run.summary import RunSummary

from .conftest import Command, tiny


def test_a_run_is_described(sfumato: Command, labelled: Path) -> None:
    said = sfumato("info", labelled).out
    model = load(labelled)
    parameters = sum(p.numel() for p in model.net.parameters())
    for fact in (
        "1x8x8 (channels x height x width); trained on the built-in data set digits",
        "class: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9",
        f"{parameters:,} parameters",
        model.net.summary(),
        "cosine schedule of 50 steps",
        "the network predicts refined; squared error of v",
        "80 of 80 images (100 %, finished), in 10 steps of 8",
        "held out",
        "in training (mean of about the last 50 steps)",
        str(labelled / "weights" / "ema.safetensors"),
        str(labelled / "samples" / f"{80:012d}.png"),
    ):
        assert fact in said


def test_the_schedules_table_is_the_schedules(sfumato: Command, labelled: Path) -> None:
    rows = json.loads(sfumato("info", labelled, "--json").out)["schedule"]
    assert [row["t"] for row in rows][-1] == 50
    schedule = Cosine(50)
    for row in rows:
        level = schedule(row["t"] / 50)
        assert row["logsnr"] == pytest.approx(float(level.logsnr))
        assert row["abar"] == pytest.approx(float(level.alpha) ** 2)
        assert row["alpha"] ** 2 + row["sigma"] ** 2 == pytest.approx(1)


def test_json_holds_everything(sfumato: Command, labelled: Path) -> None:
    said = json.loads(sfumato("info", labelled, "--json").out)
    assert said["attributes"] == [{"name": "class", "values": list("0123456789")}]
    assert said["shape"] == [1, 8, 8]
    assert said["images"] == said["images_seen"] == 80
    assert said["finished"] is True
    assert said["config"]["net"]["base"] == 8
    assert said["plan"]["steps"] == 10
    assert said["images_per_second"] > 0


def test_a_weights_file_alone_is_enough(sfumato: Command, labelled: Path) -> None:
    said = sfumato("info", labelled / "weights" / "raw.safetensors").out
    assert "weights as trained, 80 images seen" in said
    assert "checkpoints" not in said


def test_other_weights_of_a_run(sfumato: Command, refused: Command, labelled: Path) -> None:
    assert "weights as trained, 80 images seen" in sfumato("info", labelled, "--weights", "raw").out
    said = json.loads(sfumato("info", labelled, "--weights", "best", "--json").out)
    assert said["weights"] == str(Run(labelled).weights_file("best"))
    assert said["finished"] is True
    assert "--weights can't be 'bset'" in refused("info", labelled, "--weights", "bset")


def test_a_run_without_weights_yet_is_a_run(sfumato: Command, labelled: Path, tmp_path: Path) -> None:
    (tmp_path / "young").mkdir()
    (tmp_path / "young" / "config.toml").write_bytes((labelled / "config.toml").read_bytes())
    said = sfumato("info", "young")
    assert said.code == 0
    assert "0 of 80 images" in said.out
    assert "none yet: the run has saved no checkpoint" in said.out


def test_weights_that_were_removed_or_cut_come_back(
    sfumato: Command, refused: Command, labelled: Path, tmp_path: Path
) -> None:
    run = Run(tmp_path / "again")
    shutil.copytree(labelled, run.path)
    whole = run.weights_file().read_bytes()
    run.weights_file().unlink()
    said = sfumato("info", "again")
    again = "take --weights raw or --weights best, or run `sfumato train again`, which writes the file again"
    assert said.code == 0
    assert f"weights/ema.safetensors is missing: {again}" in said.out
    sample = ("sample", "again", "--num", 1, "--steps", 2)
    assert f"again has no ema weights, again/weights/ema.safetensors is missing: {again}" in refused(*sample)
    run.weights_file().write_bytes(whole[:1000])
    assert f"it may be cut short; {again}" in refused(*sample)
    assert f"it may be cut short; {again}" in refused("info", "again")
    assert sfumato(*sample, "--weights", "raw").code == 0
    assert sfumato("train", "again").code == 0
    assert run.weights_file().read_bytes() == whole


def test_padding_is_told(sfumato: Command) -> None:
    words = ["--data.size", "7,10", "--images", "8", *tiny("--net.multipliers", "1,2,2")]
    assert "7x10 extended to 8x12 inside" in sfumato("train", "digits", "--run", "r", *words).out
    assert "7x10 extended to 8x12 inside" in sfumato("info", "r").out
    assert tuple(load("r").net(torch.zeros(1, 1, 7, 10), torch.zeros(1), None).shape) == (1, 1, 7, 10)


def test_mistakes(refused: Command, tmp_path: Path) -> None:
    assert "nowhere does not exist" in refused("info", "nowhere")
    assert f"{tmp_path} has no weights yet: give a weights file, or a run folder" in refused("info", tmp_path)
    (tmp_path / "some" / "b").mkdir(parents=True)
    (tmp_path / "some" / "b" / "config.toml").write_text("")
    assert "some is not a run folder but holds some: give one, such as some/b" in refused("info", "some")
    (tmp_path / "photos").mkdir()
    Image.new("L", (8, 8)).save(tmp_path / "photos" / "a.png")
    assert "photos is a folder of images, not a run: first train a model" in refused("info", "photos")
    (tmp_path / "config.toml").write_text("[net]\nbsae = 3\n")
    assert "unknown key net.bsae; did you mean 'net.base'?" in refused("info", tmp_path)


def test_steps_taken_are_not_the_planned_ones(sfumato: Command, labelled: Path, tmp_path: Path) -> None:
    """An interrupted run: its log ends at four of ten steps."""
    (tmp_path / "part").mkdir()
    for name in ("config.toml", "plan.json"):
        (tmp_path / "part" / name).write_bytes((labelled / name).read_bytes())
    lines = (labelled / "events.jsonl").read_text().splitlines()
    early = [line for line in lines if json.loads(line)["images"] <= 32]
    (tmp_path / "part" / "events.jsonl").write_text("\n".join(early) + "\n")
    assert "32 of 80 images (40 %), in 4 of 10 steps of 8" in sfumato("info", "part").out
    assert "80 of 80 images (100 %, finished), in 10 steps of 8" in sfumato("info", labelled).out


def test_several_are_one_table_with_what_differs(sfumato: Command, labelled: Path, plain: Path) -> None:
    said = sfumato("info", labelled, plain).out.splitlines()
    head, first, second = (line.split() for line in said[:3])
    assert head == ["data", "size", "recipe", "parameters", "images", "loss", "held-out", "time"]
    assert (first[0], second[0]) == (str(labelled), str(plain))
    assert first[1:3] == second[1:3] == ["digits", "1x8x8"]
    differing = {line.split()[0]: line.split()[1:] for line in said[5:]}
    assert differing["data.labels"] == ["source", "none"]
    assert differing["optim.lr"] == ["0.03", "0.006"]
    assert "net.base" not in differing
    tables = json.loads(sfumato("info", labelled, plain, "--json").out)
    assert tables == [json.loads(sfumato("info", path, "--json").out) for path in (labelled, plain)]
    assert "the configurations are equal" in sfumato("info", plain, plain).out


def test_a_plot_is_a_picture_and_nothing_of_another_is_overwritten(
    sfumato: Command, plain: Path, refused: Command, tmp_path: Path
) -> None:
    drawn = sfumato("info", plain, "--plot", "loss.png").out
    assert drawn.startswith("loss.png\nthe last held-out loss is drawn as ")
    log = RunSummary.read(Run(plain)).of(HeldOut)[-1].loss
    assert f"the log have {log:.4f}, all noise levels evenly" in drawn
    assert Image.open(tmp_path / "loss.png").size == SIZE
    assert sfumato("info", plain, "--plot", "loss.png").code == 0, "our own picture is drawn again"
    Image.new("L", (2, 2)).save(tmp_path / "mine.png")
    shutil.copy(next((plain / "samples").glob("*.png")), tmp_path / "grid.png")
    for name in ("mine.png", "grid.png"):
        assert "is no earlier figure 'plot of losses'" in refused("info", plain, "--plot", name)
    assert "is no earlier figure 'loss'" in refused("illustrate", plain, "--figure", "loss", "--out", "loss.png")
    assert sfumato("info", plain, "--plot", "mine.png", "--force").code == 0
    assert "must end in .png" in refused("info", plain, "--plot", "loss.pdf")
    assert "draws one run, and 2 are named" in refused("info", plain, plain, "--plot", "loss.png")
    assert "not a run folder" in refused("info", plain / "weights" / "ema.safetensors", "--plot", "loss.png")
    assert "--weights has no effect with --plot" in refused("info", plain, "--plot", "loss.png", "--weights", "raw")
    assert "--force is for a file" in refused("info", plain, "--force")
    assert "info needs a run or weights" in refused("info")
