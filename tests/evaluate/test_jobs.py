"""Jobs: done once, by whichever process, whenever they are interrupted."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sfumato.evaluate.jobs import Job, Stage, Tick

WORKER = """if True:
    import os, sys, time
    from pathlib import Path
    from sfumato.evaluate.jobs import Job, Stage
    folder, mine, others = Path(sys.argv[1]), sys.argv[2], sys.argv[3:]
    def make(n):
        def work(tick):
            with open(folder / "log", "a") as log:
                log.write(f"{n} {mine}\\n")
            time.sleep(60 if mine == "stuck" else 0.03)
            return f"result {n}".encode()
        return work
    (folder / mine).touch()
    while not all((folder / other).exists() for other in others):
        time.sleep(0.01)
    print(Stage("", folder / "parts", tuple(Job(f"t{n}", 1, make(n)) for n in range(12))).run())
"""


def start(folder: Path, *names: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", WORKER, str(folder), *names], stdout=subprocess.PIPE, text=True)


def log(folder: Path) -> list[list[str]]:
    file = folder / "log"
    return [line.split() for line in file.read_text().splitlines()] if file.exists() else []


def stage(folder: Path, sizes: dict[str, int], done: list[str]) -> Stage:
    def job(name: str, size: int) -> Job:
        def run(tick: Tick) -> bytes:
            done.append(name)
            for _ in range(size):
                tick(1)
            return name.encode() * 3

        return Job(name, size, run)

    return Stage("working", folder, tuple(job(name, size) for name, size in sizes.items()))


def test_two_processes_share_and_no_job_is_done_twice(tmp_path: Path) -> None:
    workers = [start(tmp_path, *names) for names in (("a", "b"), ("b", "a"))]
    printed = [worker.communicate(timeout=30)[0] for worker in workers]
    assert printed == [f"{[f'result {n}'.encode() for n in range(12)]}\n"] * 2, "both have everything"
    lines = log(tmp_path)
    assert sorted(int(n) for n, _ in lines) == list(range(12))
    assert {who for _, who in lines} == {"a", "b"}


def test_a_dead_processs_job_is_taken_over(tmp_path: Path) -> None:
    stuck = start(tmp_path, "stuck")
    while not log(tmp_path):
        time.sleep(0.01)
    other = start(tmp_path, "other")
    while len(log(tmp_path)) < 12:
        time.sleep(0.01)
    assert other.poll() is None, "it waits for the job that the stuck one runs"
    stuck.kill()
    stuck.communicate()
    assert "result 0" in other.communicate(timeout=30)[0]
    assert [n for n, who in log(tmp_path) if who == "other"] == [*(str(n) for n in range(1, 12)), "0"]


def test_what_is_there_is_kept_and_progress_counts_the_rest(tmp_path: Path) -> None:
    done: list[str] = []
    seen: list[tuple[int, int]] = []
    stage(tmp_path, {"a": 2, "b": 3}, done).run()
    again = stage(tmp_path, {"a": 2, "c": 2, "b": 3, "d": 1}, done)
    assert again.left == 3
    assert again.run(lambda what: lambda *pair: seen.append(pair)) == [b"aaa", b"ccc", b"bbb", b"ddd"]
    assert done == ["a", "b", "c", "d"]
    assert seen == [(1, 3), (2, 3), (2, 3), (3, 3), (3, 3)]


@pytest.mark.parametrize("damage", [lambda x: x[:-1], lambda x: x[:-1] + b"!", lambda x: b"", lambda x: b"\0" + x[1:]])
def test_a_damaged_result_is_made_again(damage: Callable[[bytes], bytes], tmp_path: Path) -> None:
    done: list[str] = []
    stage(tmp_path, {"a": 1, "b": 1}, done).run()
    file = tmp_path / "a.part"
    file.write_bytes(damage(file.read_bytes()))
    assert stage(tmp_path, {"a": 1, "b": 1}, done).run() == [b"aaa", b"bbb"]
    assert done == ["a", "b", "a"]


def test_an_interruption_keeps_what_was_done(tmp_path: Path) -> None:
    done: list[str] = []

    def interrupted(tick: Tick) -> bytes:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Stage("", tmp_path, (*stage(tmp_path, {"a": 1}, done).jobs, Job("b", 1, interrupted))).run()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.part", "b.lock"]
    assert stage(tmp_path, {"a": 1, "b": 1}, done).run() == [b"aaa", b"bbb"]
    assert done == ["a", "b"]


def test_without_locks_everything_is_done_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sfumato.files.fcntl", None)
    assert stage(tmp_path, {"a": 1}, []).run() == [b"aaa"]


def test_a_folder_that_cant_be_written_is_said_before_any_work(tmp_path: Path) -> None:
    done: list[str] = []
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        stage(tmp_path / "file" / "parts", {"a": 1}, done).run()
    assert not done
