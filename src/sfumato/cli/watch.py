"""`sfumato watch`: a training, seen from another terminal."""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from tyro.conf import Positional

from sfumato.cli.console import print_json, say, shown
from sfumato.cli.live import panel, progress_line, remark
from sfumato.cli.options import Flag, Json, option
from sfumato.errors import UserError
from sfumato.report.text import duration, size

if TYPE_CHECKING:
    from rich.console import RenderableType

    from sfumato.run.follow import Follower, State


@dataclass(frozen=True, kw_only=True)
class Watch:
    """Show a training that runs elsewhere, until it ends; of a run that has ended, how it ended.

    It only reads: the training does not notice it. On a terminal it is a panel, elsewhere a line every few seconds.
    """

    EXAMPLES: ClassVar[tuple[str, ...]] = (
        "sfumato watch runs/faces",
        "sfumato watch runs/faces --once",
        "sfumato watch runs/faces --json",
    )

    run: Annotated[Path, Positional, option("RUN")]
    """a run folder"""
    every: float = 2.0
    """seconds between two looks at the log"""
    once: Flag = False
    """show the present state, and end"""
    json: Json = False

    def perform(self) -> int:
        """Follow the log to the end of the training."""
        from sfumato.run.folder import Run
        from sfumato.run.follow import Follower, check

        if self.every <= 0:
            raise UserError(f"--every is {self.every:g}: give seconds above 0")
        run = Run(self.run)
        check(run)
        follower = Follower(run)
        if self.json or self.once:
            for _ in follower.news():
                pass
            state = follower.state()
            if self.json:
                print_json(snapshot(follower, state))
            else:
                say(f"{sentence(state)}\n{progress_line(follower.progress)}")
            return 0
        with ExitStack() as stack:
            self._follow(follower, stack)
        return 0

    def _follow(self, follower: Follower, stack: ExitStack) -> None:
        """Print what comes until no process trains any more."""
        for _ in follower.news():  # what happened before is in the figures
            pass
        live = _Live(follower, stack) if sys.stdout.isatty() else None
        word = ""
        while True:
            news = False
            for event in follower.news():
                news = True
                if (line := remark(follower.progress, event)) is not None:
                    live.say(line) if live else say(line)
            state = follower.state()
            if live:
                live.show(state)
            elif news or state.word != word:
                say(f"{sentence(state)}; {progress_line(follower.progress)}")
            word = state.word
            if word in ("finished", "stopped", "new"):
                if live:
                    live.say(sentence(state))
                return
            time.sleep(self.every)


class _Live:
    """The panel of the training with the state above it."""

    def __init__(self, follower: Follower, stack: ExitStack) -> None:
        from rich.live import Live

        self._follower, self._state = follower, ""
        self._live = stack.enter_context(Live(self, refresh_per_second=2, redirect_stderr=False))

    def __rich__(self) -> RenderableType:
        return panel(self._follower.progress, self._state)

    def show(self, state: State) -> None:
        """Show a state."""
        self._state = sentence(state)

    def say(self, line: str) -> None:
        """Print a line above the panel."""
        self._live.console.print(shown(line), markup=False, highlight=False)


def sentence(state: State) -> str:
    """Return a state in words."""
    if state.word == "training":
        where = f" in process {state.process}" if state.process is not None else ""
        memory = f", {size(state.memory)}" if state.memory else ""
        return f"training{where}{memory}, last news {duration(state.quiet)} ago"
    if state.word == "stalled":
        who = f"process {state.process}" if state.process is not None else "a process"
        return f"stalled? {who} holds the run and has logged nothing for {duration(state.quiet)}"
    if state.word == "stopped":
        return "stopped before the planned end: no process trains here; the same train command resumes"
    return {"finished": "finished", "new": "nothing is logged yet, and no process trains here"}[state.word]


def snapshot(follower: Follower, state: State) -> dict[str, Any]:
    """Return the state and the progress, as JSON has them."""
    progress = follower.progress
    held_out = progress.held_out
    return {
        "run": str(follower.run.path),
        "state": state.word,
        "quiet_seconds": state.quiet,
        "process": state.process,
        "memory": state.memory,
        "images": progress.images,
        "planned_images": progress.planned,
        "images_per_second": progress.speed,
        "seconds_left": progress.left if state.word == "training" else None,
        "loss": progress.loss,
        "loss_by_level": progress.by_noise,
        "grad_norm": progress.grad_norm,
        "lr": progress.lr,
        "held_out_loss": None if held_out is None else held_out.loss,
        "held_out_at": None if held_out is None else held_out.images,
        "skipped_steps": progress.skipped,
        "last_grid": progress.grid,
        "last_checkpoint": progress.saved,
    }


VERB = Watch
