"""Several processes that want one store: they decode it together, and it is the store of one."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sfumato.config.data import DataConfig
from sfumato.data.sources.files import folder_source
from sfumato.data.store import builders, parts
from sfumato.data.store import format as disk
from sfumato.data.store.builders import help_build
from sfumato.data.store.format import load
from sfumato.data.store.open import open_store
from sfumato.data.store.parts import Parts, Shared

from .test_resume import CONFIG, MakeFolder, contents, counted

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")
NUM = 200


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten parts, one worker in each process, and cores that differ from process to process."""
    monkeypatch.setattr(parts, "PART", 20)
    monkeypatch.setattr(disk, "CHUNK", 60)
    monkeypatch.setattr(builders, "_crew", lambda: f"crew-{os.getpid()}")
    monkeypatch.setenv("SFUMATO_WORKERS", "1")


class Other:
    """A forked process that opens the store of a folder and notes which pictures it gave to its decoder; `at` is called
    with the number of each before that, `done` with the numbers of those that are finished."""

    def __init__(
        self, folder: Path, cache: Path, at: Callable[[int], None] = lambda i: None, done: Callable[[int], None] = id
    ) -> None:
        self.seen = cache.with_name(f"{cache.name}-{time.monotonic_ns()}")
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                source, seen = counted(folder)
                file = source.file
                source.file = lambda i: (at(i), file(i))[1]  # type: ignore[assignment, func-returns-value]
                open_store(source, CONFIG, cache, on_progress=lambda number, total: done(number) and None)
                self.seen.write_text(json.dumps(seen))
                code = 0
            finally:
                os._exit(code)

    def wait(self, code: int = 0) -> list[int]:
        """The pictures that it decoded, after its end."""
        assert os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1]) == code
        return json.loads(self.seen.read_text()) if self.seen.exists() else []


def until(reached: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not reached():
        assert time.monotonic() < end
        time.sleep(0.01)


def slowly(done: int, total: int) -> None:
    time.sleep(0.004)


def kill(number: int) -> Callable[[int], None]:
    """Die when a picture from this one on is to be decoded."""
    return lambda i: os.kill(os.getpid(), signal.SIGKILL) if i >= number else None


@pytest.fixture
def folder(make_folder: MakeFolder) -> Path:
    folder = make_folder("set", NUM)
    (folder / "0007.png").write_bytes(b"")
    (folder / "0113.png").write_bytes(b"no picture")
    return folder


@pytest.fixture
def alone(folder: Path, tmp_path: Path) -> dict[str, bytes]:
    """The store that one process makes in itself, without workers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SFUMATO_WORKERS", "0")
        open_store(folder_source(folder), CONFIG, tmp_path / "alone")
    return contents(tmp_path / "alone")


def test_together_they_make_the_store_of_one_and_decode_every_picture_once(folder, alone, tmp_path):
    source, seen = counted(folder)
    others = [Other(folder, tmp_path / "cache") for _ in range(2)]
    open_store(source, CONFIG, tmp_path / "cache", on_progress=slowly)
    theirs = [other.wait() for other in others]
    assert contents(tmp_path / "cache") == alone
    assert sorted(seen + theirs[0] + theirs[1]) == list(range(NUM))
    assert min(len(seen), len(theirs[0]), len(theirs[1])) >= 20
    assert not list((tmp_path / "cache").glob("store/*/.build-*"))


def test_what_a_process_has_claimed_when_it_dies_is_decoded_by_the_leader(folder, alone, tmp_path):
    """The leader has passed the part by then, and does not wait for longer than it takes to die."""
    others: list[Other] = []

    def linger(i: int) -> None:
        if i >= 60:
            time.sleep(1.5)
            kill(0)(i)

    def with_others(done: int, total: int) -> None:
        if done == 1:  # this process leads, and has claimed no more than its worker is given
            others.extend(Other(folder, tmp_path / "cache", linger) for _ in range(2))
            time.sleep(0.7)

    begun = time.monotonic()
    open_store(folder_source(folder), CONFIG, tmp_path / "cache", on_progress=with_others)
    assert time.monotonic() - begun < parts.LATE / 2
    for other in others:
        other.wait(-signal.SIGKILL)
    assert contents(tmp_path / "cache") == alone


def test_where_the_leader_dies_another_goes_on(folder, alone, tmp_path):
    leader = Other(folder, tmp_path / "cache", done=kill(130))
    until(lambda: bool(list((tmp_path / "cache").glob("store/*/.build-*/parts/shared"))))
    source, seen = counted(folder)
    open_store(source, CONFIG, tmp_path / "cache")
    leader.wait(-signal.SIGKILL)
    assert contents(tmp_path / "cache") == alone
    assert seen


def test_pictures_of_several_depths_are_begun_anew_together(make_folder, tmp_path):
    from PIL import Image

    folder = make_folder("set", NUM)
    Image.fromarray(np.full((12, 12), 40_000, np.uint16)).save(folder / "0150.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SFUMATO_WORKERS", "0")
        open_store(folder_source(folder), CONFIG, tmp_path / "alone")
    other = Other(folder, tmp_path / "cache")
    open_store(folder_source(folder), CONFIG, tmp_path / "cache", on_progress=slowly)
    other.wait()
    assert contents(tmp_path / "cache") == contents(tmp_path / "alone")
    assert b"others more" in contents(tmp_path / "cache")["index.json"]


def test_a_process_with_the_same_cores_waits(folder, alone, tmp_path, monkeypatch):
    monkeypatch.setattr(builders, "_crew", lambda: "crew-same")
    leader = Other(folder, tmp_path / "cache", lambda i: time.sleep(0.003))
    until(lambda: bool(list((tmp_path / "cache").glob("store/*/.build-*/parts/shared"))))
    source, seen = counted(folder)
    open_store(source, CONFIG, tmp_path / "cache")
    assert leader.wait() == list(range(NUM))
    assert seen == []
    assert contents(tmp_path / "cache") == alone


@pytest.mark.parametrize("fault", ["damaged", "held"])
def test_the_leader_decodes_what_another_process_has_spoiled_or_keeps(folder, alone, tmp_path, monkeypatch, fault):
    monkeypatch.setattr(parts, "LATE", 0.2)
    monkeypatch.setattr(disk, "CHUNK", 20)
    built = []

    def spoil(done: int, total: int) -> None:
        if done == 1:
            (shared,) = (tmp_path / "cache").glob("store/*/.build-*/parts")
            if fault == "damaged":
                (shared / "5").write_bytes(b"x" * 100)
            else:
                built.append(parts.Lock(shared / "5.lock"))
                assert built[0].__enter__().held

    source, seen = counted(folder)
    open_store(source, CONFIG, tmp_path / "cache", on_progress=spoil)
    assert sorted(seen) == list(range(NUM))
    assert contents(tmp_path / "cache") == alone


def test_a_leader_that_does_nothing_is_not_waited_for(folder, tmp_path):
    (tmp_path / "parts").mkdir()
    leader = os.fork()
    if leader == 0:
        with parts.Lock(tmp_path / "lock"):
            (tmp_path / "ready").touch()
            time.sleep(60)
    until((tmp_path / "ready").exists)
    begun = time.monotonic()
    assert not help_build(tmp_path, None, 0, slowly, stuck=0.3)
    assert 0.3 <= time.monotonic() - begun < 5
    os.kill(leader, signal.SIGKILL)
    os.waitpid(leader, 0)
    assert help_build(tmp_path, None, 0, slowly)  # it is over


def test_answers_are_left_as_they_are(folder, tmp_path):
    answers: list[bytes | str] = [b"", b"row \x00", "", "no picture: Ü", b"x" * 1000]
    content = parts._packed(answers)
    assert parts._unpacked(content) == answers
    assert parts._unpacked(content[:-1]) is None
    assert parts._unpacked(b"") is None
    shared = Shared("{}", 30, 95, 4)
    claimed = Parts(tmp_path, shared, folder_source(folder), 1)
    assert claimed._pictures(claimed.numbers[0]) == range(30, 40)
    assert [row for k in claimed.numbers for row in claimed._pictures(k)] == list(range(30, 95))


def test_a_store_of_the_cache_can_be_read_while_another_is_built(folder, tmp_path):
    other = Other(folder, tmp_path / "cache")
    assert len(open_store(folder_source(folder), DataConfig(size=(4, 4)), tmp_path / "cache").images) == NUM - 2
    other.wait()
    assert len([load(path.parent) for path in (tmp_path / "cache").glob("store/*/[!.]*/index.json")]) == 2
