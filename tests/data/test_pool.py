"""Decoding in processes: the same rows, and no file that takes the import down."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sfumato.config.data import DataConfig
from sfumato.data import Unreadable, pool
from sfumato.data.sources.files import FileSource
from sfumato.data.sources.protocol import Blob, File
from sfumato.data.store.store import open_store
from sfumato.errors import UserError

MakeFolder = Callable[..., Path]
CONFIG = DataConfig(size=(8, 8), channels=3)
DEADLY = """
import os, signal, sys, time
sys.path.append(sys.argv[1])
import sfumato.data.worker as worker
real = worker.read_picture
def read(file, *args, **options):
    data = file.open("rb").read()
    if data.startswith(b"DIE"):
        os.kill(os.getpid(), signal.SIGKILL)
    if data.startswith(b"HANG"):
        time.sleep(60)
    if data.startswith(b"ONCE") and not os.path.exists(data[4:]):
        open(data[4:], "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    return real(worker.Blob(data[data.find(b"\\x89PNG"):]) if data.startswith(b"ONCE") else file, *args, **options)
worker.read_picture = read
worker.main()
"""


class Blobs(FileSource):
    """Files in memory; counts how many were taken."""

    def __init__(self, blobs: list[bytes]) -> None:
        super().__init__("blobs")
        self.blobs, self.taken = blobs, 0

    def __len__(self) -> int:
        return len(self.blobs)

    def origin(self, i: int) -> str:
        return f"blob {i}"

    def file(self, i: int) -> File:
        self.taken += 1
        if not self.blobs[i]:
            raise Unreadable("no bytes at all")
        return Blob(self.blobs[i])

    def key(self) -> str:
        return "1"


def png(k: int) -> bytes:
    content = io.BytesIO()
    Image.fromarray(np.random.default_rng(k).integers(0, 256, (9, 9, 3), np.uint8)).save(content, "PNG")
    return content.getvalue()


@pytest.fixture
def deadly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Decoders that certain files kill or hang."""
    monkeypatch.setattr(pool, "_START", DEADLY)
    monkeypatch.setenv("SFUMATO_WORKERS", "2")


def test_any_number_of_processes_stores_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blobs = [png(k) if k % 7 else (b"", b"no picture")[k % 2] for k in range(120)]
    found = []
    for workers in ("0", "1", "3"):
        monkeypatch.setenv("SFUMATO_WORKERS", workers)
        stored = open_store(Blobs(blobs), CONFIG, tmp_path / workers)
        found.append((stored.images.tobytes(), stored.digests, stored.origins, stored.quarantined, stored.notes))
        files = sorted((tmp_path / workers).rglob("*.*"))
        found[-1] += tuple(path.read_bytes() for path in files if path.is_file())
    assert found[0] == found[1] == found[2]
    assert len(found[0][3]) == 18


@pytest.mark.usefixtures("deadly")
def test_a_file_that_kills_its_decoder_is_named_and_the_rest_goes_on() -> None:
    blobs = [png(k) for k in range(40)]
    blobs[5] = blobs[6] = blobs[39] = b"DIE now"
    stored = open_store(Blobs(blobs), CONFIG)
    assert stored.quarantined == [(f"blob {k}", "the decoder died on it") for k in (5, 6, 39)]
    assert stored.origins == tuple(f"blob {k}" for k in range(40) if k not in (5, 6, 39))


@pytest.mark.usefixtures("deadly")
def test_a_decoder_that_is_killed_by_somebody_costs_no_picture(tmp_path: Path) -> None:
    blobs = [png(k) for k in range(20)]
    blobs[3] = b"ONCE" + os.fsencode(tmp_path / "dead")
    stored = open_store(Blobs([*blobs[:3], blobs[3], *blobs[4:]]), CONFIG)
    assert (tmp_path / "dead").exists()
    # the second process found the file as it is: text, and not a killer
    assert [origin for origin, _ in stored.quarantined] == ["blob 3"]
    assert "died" not in stored.quarantined[0][1]


@pytest.mark.usefixtures("deadly")
def test_a_file_that_hangs_its_decoder_is_named_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "PATIENCE", 3.0)
    blobs = [png(k) for k in range(40)]
    blobs[17] = b"HANG"
    start = time.monotonic()
    stored = open_store(Blobs(blobs), CONFIG)
    assert time.monotonic() - start < 30
    assert stored.quarantined == [("blob 17", "reading it took more than 3 s")]


def test_patience_leaves_time_to_notice_within_half_a_minute() -> None:
    assert pool.PATIENCE + 2 * pool._POLL < 30


def test_memory_is_bounded_by_a_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the one that writes is, few files are taken ahead of it."""
    monkeypatch.setenv("SFUMATO_WORKERS", "2")
    source, ahead = Blobs([png(k) for k in range(400)]), []

    def slow(done: int, total: int) -> None:
        if done % 40 == 0:
            time.sleep(0.1)
            ahead.append(source.taken - done)

    open_store(source, CONFIG, on_progress=slow)
    window = 16 * (2 * 2 + 2 + 1)
    assert max(ahead) <= window
    assert source.taken == 400


def test_leaving_early_ends_the_processes() -> None:
    from sfumato.data.sources.layout import make_plan

    before = threading.active_count()
    built = Path(os.environ["SFUMATO_CACHE"])
    built.mkdir(parents=True)
    source = Blobs([png(k) for k in range(300)])
    rows: Iterator[object] = pool.decode(source, make_plan(built, source, CONFIG).form, 0, 2)
    next(rows)
    rows.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before
    assert source.taken < 300


def test_a_source_that_breaks_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(Blobs):
        def file(self, i: int) -> File:
            if i == 20:
                raise UserError("the archive is gone")
            return super().file(i)

    monkeypatch.setenv("SFUMATO_WORKERS", "1")
    with pytest.raises(UserError, match="gone"):
        open_store(Broken([png(k) for k in range(40)]), CONFIG)


def test_processes_that_cannot_start_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SFUMATO_WORKERS", "1")
    monkeypatch.setattr(pool, "_START", "raise SystemExit")
    with pytest.raises(UserError, match="SFUMATO_WORKERS=0"):
        open_store(Blobs([png(k) for k in range(4)]), CONFIG)


def test_how_many(monkeypatch: pytest.MonkeyPatch) -> None:
    assert pool.count_workers(pool.SMALL - 1) == 0
    assert pool.count_workers(pool.SMALL) >= 1
    monkeypatch.setenv("SFUMATO_WORKERS", "5")
    assert pool.count_workers(1) == 5
    monkeypatch.setenv("SFUMATO_WORKERS", "many")
    with pytest.raises(UserError, match="'many'"):
        pool.count_workers(1)


PLAIN = """
from pathlib import Path
import sys
from sfumato.config.data import DataConfig
from sfumato.data import open_source
from sfumato.data.store.store import open_store
print("run")
print(len(open_store(open_source(sys.argv[1]), DataConfig(size=(8, 8))).images))
"""


def test_a_program_without_a_main_guard_is_not_run_again(make_folder: MakeFolder) -> None:
    """Processes that begin by importing the caller's program are how such things usually fail."""
    folder = make_folder("set", 20)
    environment = {**os.environ, "SFUMATO_WORKERS": "2"}
    (folder.parent / "program.py").write_text(PLAIN)
    done = subprocess.run(
        [sys.executable, str(folder.parent / "program.py"), str(folder)],
        capture_output=True,
        text=True,
        env=environment,
        check=True,
        cwd=folder,  # whose files must not be taken for modules either
    )
    assert done.stdout.split() == ["run", "20"]
