from __future__ import annotations

import hashlib
import json
import math
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sfumato.conditions.attributes import Attribute
from sfumato.config.data import DataConfig
from sfumato.data import open_data
from sfumato.data.sources.files import folder_source
from sfumato.data.sources.protocol import Picture, Unreadable
from sfumato.data.store.open import cache_folder, open_store
from sfumato.data.store.sizes import choose_size
from sfumato.errors import UserError

MakeFolder = Callable[..., Path]


def entries(cache: Path) -> list[Path]:
    """The finished stores in a cache."""
    return sorted(path.parent for path in cache.glob("store/*/[!.]*/index.json"))


def leftovers(cache: Path) -> list[Path]:
    return list(cache.glob("store/*/.build-*"))


# ---- the size ----


@pytest.mark.parametrize(
    ("sizes", "chosen"),
    [
        ([(28, 28)] * 3, (28, 28)),
        ([(40, 40)] * 296 + [(90, 90), (1, 1), (1, 400), (41, 40)], (40, 40)),
        ([(20, 64)] * 9 + [(30, 30)], (20, 64)),
        ([(40, 40)] * 8 + [(90, 90)], (32, 32)),
        ([(80, 80)] * 9 + [(40, 40)], (64, 64)),
        ([(20, 64)] * 3, (20, 64)),
        ([(65, 65)] * 3, (64, 64)),
        ([(218, 178)] * 3, (64, 64)),
        ([(50, 40), (40, 70), (200, 41)], (32, 32)),
        ([(47, 90), (47, 47)], (32, 32)),
        ([(48, 90), (48, 47), (48, 49)], (48, 48)),
        ([(5, 9), (9, 5)], (5, 5)),
        ([(1, 10000), (10000, 1)], (8, 8)),
        ([(1, 256)] * 3, (1, 256)),
        ([(256, 1)] * 3, (256, 1)),
        ([(1, 40)] * 3, (1, 40)),
        ([(1, 6000)] * 3, (1, 4096)),
        ([(1, 100), (1, 300), (1, 900)], (1, 300)),
        ([(4, 100)] * 3, (4, 100)),
        ([(8, 100)] * 3, (8, 8)),
    ],
)
def test_the_size_is_chosen_by_the_rule(sizes: list[tuple[int, int]], chosen: tuple[int, int]) -> None:
    size, note = choose_size(sizes)
    assert size == chosen
    assert f"{chosen[0]}x{chosen[1]}" in note


def test_a_size_that_nearly_all_pictures_have_is_said() -> None:
    note = choose_size([(40, 40)] * 296 + [(90, 90)] * 4)[1]
    assert "as 296 of 300 pictures have it; the others are resized; data.size=N" in note
    assert "as 9 of 10 pictures have it; the other is resized" in choose_size([(40, 40)] * 9 + [(9, 9)])[1]


# ---- what is stored ----


def test_rows_are_the_pictures_and_the_file_is_plain_npy(make_folder: MakeFolder, own_cache: Path) -> None:
    folder = make_folder("set", 5)
    stored = open_store(folder_source(folder), DataConfig())
    assert isinstance(stored.images, np.memmap)
    assert not stored.images.flags.writeable
    for i in range(5):
        expected = np.asarray(Image.open(folder / f"{i:04d}.png")).transpose(2, 0, 1)
        assert np.array_equal(stored.images[i], expected)
        assert stored.digests[i] == hashlib.sha256(expected.tobytes()).hexdigest()
        assert stored.origins[i] == f"{i:04d}.png"
    (entry,) = entries(own_cache)
    assert np.array_equal(np.load(entry / "images.npy"), stored.images)
    assert json.loads((entry / "index.json").read_text())["shape"] == [5, 3, 8, 8]


def test_grey_pictures_take_one_channel_and_one_coloured_gives_all_three(
    make_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SFUMATO_WORKERS", "0")
    folder = make_folder("set", 1500, size=(2, 2), channels=1)
    grey = open_store(folder_source(folder), DataConfig())
    assert grey.images.shape == (1500, 1, 2, 2)
    assert np.array_equal(grey.images[1207, 0], np.asarray(Image.open(folder / "1207.png")))
    make_folder("set", 1, size=(2, 2), first=1500)
    coloured = open_store(folder_source(folder), DataConfig())
    assert coloured.images.shape == (1501, 3, 2, 2)
    assert (coloured.images[:1500] == grey.images).all()
    assert coloured.digests[:1500] == grey.digests  # the same picture has the same digest in any company


def test_rgb_files_without_colour_are_grey(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    for i in range(3):
        Image.fromarray(np.full((4, 4, 3), 50 * i, np.uint8)).save(tmp_path / "set" / f"{i}.png")
    assert open_store(folder_source(tmp_path / "set"), DataConfig()).images.shape == (3, 1, 4, 4)
    assert open_store(folder_source(tmp_path / "set"), DataConfig(channels=3)).images.shape == (3, 3, 4, 4)


def test_given_channels_and_size_are_kept(make_folder: MakeFolder) -> None:
    folder = make_folder("set", 3)
    stored = open_store(folder_source(folder), DataConfig(channels=1, size=(4, 6)))
    assert stored.images.shape == (3, 1, 4, 6)


def test_bad_pictures_are_named_and_the_rest_is_kept(make_folder: MakeFolder) -> None:
    folder = make_folder("set", 4)
    (folder / "0001.png").write_bytes(b"")
    (folder / "notes.txt").write_text("what these are")
    stored = open_store(folder_source(folder), DataConfig())
    assert stored.skipped == [("0001.png", "an empty file"), ("notes.txt", "not an image: text")]
    assert stored.origins == ("0000.png", "0002.png", "0003.png")
    assert len(stored.images) == 3


def test_values_without_a_picture_are_dropped(make_folder: MakeFolder, tmp_path: Path) -> None:
    for name in ("set/a", "set/c"):
        make_folder(name, 2)
    (tmp_path / "set" / "b").mkdir()
    (tmp_path / "set" / "b" / "readme.txt").write_text("no picture here")
    stored = open_store(folder_source(tmp_path / "set"), DataConfig())
    assert stored.labels.attributes == (Attribute("class", ("a", "c")),)
    assert stored.labels.conditions.tolist() == [[0], [0], [1], [1]]


def test_no_readable_picture_is_one_line_and_leaves_nothing(tmp_path: Path, own_cache: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a.txt").write_text("words")
    with pytest.raises(UserError, match=r"no readable image .* 'a.txt' \(not an image: text\)"):
        open_store(folder_source(tmp_path / "set"), DataConfig())
    assert entries(own_cache) == []
    assert leftovers(own_cache) == []


def test_what_was_met_is_said(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    frames = [Image.new("RGB", (30, 30), colour) for colour in ("#ff0000", "#00ff00")]
    frames[0].save(tmp_path / "set" / "film.gif", save_all=True, append_images=frames[1:])
    for side in (29, 31, 5):
        Image.new("RGB", (side, side), "#123456").save(tmp_path / "set" / f"{side}.png")
    notes = " ".join(open_store(folder_source(tmp_path / "set"), DataConfig()).notes)
    assert "24x24" in notes
    assert "median shorter side is 29" in notes
    assert "1 picture is smaller" in notes
    assert "1 animated" in notes


# ---- the cache ----


def test_the_second_opening_decodes_nothing(make_folder: MakeFolder) -> None:
    folder = make_folder("set", 6)
    ticks: list[tuple[int, int]] = []
    a, b = (
        open_store(folder_source(folder), DataConfig(), on_progress=lambda done, total: ticks.append((done, total)))
        for _ in range(2)
    )
    assert ticks == [(k, 6) for k in range(1, 7)]
    assert np.array_equal(a.images, b.images)
    assert (a.digests, a.origins, a.notes, a.labels.attributes) == (b.digests, b.origins, b.notes, b.labels.attributes)


def test_training_options_share_a_store_and_decoding_options_do_not(make_folder: MakeFolder, own_cache: Path) -> None:
    folder = make_folder("set", 3)
    for config in (DataConfig(), DataConfig(flip=True, held_out=0.5)):
        open_store(folder_source(folder), config)
    assert len(entries(own_cache)) == 1
    for config in (DataConfig(size=(4, 4)), DataConfig(channels=1), DataConfig(background="black")):
        open_store(folder_source(folder), config)
    assert len(entries(own_cache)) == 4


def test_a_changed_folder_makes_a_new_store_and_removes_the_old(make_folder: MakeFolder, own_cache: Path) -> None:
    folder = make_folder("set", 3)
    before = open_store(folder_source(folder), DataConfig())
    kept = before.images[2].copy()
    make_folder("set", 1, first=3)
    assert len(open_store(folder_source(folder), DataConfig()).images) == 4
    assert len(entries(own_cache)) == 1
    assert np.array_equal(before.images[2], kept)  # who still trains on the old one is not disturbed


@pytest.mark.parametrize("name", ["index.json", "images.npy", "digests.npy", "origins.txt", "conditions.npy"])
@pytest.mark.parametrize("keep", [0, 20, -1])
def test_a_damaged_store_is_built_anew(make_folder: MakeFolder, own_cache: Path, name: str, keep: int) -> None:
    folder = make_folder("set", 3)
    good = np.array(open_store(folder_source(folder), DataConfig()).images)
    (entry,) = entries(own_cache)
    path = entry / name
    path.write_bytes(path.read_bytes()[:keep])
    ticks: list[int] = []
    for _ in range(2):
        again = open_store(folder_source(folder), DataConfig(), on_progress=lambda done, total: ticks.append(done))
        assert np.array_equal(again.images, good)
        assert leftovers(own_cache) == []
        assert ticks == [1, 2, 3]


def _build_slowly(folder: str, cache: str, start: object, results: object) -> None:
    start.wait()  # type: ignore[attr-defined]
    stored = open_store(folder_source(Path(folder)), DataConfig(), Path(cache), lambda done, total: time.sleep(0.005))
    results.put(stored.digests)  # type: ignore[attr-defined]


def test_two_processes_may_build_at_once(make_folder: MakeFolder, tmp_path: Path) -> None:
    folder, cache = make_folder("set", 20), tmp_path / "cache"
    context = multiprocessing.get_context("fork")
    start, results = context.Event(), context.Queue()
    builders = [context.Process(target=_build_slowly, args=(str(folder), str(cache), start, results)) for _ in range(3)]
    for builder in builders:
        builder.start()
    start.set()
    digests = [results.get(timeout=30) for _ in builders]
    for builder in builders:
        builder.join(30)
        assert builder.exitcode == 0
    assert digests[0] == digests[1] == digests[2]
    assert len(entries(cache)) == 1
    assert leftovers(cache) == []


FULL = """
import resource, sys
from pathlib import Path
from sfumato.data.sources.files import folder_source
from sfumato.config.data import DataConfig
from sfumato.data.store.open import open_store
from sfumato.errors import UserError
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    open_store(folder_source(Path(sys.argv[1])), DataConfig())
except UserError as error:
    print(error)
"""


@pytest.mark.skipif(os.name != "posix", reason="limits on the size of files")
def test_a_full_disk_is_one_line_and_leaves_nothing(make_folder: MakeFolder, own_cache: Path) -> None:
    """No room stands in as the system's limit on a file's length, which fails in `write` as a full disk does."""
    folder = make_folder("set", 40)
    done = subprocess.run([sys.executable, "-c", FULL, str(folder)], check=True, capture_output=True, text=True)
    assert "image cache" in done.stdout
    assert "SFUMATO_CACHE" in done.stdout
    assert done.stdout.count("\n") == 1
    assert entries(own_cache) == []
    assert leftovers(own_cache) == []


def test_a_cache_that_cannot_be_made_is_one_line(make_folder: MakeFolder, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="SFUMATO_CACHE"):
        open_store(folder_source(make_folder("set", 2)), DataConfig(), tmp_path / "file" / "cache")


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert cache_folder(tmp_path) == tmp_path
    monkeypatch.setenv("SFUMATO_CACHE", str(tmp_path / "a"))
    assert cache_folder() == tmp_path / "a"
    monkeypatch.delenv("SFUMATO_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "b"))
    assert cache_folder() == tmp_path / "b" / "sfumato"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "c"))
    assert cache_folder() == tmp_path / "c" / ".cache" / "sfumato"


def test_any_source_can_be_stored() -> None:
    """The protocol is all that the store asks for."""

    class Numbers:
        name, attributes = "numbers", (Attribute("size", mean=2.0, std=4.0), Attribute("parity", ("even", "odd")))

        def __len__(self) -> int:
            return 4

        def origin(self, i: int) -> str:
            return f"number {i}"

        def size(self, i: int) -> tuple[int, int]:
            return 2, 2

        def read(self, i: int) -> Picture:
            if i == 2:
                raise Unreadable("too even")
            return Picture(np.full((2, 2, 1), i, np.uint8), (i / 2, math.nan if i == 0 else i % 2))

        def key(self) -> str:
            return "1"

    stored = open_store(Numbers(), DataConfig())
    assert stored.images[:, 0, 0, 0].tolist() == [0, 1, 3]
    assert stored.skipped == [("number 2", "too even")]
    # nobody is even, so the value goes, and odd is the first; the number stays as it is
    assert stored.labels.attributes == (Attribute("size", mean=2.0, std=4.0), Attribute("parity", ("odd",)))
    np.testing.assert_array_equal(stored.labels.conditions, np.float32([[0, math.nan], [0.5, 0], [1.5, 0]]))
    again = open_store(Numbers(), DataConfig())
    assert again.labels.attributes == stored.labels.attributes
    np.testing.assert_array_equal(again.labels.conditions, stored.labels.conditions)


@pytest.mark.parametrize("name", ["digests.npy", "conditions.npy", "origins.txt"])
def test_a_column_that_rots_makes_the_store_anew(make_folder: MakeFolder, own_cache: Path, name: str) -> None:
    source = folder_source(make_folder("set/a", 3).parent)
    before = open_store(source, DataConfig())
    (path,) = own_cache.rglob(name)
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(content)
    after = open_store(source, DataConfig())
    assert (after.digests, after.origins) == (before.digests, before.origins)
    assert np.array_equal(after.labels.conditions, before.labels.conditions, equal_nan=True)


def test_a_store_without_checksums_is_read(make_folder: MakeFolder, own_cache: Path) -> None:
    source = folder_source(make_folder("set", 3))
    before = open_store(source, DataConfig())
    (path,) = own_cache.rglob("index.json")
    index = json.loads(path.read_text())
    del index["sha256"]
    path.write_text(json.dumps(index))
    assert open_store(source, DataConfig()).digests == before.digests
    assert json.loads(path.read_text()) == index, "not built anew"


@pytest.mark.parametrize("crop", ["center", "random"])
def test_pixels_that_rot_are_noticed_when_they_are_met(make_folder: MakeFolder, own_cache: Path, crop: str) -> None:
    folder = make_folder("set", 6, size=(4, 5))
    config = DataConfig(str(folder), size=(4, 4), crop=crop, held_out=0.0)
    open_data(config)
    (path,) = own_cache.rglob("images.npy")
    content = bytearray(path.read_bytes())
    content[-1] ^= 4
    path.write_bytes(content)
    data = open_data(config)
    data.rows(torch.arange(5))
    for _ in range(2):
        with pytest.raises(UserError, match=r"images\.npy is damaged, at the pixels of '0005\.png'"):
            data.batch(torch.arange(6), seed=0)
    path.unlink()
    open_data(config).batch(torch.arange(6), seed=0)
