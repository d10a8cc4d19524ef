"""Builds that are killed, and the builds that go on from them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sfumato.conditions.attributes import Attribute
from sfumato.config.data import DataConfig
from sfumato.data.formats.rows import Form
from sfumato.data.sources.files import FileSource, folder_source
from sfumato.data.store import build, builders
from sfumato.data.store import format as disk
from sfumato.data.store.format import Chunk, Plan, append, chunks, load, plan_of, write_index
from sfumato.data.store.open import open_store

MakeFolder = Callable[..., Path]
CONFIG = DataConfig(size=(8, 8))
STEP = 10
KILLED = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background may ignore it
from pathlib import Path
from sfumato.data.store import format as disk
from sfumato.data.sources.files import folder_source
from sfumato.config.data import DataConfig
from sfumato.data.store.open import open_store
disk.CHUNK = 10
def die(done, total):
    if done == int(sys.argv[2]): os.kill(os.getpid(), int(sys.argv[3]))
open_store(folder_source(Path(sys.argv[1])), DataConfig(size=(8, 8)), on_progress=die)
"""


def counted(folder: Path) -> tuple[FileSource, list[int]]:
    """A folder as a source, and which of its pictures were decoded."""
    source, seen = folder_source(folder), list[int]()
    file = source.file
    source.file = lambda i: seen.append(i) or file(i)  # type: ignore[assignment, func-returns-value]
    return source, seen


@pytest.fixture(autouse=True)
def short_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "CHUNK", STEP)
    monkeypatch.setenv("SFUMATO_WORKERS", "0")  # a build that goes on would start processes


def killed(folder: Path, after: int, sign: int = signal.SIGKILL) -> None:
    """Build until a picture, then die."""
    done = subprocess.run([sys.executable, "-c", KILLED, str(folder), str(after), str(int(sign))], capture_output=True)
    assert done.returncode != 0


def left(cache: Path) -> Path:
    (folder,) = cache.glob("store/*/.build-*")
    return folder


def contents(cache: Path) -> dict[str, bytes]:
    """The files of the one finished store, by name."""
    (entry,) = {path.parent for path in cache.glob("store/*/[!.]*/index.json")}
    return {path.name: path.read_bytes() for path in entry.iterdir()}


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_build_goes_on_where_it_was(
    make_folder: MakeFolder, own_cache: Path, tmp_path: Path, sign: int
) -> None:
    folder = make_folder("set", 35)
    (folder / "0007.png").write_bytes(b"")
    killed(folder, 27, sign)
    source, seen = counted(folder)
    ticks: list[int] = []
    resumed = open_store(source, CONFIG, on_progress=lambda done, total: ticks.append(done))
    assert seen == list(range(20, 35))
    assert ticks == list(range(21, 36))
    assert not list(own_cache.glob("store/*/.build-*"))
    whole = open_store(folder_source(folder), CONFIG, tmp_path / "other")
    assert contents(own_cache) == contents(tmp_path / "other")
    assert resumed.skipped == whole.skipped == [("0007.png", "an empty file")]


def test_killed_again_and_again_it_ends_the_same(make_folder: MakeFolder, own_cache: Path, tmp_path: Path) -> None:
    folder = make_folder("set", 35)
    for after in (3, 14, 15, 33):
        killed(folder, after)
    open_store(folder_source(folder), CONFIG)
    open_store(folder_source(folder), CONFIG, tmp_path / "other")
    assert contents(own_cache) == contents(tmp_path / "other")


@pytest.mark.parametrize(
    ("name", "place", "from_picture"),
    [
        ("images.npy", 128 + 12 * 192, 10),  # a row of the second chunk
        ("images.npy", 128 + 3 * 192, 0),
        ("journal", 100, 0),
        ("journal", -40, 10),
    ],
)
def test_what_was_damaged_since_is_done_again(
    make_folder: MakeFolder, own_cache: Path, tmp_path: Path, name: str, place: int, from_picture: int
) -> None:
    folder = make_folder("set", 35)
    killed(folder, 27)
    path = left(own_cache) / name
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)
    source, seen = counted(folder)
    open_store(source, CONFIG)
    assert seen == list(range(from_picture, 35))
    open_store(folder_source(folder), CONFIG, tmp_path / "other")
    assert contents(own_cache) == contents(tmp_path / "other")


@pytest.mark.parametrize("name", ["images.npy", "journal"])
@pytest.mark.parametrize("keep", [0, 200, 400])
def test_what_was_cut_off_since_is_done_again(make_folder: MakeFolder, own_cache: Path, name: str, keep: int) -> None:
    folder = make_folder("set", 35)
    killed(folder, 27)
    os.truncate(left(own_cache) / name, keep)
    stored = open_store(folder_source(folder), CONFIG)
    for i in (0, 15, 34):
        np.testing.assert_array_equal(stored.images[i].transpose(1, 2, 0), folder_source(folder).read(i).pixels)


def test_a_changed_folder_is_begun_anew(make_folder: MakeFolder, own_cache: Path) -> None:
    folder = make_folder("set", 35)
    killed(folder, 27)
    make_folder("set", 1, first=35)
    source, seen = counted(folder)
    open_store(source, CONFIG)
    assert seen == list(range(36))


def test_a_build_that_is_going_on_is_not_taken_over(make_folder: MakeFolder, own_cache: Path) -> None:
    folder = make_folder("set", 35)
    inner, seen = counted(folder)

    def meanwhile(done: int, total: int) -> None:
        if done == 25:
            open_store(inner, CONFIG)

    outer = open_store(folder_source(folder), CONFIG, on_progress=meanwhile)
    assert seen == list(range(35))
    assert len(outer.images) == 35
    assert not list(own_cache.glob("store/*/.build-*"))


@pytest.mark.parametrize("after", [1, 25])
def test_an_interrupt_keeps_what_is_done_and_else_leaves_nothing(
    make_folder: MakeFolder, own_cache: Path, after: int
) -> None:
    def interrupt(done: int, total: int) -> None:
        if done == after:
            raise KeyboardInterrupt

    folder = make_folder("set", 35)
    with pytest.raises(KeyboardInterrupt):
        open_store(folder_source(folder), CONFIG, on_progress=interrupt)
    assert len(list(own_cache.glob("store/*/.build-*"))) == (after > STEP)
    source, seen = counted(folder)
    open_store(source, CONFIG)
    assert seen == list(range(20 if after == 25 else 0, 35))


def test_a_journal_says_what_it_was_told(tmp_path: Path) -> None:
    nan = float("nan")
    first = Chunk(
        Counter(pictures=3, rows=2, coloured=1),
        ["ab" * 32, "cd" * 32],
        ["a", "Ünïcode 🙂"],
        [(1.0, nan), (0.1, 2.0)],
        [None, "a\ncat 🙂\u2028"],
    )
    second = Chunk(Counter(pictures=1), skipped=[("bad\\x0a", "why")])
    plan = Plan((3, 3), Form((4, 3), None, "white"), ["chosen"])
    for line in (plan, first, second):
        append(tmp_path / "journal", line)
    assert plan_of(tmp_path / "journal") == plan
    (one, _), (two, end) = chunks(tmp_path / "journal")
    assert (one.counts, one.digests, one.origins) == (first.counts, first.digests, first.origins)
    np.testing.assert_array_equal(np.float32(one.conditions), np.float32(first.conditions))
    assert two == second
    assert end == (tmp_path / "journal").stat().st_size
    np.save(tmp_path / "images.npy", np.zeros((2, 1, 3, 3), np.uint8))
    attributes = (Attribute("x", ("a", "b")), Attribute("y"))
    plain = {"shape": [2, 1, 3, 3], "size": [3, 3], "depth": None, "notes": ["n"]}
    write_index(tmp_path, attributes, plain)
    stored = load(tmp_path)
    assert stored is not None
    assert (stored.origins, list(stored.digests), stored.labels.captions) == (
        tuple(first.origins),
        first.digests,
        (None, first.captions[1]),
    )
    assert stored.skipped == second.skipped
    np.testing.assert_array_equal(stored.labels.conditions, np.float32([[1, nan], [0, 2]]))
    assert stored.labels.attributes == attributes


def test_a_million_rows_open_fast_because_no_row_is_json(make_folder: MakeFolder, own_cache: Path) -> None:
    open_store(folder_source(make_folder("set", 40)), CONFIG)
    (index,) = own_cache.glob("store/*/*/index.json")
    assert "0007.png" not in index.read_text()
    assert "shape" in json.loads(index.read_text())


def test_a_folder_that_was_taken_before_its_maker_could_lock_it_is_left_to_the_taker(
    make_folder: MakeFolder, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between making a folder and locking it there is a moment, in which another build may take it for a remnant."""
    fcntl = pytest.importorskip("fcntl")
    real, taken = builders.tempfile.mkdtemp, []

    def made_and_taken(**options: object) -> str:
        place = real(**options)
        if not taken:
            taken.append((os.open(Path(place, "lock"), os.O_RDWR | os.O_CREAT), place))
            fcntl.flock(taken[0][0], fcntl.LOCK_EX | fcntl.LOCK_NB)
        return place

    monkeypatch.setattr(builders.tempfile, "mkdtemp", made_and_taken)
    assert len(open_store(folder_source(make_folder("set", 12)), CONFIG).images) == 12
    assert sorted(path.name for path in Path(taken[0][1]).iterdir()) == ["lock"]
    os.close(taken[0][0])


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
def test_what_a_killed_build_left_is_removed_when_it_is_old(make_folder: MakeFolder, own_cache: Path) -> None:
    folder = make_folder("set", 15)
    killed(folder, 3)
    assert not list(own_cache.glob("store/*/[!.]*/index.json"))
    remains = left(own_cache)
    make_folder("set", 1, first=15)
    assert len(open_store(folder_source(folder), CONFIG).images) == 16
    assert remains.exists()  # it is of other pictures, and might belong to a build that still runs
    for path in (remains, *remains.iterdir()):
        os.utime(path, (time.time() - build.ABANDONED - 60,) * 2)
    make_folder("set", 1, first=16)
    open_store(folder_source(folder), CONFIG)
    assert not list(own_cache.glob("store/*/.build-*"))
