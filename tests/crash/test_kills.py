"""SIGKILL at chosen calls, at random moments, again and again: the same bits as without, and nothing half done."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from sfumato.run.folder import Run
from sfumato.train.saver import Saver

from .faults import CHANGING, Fault
from .harness import FIGURES, Ended, Training, attempt, finish, good, in_order, replaced, trace_of

LONGER = ["--train.images", "160"]
SLOW = pytest.mark.slow


def count(ended: list[Ended], how: str, fraction: float = 1 / 4) -> None:
    """Add kills to the figures, and fail where too few of them landed inside a save."""
    kills = [end for end in ended if end.killed]  # the others had ended before
    inside = sum(end.saving for end in kills)
    FIGURES[f"kills {how}"] += len(kills)
    FIGURES[f"kills {how}, inside a save"] += inside
    assert len(kills) >= 3
    assert inside >= fraction * len(kills), f"only {inside} of {len(kills)} kills landed inside a save"


@SLOW
@pytest.mark.parametrize("part", range(8))
@pytest.mark.parametrize("torn", [True, False])
def test_killed_at_every_call_that_changes_the_run(whole: Run, tmp_path: Path, torn: bool, part: int) -> None:
    """Before each call from the first to the last; or in the middle of each write. A part has every eighth."""
    numbers = [number for number, _, name, _ in trace_of(whole) if name in ({"write"} if torn else CHANGING)]
    ended = []
    for at in numbers[part::8]:
        run = Run(tmp_path / str(at))
        ended.append(attempt(run, Fault(at, torn=torn)))
        assert ended[-1].killed
        finish(run, whole)
        shutil.rmtree(run.path)
    count(ended, "in the middle of a write" if torn else "before a call that changes the run folder")


def test_killed_between_the_last_save_and_its_pruning(whole: Run, run: Run) -> None:
    """Nothing is saved after it, so what is left over must be deleted on resuming."""
    (renamed,) = [number for number, _, name, path in trace_of(whole) if name == "rename" and "/.000000000032" in path]
    assert attempt(run, Fault(renamed + 1)).killed
    assert len(good(run)) == 3
    finish(run, whole)


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=SLOW) for seed in range(1, 5))])
def test_killed_at_random_calls_again_and_again(whole: Run, run: Run, seed: int) -> None:
    """Eight kills in one run, or twenty: half of them anywhere, half aimed at saves, a third of the writes torn."""
    chance, saves = random.Random(seed), [number for number, saving, *_ in trace_of(whole) if saving and number < 260]
    at = [chance.choice([chance.randrange(260), chance.choice(saves)]) for _ in range(20 if seed else 8)]
    faults = [Fault(number, torn=chance.random() < 1 / 3) for number in at]
    ended = [attempt(run, fault) for fault in faults]
    finish(run, whole)
    count(ended, "at a random call, many in a run", 1 / 8)


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=SLOW) for seed in range(1, 5))])
def test_killed_at_random_moments_again_and_again(whole: Run, run: Run, seed: int) -> None:
    """Half of the kills are aimed at a save, from its beginning on."""
    chance, ended = random.Random(seed), []
    for number in range(20 if seed else 6):
        training = Training(run)
        if number % 2:
            training.until(lambda training=training: training.saving)
        else:
            time.sleep(chance.uniform(0, 0.4))
        time.sleep(chance.uniform(0, 0.015))
        training.send(signal.SIGKILL)
        ended.append(training.wait())
        in_order(run)
    finish(run, whole)
    count(ended, "at a random moment, many in a run")


@SLOW
def test_the_command_killed_twenty_times(whole: Run, tmp_path: Path) -> None:
    """`python -m sfumato train`, started by a shell's means, with twenty steps and a save after each."""
    alone, run = Run(tmp_path / "alone"), Run(tmp_path / "run")
    assert attempt(alone, words=LONGER).code == 0
    chance, kills = random.Random(0), 0
    for _ in range(40):
        command = [sys.executable, "-m", "sfumato", *replaced(LONGER), "--run", str(run.path)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        while process.poll() is None and f"process {process.pid} on" not in _text(run.lock_path):
            time.sleep(0.005)
        time.sleep(chance.uniform(0, 0.4))
        process.kill()
        _, err = process.communicate()
        assert "Traceback" not in err
        in_order(run)
        kills += process.returncode == -signal.SIGKILL
        if process.returncode == 0 or kills == 20:
            break
    finish(run, alone, LONGER)
    FIGURES["kills of the command itself, many in a run"] += kills
    assert kills >= 10


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


STRACE = "openat,close,write,pwrite64,fsync,ftruncate,mkdir,rename,unlinkat,unlink,rmdir"


@SLOW
@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
def test_killed_at_system_calls(whole: Run, tmp_path: Path) -> None:
    """As the kernel sees them: strace is attached before the command begins, and kills at the n-th call of a kind. One
    training is only watched, which tells the calls of each kind; of four that kill, three are aimed at a save."""
    log, watched = tmp_path / "log", Run(tmp_path / "watched")
    assert _straced(watched, "-o", str(log)).code == 0
    calls = _calls_in(log.read_text())
    saves, rest = ([call for call, saving in calls if saving is inside] for inside in (True, False))
    assert len(saves) > 100
    chance, ended = random.Random(0), []
    for name, number in [*chance.sample(saves, 30), *chance.sample(rest, 10)]:
        run = Run(tmp_path / f"{name}-{number}")
        ended.append(_straced(run, "-o", "/dev/null", "-e", f"inject={name}:signal=SIGKILL:when={number}"))
        in_order(run)
        finish(run, whole)
    assert sum(end.killed for end in ended) >= 36
    count(ended, "at a system call, by strace", 1 / 2)


def _straced(run: Run, *options: str) -> Ended:
    """A training under strace."""
    training = Training(run, before=_marked_and_traced)
    command = ["strace", "-f", "-qq", "-e", f"trace={STRACE}", *options, "-p", str(training.pid)]
    tracer = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while tracer.poll() is None and not _is_traced(training.pid):
        time.sleep(0.005)
    if tracer.poll() is not None:
        training.send(signal.SIGKILL)
        training.wait()
        pytest.skip(f"strace can't attach: {tracer.communicate()[1]}")
    ended = training.wait()
    tracer.communicate()
    return ended


def _calls_in(log: str) -> list[tuple[tuple[str, int], bool]]:
    """The calls of the first thread in strace's log: the name, which of this name it is, and whether within a save;
    strace counts each kind, and each thread, on its own."""
    lines = [line.split(maxsplit=1) for line in log.splitlines()]
    calls, numbers, saving = [], Counter[str](), False
    for thread, call in lines:
        name = call.partition("(")[0]
        if thread != lines[0][0] or not name.isalnum():  # signals, and calls that go on
            continue
        numbers[name] += 1
        saving = (saving or BEGINS in call) and ENDS not in call
        calls.append(((name, numbers[name]), saving))
    return calls


BEGINS, ENDS = "/nowhere/a-save-begins", "/nowhere/a-save-ends"


def _marked_and_traced() -> None:
    """Have saves be seen in strace's log by calls that fail, and wait for strace."""
    save = Saver.save

    def marked(saver: Saver, *arguments: Any, **options: Any) -> None:
        with suppress(OSError):
            os.mkdir(BEGINS)
        try:
            save(saver, *arguments, **options)
        finally:
            with suppress(OSError):
                os.mkdir(ENDS)

    Saver.save = marked  # type: ignore[method-assign]
    while not _is_traced("self"):
        time.sleep(0.001)


def _is_traced(pid: int | str) -> bool:
    return "TracerPid:\t0\n" not in Path(f"/proc/{pid}/status").read_text()
