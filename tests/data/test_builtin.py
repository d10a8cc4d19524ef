from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import sfumato.data
from sfumato.conditions.attributes import Attribute
from sfumato.config.data import DataConfig
from sfumato.data import BUILTIN, Dataset, describe_sources, open_data
from sfumato.data.sources.builtin import FASHION_FOLDER
from sfumato.errors import UserError

ASSETS = Path(sfumato.data.__file__).parent / "assets"
SHIPPED = ("faces", "digits", "fashion", "emoji32")


def images_of(name: str) -> np.ndarray:
    return BUILTIN[name].open().arrays.images  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", SHIPPED)
def test_the_table_says_what_is_in_the_file(name: str) -> None:
    entry, data = BUILTIN[name], open_data(DataConfig(source=name, labels="source"))
    assert len(data) == entry.count
    assert data.shape == entry.shape
    count = len(data.attributes) if len(data.attributes) > 1 else len(data.attributes[0].values)
    assert entry.labels == f"{count} {'attributes' if len(data.attributes) > 1 else 'classes'}"
    assert data.skipped == []
    for attribute, counts in data.counts.items():
        assert sum(counts.values()) == entry.count or attribute in ("hat colour", "glasses colour")
        assert min(counts.values()) > 0


@pytest.mark.parametrize("name", SHIPPED)
def test_the_store_holds_the_very_pixels_of_the_asset(name: str) -> None:
    """Grey pictures among those in colour too, whose digest is that of one plane."""
    data = open_data(DataConfig(source=name))
    assert np.array_equal(data.rows(torch.arange(len(data)))[0].numpy().transpose(0, 2, 3, 1), images_of(name))


def test_each_source_is_one_line_with_its_licence() -> None:
    lines = describe_sources()
    assert len(lines) == len(BUILTIN)
    for line, entry in zip(lines, BUILTIN.values(), strict=True):
        assert line.startswith(entry.name)
        assert entry.licence in line
        assert f"{entry.count:,}" in line
        assert "\n" not in line
        assert len(line) < 132


def test_the_assets_are_small_and_their_licences_lie_beside_them() -> None:
    files = list(ASSETS.glob("*.npz"))
    assert {path.stem for path in files} == set(SHIPPED)
    assert sum(path.stat().st_size for path in files) < 6e6
    text = (ASSETS / "LICENCES.md").read_text("utf-8")
    for name in SHIPPED:
        assert f"{name}.npz" in text
        assert BUILTIN[name].licence in text


def test_digits_are_the_seventeen_levels_of_the_original() -> None:
    images = images_of("digits")
    levels = {(255 * k + 8) // 16 for k in range(17)}
    assert set(np.unique(images).tolist()) == levels
    # ink counts are means: the published training images have about 4.9 dots of 16 a pixel
    assert 4.5 < images.mean() / 255 * 16 < 5.3


def test_fashion_is_balanced_and_without_copies() -> None:
    data = open_data(DataConfig(source="fashion", labels="source"))
    assert set(data.counts["class"].values()) == {500}
    assert len(set(data.digests)) == 5000


@pytest.mark.skipif(not FASHION_FOLDER.is_dir(), reason="Debian's dataset-fashion-mnist is not installed")
def test_fashion_is_the_first_500_of_each_class_of_the_full_set() -> None:
    full, part = BUILTIN["fashion-full"].open().arrays, BUILTIN["fashion"].open().arrays  # type: ignore[attr-defined]
    assert full.images.shape == (60000, 28, 28, 1)
    assert full.labels.attributes == part.labels.attributes
    for k in range(10):
        own, theirs = full.labels.conditions[:, 0] == k, part.labels.conditions[:, 0] == k
        assert np.array_equal(full.images[own][:500], part.images[theirs])


def test_fashion_full_without_its_files_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sfumato.data.sources.builtin.FASHION_FOLDER", tmp_path / "none")
    with pytest.raises(UserError, match="dataset-fashion-mnist"):
        open_data(DataConfig(source="fashion-full"))


def test_no_two_faces_are_the_same() -> None:
    assert len(set(open_data(DataConfig(source="faces")).digests)) == 5000


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return open_data(DataConfig(source="faces", labels="source"), tmp_path_factory.mktemp("cache"))


def column(data: Dataset, name: str) -> tuple[Attribute, np.ndarray]:
    """An attribute and what is known of it, -1 where it is not given."""
    place = [attribute.name for attribute in data.attributes].index(name)
    return data.attributes[place], np.nan_to_num(data.table[:, place], nan=-1).astype(int)


def hex_colour(text: str) -> np.ndarray:
    return np.array([int(text[i : i + 2], 16) for i in (1, 3, 5)], np.uint8)


def test_the_attributes_are_in_the_pixels(faces: Dataset) -> None:
    """The drawn colours themselves: a worn hat's in the top rows, the background's at the edge."""
    images = images_of("faces")
    hat, colour = column(faces, "hat")[1], column(faces, "hat colour")
    worn = hat > 0
    assert ((colour[1] == -1) == ~worn).all(), "a colour is known of what is worn, and of nothing else"
    own = np.array([hex_colour(text) for text in colour[0].values])[colour[1][worn]]
    found = (images[worn][:, :6] == own[:, None, None, :]).all(-1).sum((1, 2))
    assert (found >= 10).mean() > 0.99
    corner = {"sky": "#b6e3f4", "lavender": "#c3b5e8", "rose": "#f6c4cf", "mint": "#bce6cc"}
    background, place = column(faces, "background")
    for name, colour_ in corner.items():
        hit = (images[place == background.number(name)][:, 5, 0] == hex_colour(colour_)).all(-1)
        assert hit.mean() > 0.9


def test_attributes_are_drawn_independently(faces: Dataset) -> None:
    """Hats and glasses: the share of both is the product of the shares, within four standard deviations."""
    hat = column(faces, "hat")[1] > 0
    for other in ("glasses", "beard", "earrings"):
        worn = column(faces, other)[1] > 0
        p = hat.mean() * worn.mean()
        assert abs((hat & worn).mean() - p) < 4 * np.sqrt(p * (1 - p) / 5000)
    assert abs(hat.mean() - 0.30) < 0.03


def test_listing_the_sources_does_not_import_torch() -> None:
    code = "import sys; from sfumato.data import describe_sources; describe_sources(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
