from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sfumato.conditions.attributes import Attribute
from sfumato.config.data import DataConfig
from sfumato.data import Source, open_data, open_source
from sfumato.data.sources.files import folder_source
from sfumato.data.sources.protocol import printable
from sfumato.errors import UserError

from .encode import faults

MakeFolder = Callable[..., Path]


def origins(source: Source) -> list[str]:
    return [source.origin(i) for i in range(len(source))]


def test_every_depth_is_found_in_the_order_of_paths(make_folder: MakeFolder, tmp_path: Path) -> None:
    for name in ("set/b", "set", "set/a/deep/er"):
        make_folder(name, 2)
    below = ["", "", "a/deep/er/", "a/deep/er/", "b/", "b/"]
    assert origins(folder_source(tmp_path / "set")) == [f"{path}{k % 2:04d}.png" for k, path in enumerate(below)]


def test_first_level_folders_are_the_values_of_class(make_folder: MakeFolder, tmp_path: Path) -> None:
    for name in ("set/dog", "set/cat/black", "set"):
        make_folder(name, 1)
    source = folder_source(tmp_path / "set")
    (attribute,) = source.attributes
    assert attribute == Attribute("class", ("cat", "dog"))
    told = {source.origin(i): attribute.text(source.read(i).condition[0]) for i in range(len(source))}
    assert told == {"0000.png": "not given", "cat/black/0000.png": "cat", "dog/0000.png": "dog"}


def test_one_sub_folder_is_no_class(make_folder: MakeFolder, tmp_path: Path) -> None:
    make_folder("set/img_align", 2)
    source = folder_source(tmp_path / "set")
    assert source.attributes == ()
    assert source.read(0).condition == ()


def test_the_name_of_a_file_does_not_matter(make_folder: MakeFolder) -> None:
    folder = make_folder("set", 1)
    for name in ("photo", "photo.JPG", "photo.txt", "line\nbreak.png", "faß 🙂.png", "-rf", "a'b\"c.png"):
        shutil.copy(folder / "0000.png", folder / name)
    source = folder_source(folder)
    assert len(source) == 8
    assert faults(source) == {}
    assert "line\\nbreak.png" in origins(source)
    assert "faß 🙂.png" in origins(source)
    assert all(origin.isprintable() for origin in origins(source))


@pytest.mark.skipif(os.name != "posix", reason="names are bytes on POSIX only")
def test_a_name_that_is_no_text(make_folder: MakeFolder) -> None:
    folder = make_folder("set", 2)
    os.rename(folder / "0000.png", os.fsencode(folder) + b"/\xff\xfe.png")
    data = open_data(DataConfig(source=str(folder)))
    assert len(data) == 2
    assert any("udcff" in origin for origin in data.origins)


def test_printable_leaves_nothing_for_a_terminal_to_obey() -> None:
    assert printable("\x1b[31mred\r\n\u202e\udcff") == "\\x1b[31mred\\r\\n\\u202e\\udcff"
    assert printable("Zoë 猫 🙂") == "Zoë 猫 🙂"


def test_hidden_files_are_ignored(make_folder: MakeFolder) -> None:
    folder = make_folder("set", 1)
    make_folder("set/.thumbnails", 3)
    (folder / ".DS_Store").write_bytes(b"x")
    assert origins(folder_source(folder)) == ["0000.png"]


@pytest.mark.skipif(os.name != "posix", reason="links and pipes")
def test_links_are_not_followed_and_pipes_not_opened(make_folder: MakeFolder, tmp_path: Path) -> None:
    folder, outside = make_folder("set", 1), make_folder("outside", 1)
    (folder / "loop").symlink_to(folder)
    (folder / "away").symlink_to(outside)
    (folder / "photo.png").symlink_to(outside / "0000.png")
    (folder / "broken.png").symlink_to(tmp_path / "nowhere")
    os.mkfifo(folder / "pipe.png")  # opening it would wait for ever
    source = folder_source(folder)
    links = dict.fromkeys(("away", "broken.png", "loop", "photo.png"), "a symbolic link, which is not followed")
    assert faults(source) == links | {"pipe.png": "not a regular file"}
    assert len(source) == 6


def test_the_folder_itself_may_be_a_link(make_folder: MakeFolder, tmp_path: Path) -> None:
    folder = make_folder("set", 2)
    (tmp_path / "link").symlink_to(folder)
    assert origins(folder_source(tmp_path / "link")) == ["0000.png", "0001.png"]


def test_a_sub_folder_that_cannot_be_listed_is_told(make_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_folder("set", 1)
    make_folder("set/locked", 1)
    scandir = os.scandir

    def refuse(path: str) -> object:
        if str(path).endswith(("locked", "shut")):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert faults(folder_source(folder)) == {"locked": "cannot be listed: Permission denied"}
    with pytest.raises(UserError, match="cannot be listed: Permission denied"):
        folder_source(make_folder("shut", 1))


def test_a_file_that_vanishes_or_is_locked_is_told(make_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_folder("set", 2)
    source = folder_source(folder)
    (folder / "0000.png").unlink()
    assert faults(source) == {"0000.png": "cannot be read: No such file or directory"}


def test_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "set" / "sub").mkdir(parents=True)
    with pytest.raises(UserError, match="holds no files"):
        folder_source(tmp_path / "set")


def test_the_key_follows_names_sizes_and_times(make_folder: MakeFolder) -> None:
    folder = make_folder("set", 3)
    key = folder_source(folder).key()
    assert folder_source(folder).key() == key
    os.utime(folder / "0001.png", ns=(0, 0))
    touched = folder_source(folder).key()
    (folder / "0001.png").rename(folder / "x.png")
    renamed = folder_source(folder).key()
    with (folder / "x.png").open("ab") as file:
        file.write(b"x")
    os.utime(folder / "x.png", ns=(0, 0))
    longer = folder_source(folder).key()
    (folder / "x.png").unlink()
    assert len({key, touched, renamed, longer, folder_source(folder).key()}) == 5


@pytest.mark.parametrize("kind", ["folder", "npy"])
def test_a_file_replaced_by_one_of_the_same_length_and_time_changes_the_key(kind: str, tmp_path: Path) -> None:
    """As `cp -p`, `rsync -t` and `tar x` leave it; and bytes changed in place, with the time set back."""
    place = tmp_path / "set"
    place.mkdir()
    for k, value in enumerate((1, 2)):
        np.save(place / f"{k}.npy", np.full((4, 4, 4), value, np.uint8))
    first, other, name = place / "0.npy", place / "1.npy", str(place if kind == "folder" else place / "0.npy")
    status = first.stat()
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    before = open_source(name).key()
    assert open_source(name).key() == before
    shutil.copy2(other, tmp_path / "new")
    (tmp_path / "new").replace(first)
    assert (first.stat().st_size, first.stat().st_mtime_ns) == (status.st_size, status.st_mtime_ns)
    replaced = open_source(name).key()
    assert replaced != before
    time.sleep(0.02)  # the clock of a file system may tick in hundredths
    first.write_bytes(first.read_bytes())
    os.utime(first, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert open_source(name).key() != replaced


def test_the_header_gives_the_size_without_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "set").mkdir()
    Image.fromarray(np.zeros((5, 9, 3), np.uint8)).save(tmp_path / "set" / "a.png")

    def refuse(self: Image.Image) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", refuse)
    assert folder_source(tmp_path / "set").size(0) == (5, 9)
