"""A real training in a process of its own, which can be killed or have calls fail at any moment, and what it left.

The process is forked from one that has imported everything, and runs the command line `sfumato train`; so it starts in
milliseconds, and its signals, exit codes and files are those of the command. Memory that both share says how many calls
on the run folder it has made, and whether a save is under way.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import shlex
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sfumato.cli import main as command
from sfumato.run.folder import Run
from sfumato.run.log import read_events
from sfumato.train.checkpoint import find_damage
from sfumato.train.saver import Saver

from .faults import Calls, Fault

TRAIN = shlex.split(
    "train digits --train.images 32 --train.batch 8 --train.save_every 0 --net.base 4 --net.groups 2 "
    "--net.multipliers 1 --net.blocks 1 --net.attention 0 --net.dropout 0.1 --train.grids 2 --train.grid_images 4 "
    "--train.grid_steps 2 --train.held_outs 2 --train.held_out_images 16 --device cpu --json"
)
"""Four steps, each followed by a save."""
LONG = ["--train.images", "4000", "--train.grids", "0", "--train.held_outs", "0"]
"""A training that does not end within a second."""

FIGURES: Counter[str] = Counter()
"""What was tried and what came of it; printed at the end of the tests."""

_TIMES = ("seconds", "cost")
_INTERRUPTIONS = ("started", "saved", "warned")
_MAY_DIFFER = ("environment.json", "lock")
_READY, _SAVING, _SAVES, _CALLS = range(4)


@dataclass(frozen=True)
class Ended:
    """How a training ended.

    Attributes:
        code: its exit code, or minus the signal that killed it.
        saving: it ended within a save.
        calls: on the run folder.
        out, err: what it printed.
    """

    code: int
    saving: bool
    calls: int
    out: str
    err: str

    @property
    def warnings(self) -> str:
        """The warnings that it printed."""
        events = map(json.loads, filter(str.strip, self.out.splitlines()))
        return "\n".join(event["message"] for event in events if event.get("event") == "warned")

    @property
    def killed(self) -> bool:
        """Whether SIGKILL ended it."""
        return self.code == -signal.SIGKILL


class Training:
    """A training that was started in a process of its own.

    Args:
        run: its folder.
        fault: what happens to it.
        words: the command; options that come later replace earlier ones.
        trace: a file for the calls on the run folder, a line each.
        before: called in the process before it begins.
    """

    def __init__(
        self,
        run: Run,
        fault: Fault | None = None,
        words: list[str] | None = None,
        trace: Path | None = None,
        before: Callable[[], object] = lambda: None,
    ) -> None:
        self.run = run
        self._shared = mmap.mmap(-1, 4 * 8)
        self._printed = [tempfile.TemporaryFile() for _ in range(2)]  # noqa: SIM115
        argv = ["sfumato", *replaced(words or []), "--run", str(run.path)]
        self.pid = os.fork()
        if self.pid == 0:
            try:
                self._prepare(fault, trace)
                before()
                sys.argv = argv
                code = command.main()
                sys.stdout.flush()
                os._exit(code)
            except BaseException:
                os.write(2, traceback.format_exc().encode())
            finally:
                os._exit(1)

    def _prepare(self, fault: Fault | None, trace: Path | None) -> None:
        """Make the forked process one that a shell could have started."""
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for handle, file in enumerate(self._printed, 1):
            os.dup2(file.fileno(), handle)
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", 1, closefd=False)
        save, notes = Saver.save, None if trace is None else trace.open("w")
        dispatch = command._dispatch

        def noted_save(saver: Saver, *arguments: Any, **options: Any) -> None:
            self._write(_SAVING, 1)
            try:
                save(saver, *arguments, **options)
                self._write(_SAVES, self.shared(_SAVES) + 1)
            finally:
                self._write(_SAVING, 0)

        def noted_call(number: int, name: str, path: str) -> None:
            self._write(_CALLS, number + 1)
            if notes is not None:
                notes.write(f"{number} {self.shared(_SAVING)} {name} {os.path.relpath(path, self.run.path)}\n")
                notes.flush()

        def noted_dispatch(words: list[str]) -> int:
            self._write(_READY, 1)
            return dispatch(words)

        Saver.save = noted_save  # type: ignore[method-assign]
        command._dispatch = noted_dispatch
        if fault is not None or notes is not None:
            Calls(self.run.path, fault, noted_call).install()

    def shared(self, index: int) -> int:
        """A number that the process last wrote."""
        number: int = struct.unpack_from("q", self._shared, 8 * index)[0]
        return number

    def _write(self, index: int, value: int) -> None:
        struct.pack_into("q", self._shared, 8 * index, value)

    @property
    def ready(self) -> bool:
        """Whether the command handles signals."""
        return bool(self.shared(_READY))

    @property
    def saving(self) -> bool:
        """Whether a save is under way, or was when the process was killed."""
        return bool(self.shared(_SAVING))

    @property
    def saves(self) -> int:
        """Saves that came to their end."""
        return self.shared(_SAVES)

    @property
    def calls(self) -> int:
        """Calls on the run folder; they are counted where there is a fault or a trace."""
        return self.shared(_CALLS)

    def until(self, ready: Callable[[], bool]) -> bool:
        """Wait for something to become true; False where the process ended before."""
        deadline = time.monotonic() + 120
        while not ready():
            if os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                return False
            assert time.monotonic() < deadline, "it hangs"
            time.sleep(0.0005)
        return True

    def send(self, number: int) -> None:
        """Send a signal; one that has ended gets none."""
        if os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            os.kill(self.pid, number)

    def wait(self) -> Ended:
        """Wait for its end."""
        if self.until(lambda: False):
            raise AssertionError
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        for file in self._printed:
            file.seek(0)
        out, err = (file.read().decode() for file in self._printed)
        assert "Traceback" not in err, err
        return Ended(code, self.saving, self.calls, out, err)


def replaced(options: list[str]) -> list[str]:
    """The command with other values of some options."""
    words = list(TRAIN)
    for name, value in zip(options[::2], options[1::2], strict=True):
        words[words.index(name) + 1] = value
    return words


def trace_of(whole: Run) -> list[tuple[int, bool, str, str]]:
    """The calls of the training that nothing interrupts: number, whether within a save, name, path."""
    lines = (line.split() for line in whole.path.with_suffix(".trace").read_text().splitlines())
    return [(int(number), saving == "1", name, path) for number, saving, name, path in lines]


def attempt(run: Run, fault: Fault | None = None, words: list[str] | None = None) -> Ended:
    """Train, or resume, to the end or the fault; a run that was cut off is in order afterwards."""
    ended = Training(run, fault, words).wait()
    in_order(run)
    return ended


def log_of(run: Run) -> list[dict[str, Any]]:
    """The log without times and without the events of interruptions."""
    lines = (line for line in read_events(run.events_path) if line["event"] not in _INTERRUPTIONS)
    return [{name: value for name, value in line.items() if name not in _TIMES} for line in lines]


def good(run: Run) -> list[int]:
    """The images of the good checkpoints, the newest first."""
    return [int(folder.name) for folder in run.list_checkpoints() if find_damage(folder) is None]


def in_order(run: Run) -> None:
    """Check what must be so at every moment: folders under their final names are whole, and what was reported as saved
    is there."""
    assert [int(folder.name) for folder in run.list_checkpoints()] == good(run)
    saved = [line["images"] for line in read_events(run.events_path) if line["event"] == "saved"]
    assert good(run)[:1] >= saved[-1:], "reported as saved, and not there"
    assert len(good(run)) >= min(2, len(set(saved)))


def contents(run: Run) -> dict[str, Any]:
    """All files of a run, without what may depend on its interruptions: clocks, process numbers."""
    return {
        path.relative_to(run.path).as_posix(): _content(run, path)
        for path in sorted(run.path.rglob("*"))
        if path.is_file() and path.name not in _MAY_DIFFER
    }


def _content(run: Run, path: Path) -> Any:
    if path == run.events_path:
        return log_of(run)
    if path == run.finished_path:
        return json.loads(path.read_bytes())["images"]
    if path.name == "manifest.json" and path.parent.name.isdigit():
        return {**json.loads(path.read_bytes())["body"], "seconds": 0}
    return hashlib.sha256(path.read_bytes()).hexdigest()


def difference(run: Run, whole: Run) -> list[str]:
    """The files in which a run differs from one that nothing interrupted, bit for bit."""
    ours, theirs = contents(run), contents(whole)
    return sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))


def finish(run: Run, whole: Run, words: list[str] | None = None) -> None:
    """Resume with the same command; the end must be that of a run that nothing interrupted."""
    ended = attempt(run, words=words)
    assert ended.code == 0, ended.err
    assert difference(run, whole) == []
    newest = run.list_checkpoints()[0]
    for kind in ("raw", "ema"):
        assert run.weights_file(kind).read_bytes() == (newest / f"{kind}.safetensors").read_bytes()


def copied(run: Run, path: Path) -> Run:
    """A copy of a run folder."""
    shutil.copytree(run.path, path)
    return Run(path)
