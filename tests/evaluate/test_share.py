"""Work in parts: done once, whoever does it, whenever it is interrupted."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sfumato.evaluate.share import Task, Tick, missing, share

WORKER = """if True:
    import os, sys, time
    from pathlib import Path
    from sfumato.evaluate.share import Task, share
    folder, mine, others = Path(sys.argv[1]), sys.argv[2], sys.argv[3:]
    def make(n):
        def work(tick):
            with open(folder / "diary", "a") as diary:
                diary.write(f"{n} {mine}\\n")
            time.sleep(60 if mine == "stuck" else 0.03)
            return f"part {n}".encode()
        return work
    (folder / mine).touch()
    while not all((folder / other).exists() for other in others):
        time.sleep(0.01)
    print(share(folder / "parts", [Task(f"t{n}", 1, make(n)) for n in range(12)]))
"""


def start(folder: Path, *names: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", WORKER, str(folder), *names], stdout=subprocess.PIPE, text=True)


def tasks(sizes: dict[str, int], done: list[str]) -> list[Task]:
    def maker(name: str) -> Callable[[Tick], bytes]:
        def make(tick: Tick) -> bytes:
            done.append(name)
            for _ in range(sizes[name]):
                tick(1)
            return name.encode() * 3

        return make

    return [Task(name, size, maker(name)) for name, size in sizes.items()]


def diary(folder: Path) -> list[list[str]]:
    file = folder / "diary"
    return [line.split() for line in file.read_text().splitlines()] if file.exists() else []


def test_two_processes_share_and_no_part_is_done_twice(tmp_path: Path) -> None:
    workers = [start(tmp_path, *names) for names in (("a", "b"), ("b", "a"))]
    said = [worker.communicate(timeout=30)[0] for worker in workers]
    assert said == [f"{[f'part {n}'.encode() for n in range(12)]}\n"] * 2, "both have everything"
    lines = diary(tmp_path)
    assert sorted(int(n) for n, _ in lines) == list(range(12))
    assert {who for _, who in lines} == {"a", "b"}


def test_a_dead_processs_part_is_taken_over(tmp_path: Path) -> None:
    stuck = start(tmp_path, "stuck")
    while not diary(tmp_path):
        time.sleep(0.01)
    other = start(tmp_path, "other")
    while len(diary(tmp_path)) < 12:
        time.sleep(0.01)
    assert other.poll() is None, "it waits for the part that the stuck one has"
    stuck.kill()
    stuck.communicate()
    assert "part 0" in other.communicate(timeout=30)[0]
    assert [n for n, who in diary(tmp_path) if who == "other"] == [*(str(n) for n in range(1, 12)), "0"]


def test_what_is_there_is_kept_and_progress_counts_the_rest(tmp_path: Path) -> None:
    done: list[str] = []
    told: list[tuple[int, int]] = []
    share(tmp_path, tasks({"a": 2, "b": 3}, done))
    again = tasks({"a": 2, "c": 2, "b": 3, "d": 1}, done)
    assert [task.name for task in missing(tmp_path, again)] == ["c", "d"]
    assert share(tmp_path, again, lambda *pair: told.append(pair)) == [b"aaa", b"ccc", b"bbb", b"ddd"]
    assert done == ["a", "b", "c", "d"]
    assert told == [(1, 3), (2, 3), (2, 3), (3, 3), (3, 3)]


@pytest.mark.parametrize("damage", [lambda x: x[:-1], lambda x: x[:-1] + b"!", lambda x: b"", lambda x: b"\0" + x[1:]])
def test_a_damaged_part_is_done_again(damage: Callable[[bytes], bytes], tmp_path: Path) -> None:
    done: list[str] = []
    share(tmp_path, tasks({"a": 1, "b": 1}, done))
    file = tmp_path / "a.part"
    file.write_bytes(damage(file.read_bytes()))
    assert share(tmp_path, tasks({"a": 1, "b": 1}, done)) == [b"aaa", b"bbb"]
    assert done == ["a", "b", "a"]


def test_an_interruption_keeps_what_was_done(tmp_path: Path) -> None:
    done: list[str] = []

    def interrupted(tick: Tick) -> bytes:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        share(tmp_path, [*tasks({"a": 1}, done), Task("b", 1, interrupted)])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.part", "lock"]
    assert share(tmp_path, tasks({"a": 1, "b": 1}, done)) == [b"aaa", b"bbb"]
    assert done == ["a", "b"]


def test_without_locks_everything_is_done_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    monkeypatch.setattr("sfumato.evaluate.share.fcntl", None)
    assert share(tmp_path, tasks({"a": 1}, done)) == [b"aaa"]


def test_a_place_that_cant_be_written_is_said_before_any_work(tmp_path: Path) -> None:
    done: list[str] = []
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        share(tmp_path / "file" / "parts", tasks({"a": 1}, done))
    assert not done
