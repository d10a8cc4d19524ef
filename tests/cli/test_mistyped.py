"""What a user mistypes is answered with what was meant; options that verbs share are taken by all; printed commands
run."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from sfumato.cli.main import SUB_VERBS, VERBS, check_command
from sfumato.config.presets import PRESETS
from sfumato.errors import UserError, closest, command, nearest, similar
from sfumato.report.text import longer
from tests.cli.conftest import Command

SOURCES = {"edit": ["vary", "faces", "x.png"], "data check": ["faces"], "verify": [], "explain": [], "demo": []}
NEEDED = {"illustrate": ["--figure", "bound"], "ema": ["--length", "0.1"]}


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("Evalute x", "evaluate"),
        ("data chek", "data check"),
        ("data Chekc --out x.html", "data check"),
        ("edit inpant faces x.png", "inpaint"),
        ("sample faces --sampler DDMP", "ddpm"),
        ("sample faces --grid karas", "karras"),
        ("sample faces --quality fats", "fast"),
        ("sample faces --device cudda", "cuda"),
        ("sample faces --stesp 3", "--steps"),
        ("sample plian", "plain"),
        ("sample plain@bets", "best"),
        ("sample plain --weights emma", "ema"),
        ("sample emoji", "emoji32"),
        ("evaluate faces --extractor wavelet", "wavelets"),
        ("illustrate faces --figure frward", "forward"),
        ("export faces --to onx", "onnx"),
        ("import notes.txt --as difusers", "diffusers"),
        ("plan digits --buget 3m", "--budget"),
        ("train digits --preset smal8", "small8"),
        ("train digits --config notse.txt", "notes.txt"),
        ("train phtoos", "photos"),
        ("train ./phtoos/one", "photos/one"),
        ("edit vary faces notse.txt", "notes.txt"),
        ("import notse.txt", "notes.txt"),
        ("watch plian", "plain"),
        ("info faces --use notse.py", "notes.py"),
        ("sample face", "faces'"),
        ("sample faces --sampler ddmi", "ddim"),
        ("train runs/pics", "runs/pics2'"),
        ("evaluate runs/pics", "runs/pics2'"),
        ("diagnose runs/pics", "runs/pics2'"),
        ("edit vary faces phtos.png", "photos.png"),
    ],
)
def test_what_was_meant_is_said(line: str, meant: str, refused: Command, plain: Path, tmp_path: Path) -> None:
    (tmp_path / "photos" / "one").mkdir(parents=True)
    (tmp_path / "plain").symlink_to(plain)
    (tmp_path / "cache").mkdir(exist_ok=True)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "pics2").symlink_to(plain)
    for name in ("notes.txt", "notes.py", "photos.png", "runs/pics.html"):
        (tmp_path / name).write_text("x")
    said = refused(*line.split())
    assert "did you mean" in said
    assert meant in said.partition("did you mean")[2]


def test_a_path_is_followed_to_where_it_goes_wrong(tmp_path: Path) -> None:
    (tmp_path / "runs" / "my run").mkdir(parents=True)
    assert similar(tmp_path / "rusn" / "my run") == f"; did you mean '{tmp_path / 'runs' / 'my run'}'?"
    assert similar(tmp_path / "rusn" / "another") == f"; did you mean '{tmp_path / 'runs'}'?"
    assert similar(tmp_path / "runs" / "else") == similar(tmp_path / "x" / "y") == ""
    (tmp_path / "face.jpg").touch()
    (tmp_path / "face1.png").touch()
    assert similar(tmp_path / "face.png") == f"; did you mean '{tmp_path / 'face.jpg'}'?", "of another suffix"
    assert similar(tmp_path / "nope.png") == "", "an equal suffix is no likeness"
    assert nearest("DDIM", ["ddpm", "ddim"]) == "; did you mean 'ddim'?"


def test_nothing_is_meant_where_nothing_of_the_kind_is_near(refused: Command, tmp_path: Path) -> None:
    assert "did you mean" not in refused("evaluate", "faces", "--set", "foo")
    (tmp_path / "photos").mkdir()
    assert "did you mean" not in refused("edit", "vary", "faces", "photo")
    assert "photos" not in refused("sample", "photo")


def test_swapped_neighbours_are_one_mistake() -> None:
    assert nearest("ddmi", ["ddpm", "ddim"]) == "; did you mean 'ddim'?"
    assert closest("fxi", ["fix", "fox"], 0.75) == ["fix"]
    assert closest("set", ["eta", "seed"], 0.75) == []


def test_a_data_set_is_no_model(refused: Command, tmp_path: Path) -> None:
    assert "digits is a built-in data set, and no model of it comes along: first train one, sfumato train digits" in (
        refused("sample", "digits")
    )
    (tmp_path / "runs" / "digits").mkdir(parents=True)
    assert refused("diagnose", "digits").endswith("give its run, runs/digits\n")


def test_a_folder_called_as_a_built_in_set_is_told_apart(sfumato: Command, tmp_path: Path) -> None:
    (tmp_path / "digits").mkdir()
    note = "'digits' is the built-in data set, and not the folder here: that is ./digits"
    assert note in sfumato("data", "digits").out
    assert note not in sfumato("data", "faces").out


@pytest.mark.parametrize("verb", [*VERBS, *SUB_VERBS])
def test_every_verb_takes_a_device(verb: str) -> None:
    words = [*verb.split(), *SOURCES.get(verb, ["faces"]), *NEEDED.get(verb, [])]
    check_command([*words, "--device", "cpu"])
    with pytest.raises(UserError, match="--device can't be 'cpuu'; did you mean 'cpu'"):
        (check_command([*words, "--device=cpuu"]), check_device_of(words))


def check_device_of(words: list[str]) -> None:
    """Verbs with the option check it when they perform."""
    from sfumato.cli.console import check_device

    assert words[0] not in ("export", "info", "data", "watch", "import", "ema")
    check_device("cpuu")


def test_help_of_a_verb_by_the_word_help(sfumato: Command) -> None:
    assert sfumato("help", "data", "check").out == sfumato("data", "check", "--help").out


def test_printed_commands_are_quoted_and_can_be_parsed() -> None:
    assert command("train", "my photos", "--lr", 0.1) == "sfumato train 'my photos' --lr 0.1"
    assert longer("runs/my photos", 9, 9) == "sfumato train 'runs/my photos' --images 10"


def test_no_printed_command_has_a_placeholder() -> None:
    """In the words of errors and results; help says RUN and FILE, with examples."""
    import re

    import sfumato

    root = Path(sfumato.__file__).parent
    for path in [*root.rglob("*.py"), *root.rglob("*.js")]:
        text = re.sub(r'"""[\s\S]*?"""', "", path.read_text(encoding="utf-8"))
        found = re.findall(r"sfumato [a-z]+(?: [a-z]+)? (?:--?[a-z-]+ )*(?:[A-Z]{3,}\b[\w.]*)", text)
        assert not [line for line in found if "VERB" not in line], path


def test_plan_takes_the_line_of_train(sfumato: Command, refused: Command, plain: Path) -> None:
    words = ["digits", "--run", "my run", "--labels", "source", "--lr", "0.01", "--batch", "16", "--seed", "1"]
    said = sfumato("plan", *words, "--images", "20k", "--seconds", "0").out
    assert "20,000 images, as --images says" in said
    again = shlex.split(said.rpartition("train it")[2].strip())
    check_command(again[1:])
    assert again[:3] == ["sfumato", "train", "digits"]
    assert set(words) <= set(again)
    budget = sfumato("plan", "digits", "--budget", "10m", "--seconds", "0.5", "--train.grid_steps", "2")
    assert "as --budget says" in budget.out
    assert "--budget 10m" in budget.out
    length = int(budget.out.partition("length")[2].split()[0].replace(",", ""))
    assert length != PRESETS["small8"].config.train.images
    assert "leave --seconds 0 out" in refused("plan", "digits", "--budget", "10m", "--seconds", "0")
    assert f"sfumato train {plain} --images +500k --dry-run" in refused("plan", str(plain))
