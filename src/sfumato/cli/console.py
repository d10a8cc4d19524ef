"""Helpers of all verbs: printing, progress, the device.

Everything that a verb prints goes through `say`: names of files, labels and facts out of files may hold control
characters, which a terminal would obey.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from sfumato.config.keys import typed
from sfumato.errors import UserError, nearest
from sfumato.report.text import duration

if TYPE_CHECKING:
    import torch


ENOUGH = 1 / 20
"""The part of some work after which its speed is taken to be that of the rest."""
LONGEST = 2000
"""Characters of a line that are printed."""


def shown(text: str, longest: int | None = LONGEST) -> str:
    """Return text with its control characters escaped, apart from line ends, and its long lines cut."""
    from sfumato.data.sources.protocol import printable

    lines = text.split("\n")
    if longest is not None:
        lines = [line if len(line) <= longest else f"{line[:longest]}... ({len(line):,} characters)" for line in lines]
    return "\n".join(line if line.isprintable() else printable(line) for line in lines)


def say(text: str, longest: int | None = LONGEST, *, error: bool = False) -> None:
    """Print text at once, as `shown` has it, with keys as options, on stdout or (`error`) on stderr."""
    text = typed(text)
    plain = text.replace("\n", "").isprintable() and max(map(len, text.split("\n"))) <= (longest or len(text))
    print(text if plain else shown(text, longest), file=sys.stderr if error else sys.stdout, flush=True)


class _Handler(logging.Handler):
    """Prints the messages of the package and of libraries as everything else is printed."""

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError):
            say(self.format(record), error=True)


@contextmanager
def gated() -> Iterator[None]:
    """Print what is logged or warned in the block through `say`, each warning on one line.

    A program that has handlers of its own for logging keeps them.
    """

    def show(message: Warning | str, category: type[Warning], *_: Any) -> None:
        with suppress(OSError):
            say(f"{category.__name__}: {' '.join(str(message).split())}", error=True)

    before = logging.lastResort, warnings.showwarning
    logging.lastResort, warnings.showwarning = _Handler(logging.WARNING), show  # type: ignore[assignment]
    try:
        yield
    finally:
        logging.lastResort, warnings.showwarning = before


def discard_stdout() -> None:
    """Send what is printed from here on nowhere, also what waits to be flushed."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def optional_stdout() -> Iterator[None]:
    """Go on without stdout where it can't be written, such as on a full disk or a closed terminal, and say so once.

    A reader that closed it (`BrokenPipeError`) still ends the command.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as failure:
        discard_stdout()
        with suppress(OSError):
            say(f"sfumato: stdout can't be written ({failure.strerror}): going on without it", error=True)


def print_json(value: Any) -> None:
    """Print one JSON object on one line, at once."""
    print(json.dumps(value), flush=True)


def progress(what: str, every: float = 5.0) -> Callable[[int, int], None]:
    """Return a callback (done, total) that reports on stderr: a rewritten line on a terminal, else a line every few
    seconds. The time left is told as soon as `ENOUGH` of the work or a minute says how long it takes.

    Args:
        what: the work, such as "decoding".
        every: seconds between lines where stderr is no terminal, and before the first.
    """
    last, first = time.monotonic(), (0.0, 0)
    live = sys.stderr.isatty()

    def report(done: int, total: int) -> None:
        nonlocal last, first
        now = time.monotonic()
        end = done >= total
        first = first if first[0] else (now, done)  # what came before, such as loading, is no measure
        if now - last < (0.1 if live else every) and not (live and end):
            return
        last = now
        seconds, new = now - first[0], done - first[1]
        known = new > 0 and not end and (new >= ENOUGH * total or seconds > 60)
        left = f", {duration(seconds * (total - done) / new)} left" if known else ""
        line = f"{shown(what)}: {done:,} of {total:,}{left}"
        width = shutil.get_terminal_size().columns - 1
        with suppress(OSError):  # such as a closed terminal
            print(
                f"\r{line[:width]:{width}}" if live else line,
                end="" if live and not end else "\n",
                file=sys.stderr,
                flush=True,
            )

    return report


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """Show `WHAT ...` on stderr until the block ends, where that is a terminal; elsewhere nothing."""
    line = f"{shown(what)} ..."[: shutil.get_terminal_size().columns - 1] if sys.stderr.isatty() else ""

    def write(text: str) -> None:
        with suppress(OSError):
            print(text, end="", file=sys.stderr, flush=True)

    write(line)
    try:
        yield
    finally:
        write(line and f"\r{'':{len(line)}}\r")


def check_device(name: str) -> None:
    """Refuse the name of a device that can't be; without torch, which takes seconds to import."""
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d{1,3})?", name):
        gpu = re.fullmatch(r"gpu(:?\d{1,3})?|\d{1,3}", name)
        hint = ": choose auto, cpu, cuda or mps"  # xpu, tpu are no misspelt cpu
        if gpu or len(name) > 3:
            hint = ": write --device cuda" if gpu else nearest(name, ("auto", "cpu", "cuda", "mps"))
        raise UserError(f"--device can't be '{name}'{hint}")


def pick_device(name: str) -> torch.device:
    """Return the device `cpu`, `cuda`, `cuda:1` or `mps`, or for `auto` an NVIDIA GPU if there is one; raises
    `UserError` where there is no such device."""
    check_device(name)
    with waiting("loading torch"):
        import torch

    available = torch.cuda.is_available()
    if name == "auto":
        return torch.device("cuda" if available else "cpu")
    device = torch.device(name)
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UserError("this machine has no Apple GPU that torch can use: leave --device out, or use --device cpu")
    if device.type == "cuda" and not (available and (device.index or 0) < torch.cuda.device_count()):
        raise UserError(f"this machine has no {name} that torch can use: leave --device out, or use --device cpu")
    return device
