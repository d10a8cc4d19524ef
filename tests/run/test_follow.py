"""A run as it is now: training, stalled, stopped, finished; its log read as it grows and as it is written anew."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sfumato.errors import UserError
from sfumato.files import write_atomic
from sfumato.run.events import Buckets, Event, Finished, Started, Stepped, to_json
from sfumato.run.folder import Run
from sfumato.run.follow import Follower, check
from sfumato.run.plan import Plan

LEVELS = Buckets((1.0,) * 10, (2,) * 10)
STARTED = Started(Plan(320, 40, 8, 0, 0), 0)


def stepped(images: int, seconds: float = 1.0) -> Stepped:
    return Stepped(images, images // 8, 0.5, 1.0, 1e-3, seconds, LEVELS)


def lines(*events: Event) -> str:
    return "".join(json.dumps(to_json(event)) + "\n" for event in events)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    run = Run(tmp_path / "run")
    run.path.mkdir()
    run.config_path.write_text("")
    return run


@pytest.fixture
def held(run: Run):
    """Another process holds the run's lock."""
    code = (
        "import sys; from pathlib import Path; from sfumato.files import Lock\n"
        "with Lock(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(run.lock_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    yield process
    process.communicate(timeout=10)


def test_what_is_added_is_read_once_and_half_a_line_later(run: Run) -> None:
    follower = Follower(run)
    assert list(follower.news()) == []
    run.events_path.write_text(lines(STARTED, stepped(8)))
    assert list(follower.news()) == [STARTED, stepped(8)]
    whole = lines(stepped(16))
    with run.events_path.open("a") as file:
        file.write(whole[:30])
    assert list(follower.news()) == []
    with run.events_path.open("a") as file:
        file.write(whole[30:] + "no json\n" + '{"event": "unknown"}\n' + "x" * 3_000_000 + "\n" + lines(stepped(24)))
    assert list(follower.news()) == [stepped(16), stepped(24)]
    assert follower.progress.images == 24


def test_a_log_that_is_written_anew_is_read_again(run: Run) -> None:
    run.events_path.write_text(lines(STARTED, stepped(8), stepped(16)))
    follower = Follower(run)
    assert len(list(follower.news())) == 3
    write_atomic(run.events_path, lines(STARTED, stepped(8)))
    assert list(follower.news()) == [STARTED, stepped(8)]
    assert follower.progress.images == 8


def test_a_run_that_is_trained_and_one_that_says_nothing(run: Run, held: subprocess.Popen[bytes]) -> None:
    follower = Follower(run)
    assert follower.state().word == "training"
    run.events_path.write_text(lines(STARTED, stepped(8, 1.0), stepped(16, 3.0)))
    list(follower.news())
    state = follower.state()
    assert (state.word, state.process) == ("training", held.pid)
    assert state.memory > 2**20
    past = time.time() - 130
    os.utime(run.events_path, (past, past))
    state = follower.state()
    assert state.word == "stalled"
    assert state.quiet == pytest.approx(130, abs=10)
    with run.events_path.open("a") as file:
        file.write(lines(stepped(24, 103.0)))  # lines come every 100 s: 130 s of quiet are no stall
    list(follower.news())
    os.utime(run.events_path, (past, past))
    assert follower.state().word == "training"


def test_a_run_that_ended(run: Run) -> None:
    follower = Follower(run)
    assert follower.state().word == "new"
    run.events_path.write_text(lines(STARTED, stepped(320), Finished(320, 1.0)))
    list(follower.news())
    assert follower.state().word == "stopped"
    run.write(run.finished_path, {"images": 320, "seconds": 1.0})
    assert follower.state().word == "finished"
    run.write(run.finished_path, {"images": 160, "seconds": 1.0})
    assert follower.state().word == "stopped", "it was extended since"


def test_without_a_list_of_locks_the_process_number_counts(
    run: Run, held: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Path.read_text

    def gone(path: Path, *arguments: str, **more: str) -> str:
        if str(path) == "/proc/locks":
            raise FileNotFoundError(2, "no such file")
        return read(path, *arguments, **more)

    monkeypatch.setattr(Path, "read_text", gone)
    assert (Follower(run).state().word, Follower(run).state().process) == ("training", held.pid)
    held.communicate()
    assert Follower(run).state().word == "new"


def test_following_takes_no_lock(run: Run) -> None:
    with run.locked() as lock:
        assert lock.held
        assert Follower(run).state().word == "training"
    list(Follower(run).news())
    with run.locked() as lock:
        assert lock.held


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a run folder"):
        check(Run(tmp_path))
