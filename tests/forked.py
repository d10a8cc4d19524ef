"""Processes of their own, forked from this one: what they import, for seconds, is there already.

What a command prints there, its exit code and how it answers to signals are those of a shell's command. Starting Python
and ending it are not the command's own; tests of these start `python -m sfumato`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch

import sfumato.train  # noqa: F401  the whole of it
from sfumato.cli.main import main


def forked(*words: object, env: Mapping[str, str] | None = None, **options: Any) -> subprocess.Popen[str]:
    """Start `sfumato WORDS` in a process of its own; options are those of `subprocess.Popen`."""
    argv = ["sfumato", *map(str, words)]

    def command() -> int:
        sys.argv = argv
        os.environ.update(env or {})
        return main()

    return start(command, **options)


def start(function: Callable[[], int], **options: Any) -> subprocess.Popen[str]:
    """Start a function that returns an exit code in a process of its own; options are those of `subprocess.Popen`."""
    complete()

    def run() -> None:
        code = 1
        try:
            prepare()
            code = function()
            sys.stdout.flush()
        except SystemExit as stop:
            code = int(stop.code or 0)
        except BaseException:
            os.write(2, traceback.format_exc().encode())
        finally:
            os._exit(code)

    # called where a program would be executed: pipes and folder are set by then
    return subprocess.Popen(["forked"], preexec_fn=run, text=True, **options)


@cache
def complete() -> None:
    """The first optimiser of a process imports a thousand modules."""
    torch.optim.SGD([torch.zeros(1)])


def prepare() -> None:
    """Make the forked process one that a shell could have started."""
    os.closerange(3, 1 + max(map(int, os.listdir("/proc/self/fd"))) if Path("/proc/self/fd").is_dir() else 4096)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.stdin = os.fdopen(0, closefd=False)
    sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", 1, closefd=False)
