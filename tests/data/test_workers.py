"""Functions of files in processes: the same answers, and no file that takes the program down."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sfumato.config.data import DataConfig
from sfumato.data import Unreadable, workers
from sfumato.data.sources.files import FileSource, folder_source
from sfumato.data.sources.protocol import Blob, File
from sfumato.data.store import answers as answering
from sfumato.data.store import parts
from sfumato.data.store.open import open_store
from sfumato.data.watch import watched
from sfumato.data.workers import Pace, most_workers, paying_workers, run
from sfumato.errors import UserError

from .encode import noise

MakeFolder = Callable[..., Path]
CONFIG = DataConfig(size=(8, 8), channels=3)
DEADLY = """
import os, signal, time
from sfumato.data.sources.protocol import Unreadable
from sfumato.data.store.answers import decoder as real
from sfumato.data.store.percentiles import sampler as values
def function(setup, answer=None):
    def deadly(file):
        data = file.open("rb").read()
        if data == b"DIE":
            os.kill(os.getpid(), signal.SIGKILL)
        if data == b"HANG":
            time.sleep(60)
        if data.startswith(b"ONCE") and not os.path.exists(data[4:]):
            open(data[4:], "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        if data in (b"BAD", b"BUG", b"HUGE"):
            raise {b"BAD": Unreadable("no good"), b"BUG": KeyError("x"), b"HUGE": MemoryError()}[data]
        print("noise among the answers", flush=True)
        return answer(file) if answer else setup + data
    return deadly
def decoder(setup):
    return function(b"", real(setup))
def sampler(setup):
    return function(b"", values(setup))
"""


@pytest.fixture(autouse=True)
def deadly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module with functions that certain files kill or hang."""
    (tmp_path / "deadly.py").write_text(DEADLY)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.syspath_prepend(tmp_path)


def answers(files: list[File | str], count: int = 2, **options: float) -> list[bytes | str]:
    return list(run("deadly:function", b"> ", files, count, **options))  # type: ignore[arg-type]


@pytest.mark.parametrize("count", [0, 1, 3])
def test_answers_come_in_order_and_faults_are_told(count: int, tmp_path: Path) -> None:
    (tmp_path / "a path").write_bytes(b"on the disk")
    files: list[File | str] = [Blob(b"%d" % k) for k in range(100)]
    files[5], files[6], files[17] = tmp_path / "a path", "none to begin with", Blob(bytes(2**20))
    files[40:43] = Blob(b"BAD"), Blob(b"BUG"), Blob(b"HUGE")
    expected: list[bytes | str] = [b"> %d" % k for k in range(100)]
    expected[5], expected[6], expected[17] = b"> on the disk", "none to begin with", b"> " + bytes(2**20)
    expected[40:43] = "no good", "unexpected KeyError: 'x'", "it needs more memory than is available"
    assert answers(files, count) == expected
    assert answers([], count) == []


def test_a_file_that_kills_its_process_is_named_and_the_rest_goes_on() -> None:
    files: list[File | str] = [Blob(b"%d" % k) for k in range(40)]
    for k in (5, 6, 39):
        files[k] = Blob(b"DIE")
    expected = ["the decoder crashed" if k in (5, 6, 39) else b"> %d" % k for k in range(40)]
    assert answers(files) == answers(files, tries=1) == expected


def test_a_process_that_is_killed_by_somebody_costs_no_file(tmp_path: Path) -> None:
    once = b"ONCE" + os.fsencode(tmp_path / "dead")
    assert answers([Blob(b"1"), Blob(once), Blob(b"2")]) == [b"> 1", b"> " + once, b"> 2"]
    assert (tmp_path / "dead").exists()


def test_a_file_that_hangs_its_process_is_named_in_time() -> None:
    files: list[File | str] = [Blob(b"%d" % k) for k in range(40)]
    files[17] = Blob(b"HANG")
    start = time.monotonic()
    found = answers(files, patience=3.0)
    assert time.monotonic() - start < 30
    assert found[17] == "decoding took more than 3 s"
    assert workers.PATIENCE < 30
    assert found[:17] + found[18:] == [b"> %d" % k for k in range(40) if k != 17]


def test_memory_is_bounded_by_a_window() -> None:
    """However slow the one that takes the answers is, few files are taken ahead of it."""
    taken, ahead = 0, []

    def files() -> Iterator[File | str]:
        nonlocal taken
        for k in range(400):
            taken += 1
            yield Blob(b"%d" % k)

    for done, _ in enumerate(run("deadly:function", b"", files(), 2)):
        if done % 40 == 0:
            time.sleep(0.1)
            ahead.append(taken - done)
    assert max(ahead) <= 16 * (2 * 2 + 2 + 1)
    assert taken == 400


def test_leaving_early_ends_the_processes() -> None:
    before = threading.active_count()
    found = run("deadly:function", b"", (Blob(b"%d" % k) for k in range(3000)), 2)
    next(found)
    found.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


def test_a_source_that_breaks_is_heard() -> None:
    def files() -> Iterator[File | str]:
        yield from (Blob(b"%d" % k) for k in range(20))
        raise UserError("the archive is gone")

    with pytest.raises(UserError, match="gone"):
        list(run("deadly:function", b"", files(), 1))


def test_processes_that_cannot_start_are_one_line() -> None:
    with pytest.raises(UserError, match="SFUMATO_WORKERS=0"):
        list(run("no_such_module:function", b"", [Blob(b"")], 1))


def test_how_many(monkeypatch: pytest.MonkeyPatch) -> None:
    assert most_workers() >= 1
    monkeypatch.setenv("SFUMATO_WORKERS", "5")
    assert most_workers() == Pace(1).workers() == 5
    monkeypatch.setenv("SFUMATO_WORKERS", "many")
    with pytest.raises(UserError, match="'many'"):
        most_workers()


@pytest.mark.parametrize(
    ("quota", "expected"), [("200000 100000\n", 2), ("250000 100000\n", 3), ("max 100000\n", 8), ("50000 100000", 1)]
)
def test_a_container_has_a_process_for_each_core_that_it_may_use(
    quota: str, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers.os, "sched_getaffinity", lambda pid: range(8), raising=False)
    monkeypatch.setattr(workers, "_QUOTA", tmp_path / "cpu.max")
    assert most_workers() == 8
    (tmp_path / "cpu.max").write_text(quota)
    assert most_workers() == expected


@pytest.mark.parametrize(
    ("files", "seconds", "cores", "expected"),
    [
        (200, 190e-6, 64, 0),  # PNGs of 64x64
        (5000, 190e-6, 2, 0),
        (20_000, 190e-6, 2, 0),
        (200_000, 190e-6, 2, 2),
        (20_000, 190e-6, 16, 10),
        (100, 25e-3, 2, 2),  # photographs
        (20, 25e-3, 2, 0),
        (500, 25e-3, 1, 0),  # a single core gains nothing
        (10**6, 40e-6, 64, 0),  # an answer of another process takes longer
    ],
)
def test_processes_start_where_they_save_twice_the_time_that_they_need(
    files: int, seconds: float, cores: int, expected: int
) -> None:
    assert paying_workers(files, seconds, cores) == expected


def test_the_time_of_the_first_file_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(workers.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(workers, "most_workers", lambda: 4)

    def counts(seconds: list[float]) -> list[int]:
        pace = Pace(1000)
        found = [pace.workers()]
        for spent in seconds:
            clock[0] += spent
            found.append(pace.workers(1))
        return found

    assert counts([10.0, 1e-3, 1e-3]) == [0, 0, 0, 0]
    assert counts([1e-3, 0.1, 0.1, 0.1]) == [0, 0, 0, 0, 4]  # after `LOOK`, not before
    assert counts([1e-3, *[1e-3] * 400, *[0.1] * 4])[-3:] == [0, 0, 4]  # the last files count, not all


def test_processes_go_on_where_this_one_stops() -> None:
    class Soon(Pace):
        def workers(self, done: int = 0) -> int:
            self.done = getattr(self, "done", 0) + done
            return 2 * (self.done == 10)

    files: list[File | str] = [Blob(b"%d" % k) for k in range(60)]
    files[30] = Blob(b"DIE")
    found = list(run("deadly:function", b"> ", files, Soon(60)))
    assert found == ["the decoder crashed" if k == 30 else b"> %d" % k for k in range(60)]


# ---- the store's use of them ----


def in_memory(blobs: list[bytes]) -> FileSource:
    def file(i: int) -> File:
        if not blobs[i]:
            raise Unreadable("no bytes at all")
        return Blob(blobs[i])

    return FileSource("blobs", len(blobs), lambda i: f"blob {i}", file, "1")


def test_any_number_of_processes_stores_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blobs = [noise(k, 9) if k % 7 else (b"", b"no picture")[k % 2] for k in range(120)]
    found = []
    for count in ("0", "1", "3", "chosen"):
        monkeypatch.setenv("SFUMATO_WORKERS", count if count != "chosen" else "")
        with monkeypatch.context() as patch:
            patch.setattr(workers, "LOOK", 0.0)
            patch.setattr(workers, "paying_workers", lambda files, *others: 2 * (files < 80))
            stored = open_store(in_memory(blobs), CONFIG, tmp_path / count)
            found.append((stored.images.tobytes(), stored.digests, stored.origins, stored.skipped, stored.notes))
            files = sorted((tmp_path / count).rglob("*.*"))
            found[-1] += tuple(path.read_bytes() for path in files if path.is_file())
    assert found[0] == found[1] == found[2] == found[3]
    assert len(found[0][3]) == 18


def test_a_file_that_kills_its_decoder_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "DECODER", "deadly:decoder")
    monkeypatch.setenv("SFUMATO_WORKERS", "2")
    stored = open_store(in_memory([b"DIE" if k == 5 else noise(k) for k in range(40)]), CONFIG)
    assert stored.skipped == [("blob 5", "the decoder crashed")]
    assert stored.origins == tuple(f"blob {k}" for k in range(40) if k != 5)


CRASHING = """
import sys
from pathlib import Path
from sfumato.config.data import DataConfig
from sfumato.data.sources.files import folder_source
from sfumato.data.store import answers, parts
from sfumato.data.store.open import open_store
import deadly
# no file ends a real decoder
answers.make_row = answers.make_rows = lambda some, form: deadly.os.kill(deadly.os.getpid(), 9)
parts.DECODER = "deadly:decoder"
print(open_store(folder_source(Path(sys.argv[1])), DataConfig(size=(8, 8))).skipped)
"""


@pytest.mark.parametrize("mixed", [False, True])
def test_a_build_that_died_goes_on_in_processes_that_may_die(
    make_folder: MakeFolder, own_cache: Path, mixed: bool
) -> None:
    folder = make_folder("set", 20)
    if mixed:  # then all pictures are read a second time
        Image.fromarray(np.full((8, 8), 40_000, np.uint16)).save(folder / "0007.png")
    (folder / "0003.png").write_bytes(b"DIE")
    command = [sys.executable, "-c", CRASHING, str(folder)]
    assert subprocess.run(command, capture_output=True).returncode < 0
    again = subprocess.run(command, capture_output=True, text=True, check=True)
    assert again.stdout.strip() == "[('0003.png', 'the decoder crashed')]"


PERCENTILES = """
import sys
from pathlib import Path
from sfumato.config.data import DataConfig
from sfumato.data.sources.files import folder_source
from sfumato.data.store import parts, percentiles
from sfumato.data.store.open import open_store
import deadly
parts.DECODER, percentiles.SAMPLER = "deadly:decoder", "deadly:sampler"
config = DataConfig(size=(8, 8), percentiles=(1.0, 99.0))
print(open_store(folder_source(Path(sys.argv[1])), config).skipped)
"""


def test_a_process_that_died_for_the_values_of_a_file_is_protected_when_it_reads_them_again(
    make_folder: MakeFolder, own_cache: Path
) -> None:
    folder = make_folder("set", 20)
    (folder / "0003.png").write_bytes(b"DIE")
    command = [sys.executable, "-c", PERCENTILES, str(folder)]
    assert subprocess.run(command, capture_output=True).returncode < 0
    again = subprocess.run(command, capture_output=True, text=True, check=True)
    assert again.stdout.strip() == "[('0003.png', 'the decoder crashed')]"
    assert "set': an import did not end" in again.stderr


def test_a_file_that_this_process_can_not_end_is_named(
    make_folder: MakeFolder, own_cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    source = folder_source(make_folder("set", 5))
    read = source.read
    monkeypatch.setattr(answering, "watched", partial(watched, patience=0.1))
    monkeypatch.setattr(source, "read", lambda i: time.sleep(0.3 * (i == 3)) or read(i))
    assert len(open_store(source, CONFIG).digests) == 5
    assert [r.getMessage().partition(" so far")[0] for r in caplog.records] == ["'0003.png' has taken 0.1 s"]


PLAIN = """
import sys
from sfumato.config.data import DataConfig
from sfumato.data import open_data
print("run")
print(len(open_data(DataConfig(sys.argv[1], size=(8, 8)))))
"""


def test_a_program_without_a_main_guard_is_not_run_again(make_folder: MakeFolder) -> None:
    """Processes that begin by importing the caller's program are how such things usually fail."""
    folder = make_folder("set", 20)
    (folder.parent / "program.py").write_text(PLAIN)
    done = subprocess.run(
        [sys.executable, str(folder.parent / "program.py"), str(folder)],
        capture_output=True,
        text=True,
        env={**os.environ, "SFUMATO_WORKERS": "2"},
        check=True,
        cwd=folder,  # whose files must not be taken for modules either
    )
    assert done.stdout.split() == ["run", "20"]
