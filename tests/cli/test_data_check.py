"""`sfumato data check`: the text, the JSON, the page and the list; and what it refuses."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sfumato.data import BUILTIN, DataConfig, open_data

from .conftest import TINY, Command


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Twelve images, an exact duplicate of one, and a damaged file."""
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for n in range(12):
        pixels = np.kron(rng.integers(0, 256, (6, 6, 3)), np.ones((8, 8, 1))).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{n:02d}.png")
    (folder / "copy.png").write_bytes((folder / "03.png").read_bytes())
    (folder / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\nnot quite")
    return folder


def test_text(sfumato: Command, photos: Path) -> None:
    result = sfumato("data", "check", photos)
    assert result.code == 0
    assert "13, 12 of them distinct; 1 unreadable file" in result.out
    assert "torn.png: " in result.out
    assert "03.png: = copy.png" in result.out
    assert "!! memorisation: 12 distinct images" in result.out
    said = " ".join(result.out.split())
    assert re.search(r"settings: train takes preset small\d+ on a CPU, \w+ on a GPU by default, for 12 images of", said)
    assert sorted(path.name for path in Path().iterdir()) == ["photos"], "nothing is written unasked"


def test_the_text_sends_to_the_page_that_is_written(sfumato: Command, photos: Path) -> None:
    (photos / "torn.png").unlink()
    alone, beside = (sfumato("data", "check", photos, *more).out.split() for more in ((), ("--out", "page.html")))
    assert "(--out page.html says more)" in " ".join(alone)
    assert "(the page says more)" in " ".join(beside)


def test_json(sfumato: Command, photos: Path) -> None:
    said = json.loads(sfumato("data", "check", photos, "--json").out)
    assert (said["total"], said["readable"], said["distinct"]) == (14, 13, 12)
    assert said["exact_copies"] == [["03.png", "copy.png"]]
    assert {item["level"] for item in said["advice"]} <= {"trouble", "mind", "good"}
    assert said["written"] == {}


def test_the_page_and_the_list_are_written(sfumato: Command, photos: Path) -> None:
    before = {path: path.read_bytes() for path in photos.iterdir()}
    result = sfumato("data", "check", photos, "--out", "deep/page.html", "--fix", "list.txt")
    assert result.code == 0
    assert ">Exact duplicates (1)<" in Path("deep/page.html").read_text("utf-8")
    listed = Path("list.txt").read_text("utf-8").splitlines()
    assert listed == [str(photos / f"{n:02d}.png") for n in range(12)]
    assert {path: path.read_bytes() for path in photos.iterdir()} == before


def test_the_list_is_data_to_train_on(sfumato: Command, refused: Command, photos: Path) -> None:
    """What was left out of the list is left out of the training; nothing else changes."""
    assert sfumato("data", "check", photos, "--fix", "list.txt").code == 0
    said = json.loads(sfumato("data", "check", "list.txt", "--json").out)
    assert (said["total"], said["readable"], said["distinct"], said["unreadable"]) == (12, 12, 12, [])
    planned = json.loads(sfumato("plan", "list.txt", "--seconds", "0", "--json").out)
    assert planned["shape"] == [3, 48, 48]
    cleaned, whole = open_data(DataConfig("list.txt")), open_data(DataConfig(str(photos)))
    assert set(cleaned.digests) == set(whole.digests)
    assert cleaned.origins == tuple(f"{n:02d}.png" for n in range(12))
    Path("list.txt").write_text("only words\n")
    assert "names no file that is there (its first line is 'only words')" in str(refused("data", "check", "list.txt"))


def test_other_files_are_no_images(sfumato: Command, photos: Path) -> None:
    (photos / "about.md").write_text("where they are from")
    (photos / "labels.csv").write_text("file,hair\n00.png,long\n")
    result = sfumato("data", "check", photos)
    assert "13, 12 of them distinct; 1 unreadable file; 1 other file" in result.out
    assert "1 of 14 files cannot be read" in result.out
    said = json.loads(sfumato("data", "check", photos, "--json").out)
    assert said["other_files"] == [{"file": "about.md", "reason": "not an image: text"}]
    assert (said["total"], said["looked_at"], len(said["unreadable"])) == (14, 14, 1)
    assert "labels: --labels source trains with labels.csv" in " ".join(result.out.split())
    listed = sfumato("data", "check", photos, "--fix", "list.txt", "--out", "page.html")
    assert listed.code == 0, "all images were scanned"
    page = Path("page.html").read_text("utf-8")
    assert "--data.flip" in page
    assert not re.search(r"[^-]data\.flip", page), "options, as in the terminal, and not keys"


def test_files_of_the_system_are_named_and_are_no_damage(sfumato: Command, photos: Path) -> None:
    for name in ("Thumbs.db", "desktop.ini", "hair.csv"):
        (photos / name).write_bytes(b"\xd0\xcf\x11\xe0 of a system")
    result = sfumato("data", "check", photos)
    assert "3 other files" in result.out
    assert "Thumbs.db: not an image: Windows' thumbnails" in result.out
    assert "desktop.ini: not an image: Windows' settings" in result.out
    assert f"labels: --labels {photos}/hair.csv trains with hair.csv" in " ".join(result.out.split())


def test_no_image_is_a_failure(sfumato: Command, tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "about.md").write_text("where they are from")
    result = sfumato("data", "check", "notes")
    assert result.code == 2
    assert "!! nothing to train on" in result.out
    assert sfumato("data", "check", "notes", "--json").code == 2


def test_a_preset_mirrors_only_what_the_mirror_test_allows(sfumato: Command, tmp_path: Path) -> None:
    """Check, plan and training agree; what the user decides counts; a run that was begun keeps its own."""
    rng = np.random.default_rng(0)
    for name, sided in (("sided", True), ("free", False)):
        (tmp_path / name).mkdir()
        for n in range(120):
            pixels = rng.integers(0, 80, (40, 40)) + (4 * np.arange(40) if sided else 0)
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / name / f"{n}.png")
    words = ("--preset", "cifar10-ddpm", "--dry-run", "--images", "64", *TINY)
    for name, flips in (("sided", "false"), ("free", "true")):
        assert f"flip = {flips}" in sfumato("train", name, *words).out
        assert "flip = true" in sfumato("train", name, *words, "--data.flip", "true").out
        advice = json.loads(sfumato("data", "check", name, "--preset", "cifar10-ddpm", "--json").out)["advice"]
        (settings,) = [item["text"] for item in advice if item["topic"] == "settings"]
        assert ("training leaves off: left and right matter" in settings) == (flips == "false")
        assert ("mirrors images: left and right do not matter" in settings) == (flips == "true")
    planned = sfumato("plan", "sided", "--preset", "cifar10-ddpm", "--seconds", "0", *TINY).out
    assert "the preset would mirror images; that is off (left and right matter: 100% of 1" in planned
    small = ("--preset", "cifar10-ddpm", "--images", "64", "--run", "run", *TINY)
    assert sfumato("train", "sided", *small, "--data.flip", "true").code == 0
    again = sfumato("train", "sided", *small)
    assert (again.code, "nothing to do" in again.out) == (0, True), again.err


@pytest.mark.parametrize("name", [name for name in BUILTIN if name != "fashion-full"])
def test_every_built_in_source_can_be_checked(name: str, sfumato: Command) -> None:
    said = json.loads(sfumato("data", "check", name, "--num", "120", "--json").out)
    assert (said["total"], said["looked_at"], said["unreadable"]) == (BUILTIN[name].count, 120, [])
    assert said["training"]["size"] == list(BUILTIN[name].shape[1:])
    assert said["attributes"]


def test_settings_change_the_advice(sfumato: Command, photos: Path) -> None:
    said = json.loads(sfumato("data", "check", photos, "--data.size", "96,48", "--preset", "small64", "--json").out)
    assert said["training"]["size"] == [96, 48]
    assert said["training"]["enlarged"] == 13
    topics = {item["topic"]: item["text"] for item in said["advice"]}
    assert "crop to 48x96 loses 50%" in topics["proportions"]
    assert "preset small64" in topics["settings"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("check", "data check needs"),
        ("check nowhere", "there is no folder and no built-in data 'nowhere'"),
        ("check photos --out photos/page.html", "is inside"),
        ("check photos --fix photos/00.txt", "is inside"),
        ("check photos --fix 00.png", "must end in .txt"),
        ("check photos --out page.png", "must end in .html"),
        ("check photos --num 0", "--num is 0"),
        ("check photos --num 3 --fix list.txt", "leave out --num"),
        ("check faces --fix list.txt", "is not a folder of images"),
        ("check photos --preset smal16", "did you mean 'small16'"),
        ("check photos --fxi list.txt", "did you mean --fix"),
        ("check photos --fix", "--fix needs a value: --fix FILE.txt"),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(words: str, said: str, refused: Command, photos: Path) -> None:
    before = sorted(photos.rglob("*"))
    assert said in str(refused("data", *words.split()))
    assert sorted(photos.rglob("*")) == before
    assert [path.name for path in photos.parent.iterdir()] == ["photos"]


def test_what_changes_something_is_first_and_the_rest_is_short(sfumato: Command, tmp_path: Path) -> None:
    """Grey pictures of a clear size, duplicated, mirrored, transparent, with one in colour and a damaged one."""
    folder, rng = tmp_path / "many", np.random.default_rng(1)
    folder.mkdir()
    for n in range(60):
        pixels = np.kron(rng.integers(0, 256, (8, 8)), np.ones((4, 4))).astype(np.uint8)
        image = Image.fromarray(pixels if n else np.stack([pixels, 0 * pixels, pixels], -1))
        image.convert("LA" if n == 3 else image.mode).save(folder / f"{n:02d}.png")
        if n % 10 == 5:
            image.save(folder / f"{n:02d}-copy.png")
            image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(folder / f"{n:02d}-mirrored.png")
    (folder / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\nnot quite")
    out = sfumato("data", "check", folder).out
    advice = out[out.index("\n\n") + 2 :].split("\n\n")[0].splitlines()
    heads = [line for line in advice if line[:3].strip()]
    assert heads[0].startswith("!! memorisation: ")
    shortened = [line for line in heads if line.startswith(" ! ")][2:]
    assert " ! exact duplicates: 6 images with the same pixels as another" in shortened
    assert heads[-1].startswith("ok nothing to decide: ")
    assert "colour" in " ".join(advice[advice.index(heads[-1]) :]), "one in colour is ordinary"
    assert len(advice) < 30
