"""`sfumato data`: counts that are right and a sheet that shows the images."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sfumato.data import BUILTIN
from sfumato.generate import pictures

from .conftest import Command


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two classes of three images, and one that is none."""
    folder = tmp_path / "photos"
    for n in range(6):
        path = folder / ("ab"[n % 2]) / f"{n}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), (40 * n, 10, 20), np.uint8)).save(path)
    (folder / "a" / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\nnot quite")
    return folder


def test_the_sources_are_listed(sfumato: Command) -> None:
    text = sfumato("data").out
    table = json.loads(sfumato("data", "--json").out)
    assert set(table) == set(BUILTIN)
    for name, source in table.items():
        assert name in text
        assert f"{source['count']:,}" in text


def test_a_source_is_counted(sfumato: Command) -> None:
    said = json.loads(sfumato("data", "digits", "--json").out)
    assert (said["count"], said["shape"]) == (1797, [1, 8, 8])
    assert said["train"] + said["held_out"] == 1797
    assert said["attributes"] == [{"name": "class", "values": list("0123456789")}]
    assert sum(said["counts"]["class"].values()) == 1797
    assert said["sheet"] == "digits-sheet.png"
    assert Image.open("digits-sheet.png").width > 500


def test_a_folder_is_checked_and_its_bad_files_named(sfumato: Command, photos: Path) -> None:
    said = json.loads(sfumato("data", photos, "--json").out)
    assert said["counts"] == {"class": {"a": 3, "b": 3}}
    assert [Path(q["file"]).name for q in said["quarantined"]] == ["torn.png"]
    text = sfumato("data", photos, "--out", "deep/sheet.png").out
    assert "torn.png" in text
    assert Path("deep/sheet.png").exists()


def test_the_sheet_has_a_row_a_class(sfumato: Command, photos: Path) -> None:
    assert sfumato("data", photos, "--num", "4", "--out", "sheet.png").code == 0
    page = np.asarray(Image.open("sheet.png"))
    reds = {int(pixel[0]) for pixel in page.reshape(-1, 3) if tuple(pixel[1:]) == (10, 20)}
    assert reds == {0, 160, 40, 200}, "the first and the last of each class"


def test_the_sheet_of_unlabelled_images_is_a_grid(sfumato: Command, tmp_path: Path) -> None:
    (tmp_path / "flat").mkdir()
    for n in range(9):
        Image.new("L", (8, 8), 25 * n).save(tmp_path / "flat" / f"{n}.png")
    assert sfumato("data", "flat", "--num", "5", "--data.size", "8,8").code == 0
    tiles = pictures.tiles(Image.open("flat-sheet.png"))
    assert tiles[:, 0, 0, 0].tolist() == [0, 50, 100, 150, 200]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("nowhere", "there is no folder and no built-in data 'nowhere'"),
        ("facse", "did you mean 'faces'?"),
        ("digits --out sheet.jpg", "a contact sheet is a .png file"),
        ("digits --num 0", "--num is 0"),
        ("digits --data.sise 3,3", "unknown key data.sise; did you mean 'data.size'?"),
        ("digits --data.size 0,3", "--size is (0, 3)"),
    ],
)
def test_a_mistake_is_one_line(line: str, said: str, refused: Command, tmp_path: Path) -> None:
    assert said in refused("data", *line.split())
    assert list(tmp_path.iterdir()) == []
