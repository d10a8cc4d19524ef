"""`--processes N`: this command, in several processes that work together.

Each is the same command with its rank in the environment, in a process group of its own, so that a signal reaches them
through the launcher only: it passes signals on to rank 0, which saves and ends the others, and returns its exit code.
Where a process dies, the others find out and say so; what is still there a while later is ended.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from sfumato.cli import signals
from sfumato.errors import UserError
from sfumato.ranks import Lost, World
from sfumato.ranks.place import LAUNCHER, find_place

if TYPE_CHECKING:
    import torch

    from sfumato.ranks import Place

FIND_OUT = 40.0
"""Seconds that the others have to find out that a process has died, and to say so."""
LAST = 12.0
"""Seconds from a signal, or from the end of rank 0, to the end of every process."""

ENDING = 0.5
"""The end of a process, from the last line of its work on, as a fraction of the time that its start took."""

words: Sequence[str] = ()
"""The words after `sfumato` of the command that runs."""
own_process = False
"""Whether this process was started for that command."""


def age() -> float:
    """Return the seconds since this process was started, the start of Python included; 0 where the system does not say
    (Linux does: proc(5), field 22 of stat)."""
    try:
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK"))
    except (AttributeError, OSError, ValueError, IndexError):
        return 0.0


def begun() -> float:
    """Return the `time.perf_counter()` at which the budget of the command that runs began, before its work begins: with
    its process, and earlier by what the end of that will take."""
    return time.perf_counter() - (1 + ENDING) * (age() if own_process else 0.0)


def pick_processes(text: str | None, device: torch.device) -> tuple[Place | None, int]:
    """Return the place of this process in a job that others started, and how many processes to start: 1 for none.

    Args:
        text: `auto`, one for each GPU; a number; or None, one process.
        device: on which they will compute.

    Raises:
        UserError: not a number, more than there are GPUs, or another number than others have started.
    """
    place = find_place()
    if text in (None, "auto") and place is not None:
        return place, 1
    gpus = _gpus() if device.type == "cuda" else 0
    if text is None or text == "auto":
        return place, max(1, gpus) if text else 1
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 1024):
        raise UserError(f"--processes can't be '{text}': give auto, or a number from 1 up")
    number = int(text)
    if place is not None:
        if number != place.size:
            raise UserError(f"{place.starter} has started {place.size} processes: leave --processes {number} out")
        return place, 1
    if number > 1 and device.type not in ("cpu", "cuda"):
        raise UserError(f"--processes {number}: several compute on NVIDIA GPUs or CPUs, not on {device.type}")
    if number > max(gpus, 1) and device.type == "cuda":
        raise UserError(f"--processes {number}: this machine has {gpus} GPUs, and each process needs one")
    if number > 1 and device.index is not None:
        raise UserError(
            f"--processes {number} with --device {device}: write --device cuda; each takes a GPU of its own"
        )
    return None, number


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()


def unused_gpus(device: torch.device) -> str:
    """Say how to use the other GPUs of a machine, where one process has one of several; else return an empty text."""
    gpus = _gpus() if device.type == "cuda" and device.index is None else 1
    return f", one of {gpus} GPUs: --processes auto uses all" if gpus > 1 else ""


def in_processes(
    text: str | None,
    device: torch.device,
    lead: Callable[[torch.device, World], int],
    follow: Callable[[torch.device, World], int],
) -> int:
    """Do the work of a command in as many processes as were asked for, or have been started, and return its exit code.

    Args:
        text: the option --processes, as `pick_processes` takes it.
        device: on which to compute; each process gets its own of this kind.
        lead: does it on rank 0, or in one process alone.
        follow: follows rank 0 to the end; what goes wrong in it, rank 0 prints.
    """
    place, number = pick_processes(text, device)
    if number > 1:
        return launch(number)
    if place is None:
        return lead(device, World())
    from sfumato.ranks.join import joined, local_device

    device = local_device(device, place)
    if place.rank == 0:
        with joined(place, device, signals.request) as world:
            return lead(device, world)
    world = World()
    try:
        with ExitStack() as stack:
            world = stack.enter_context(joined(place, device))
            stack.enter_context(signals.passing_on(world.ask_to_stop))
            return follow(device, world)
    except UserError as error:
        if world.alone or isinstance(error, Lost):  # they did not even meet; `main` knows who speaks
            raise
        return 2


def launch(number: int, all_needed: bool = True) -> int:
    """Run this command in so many processes, and return the exit code of rank 0; unless all are needed to the end, it
    goes on where another dies."""
    command = [sys.executable, "-m", "sfumato", *words]
    environment = os.environ | {
        LAUNCHER: str(os.getpid()),
        "WORLD_SIZE": str(number),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
    }
    threads = max(1, (os.cpu_count() or 1) // number)
    environment.setdefault("OMP_NUM_THREADS", str(threads))
    if sys.platform == "linux":
        environment.setdefault("GLOO_SOCKET_IFNAME", "lo")
    children: list[subprocess.Popen[bytes]] = []
    try:
        with signals.deferring() as stop, signals.sending_on(lambda signal: _end(children[0], signal)):
            stop.holding = True
            for rank in range(number):
                own = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
                quiet = None if rank == 0 else subprocess.DEVNULL
                children.append(
                    subprocess.Popen(
                        command, env=environment | own, stdin=subprocess.DEVNULL, stdout=quiet, process_group=0
                    )
                )
            code = _wait(children, stop, all_needed)
            stop.signal = None  # rank 0 has said all there is to say
            return code
    finally:
        for child in children:
            _end(child, signal.SIGKILL)


def _wait(children: list[subprocess.Popen[bytes]], stop: signals.Deferred, all_needed: bool) -> int:
    """Wait for the end of rank 0, then of the others, and return the exit code."""
    passed_on, limit, blamed = False, float("inf"), ""
    while children[0].poll() is None and time.monotonic() < limit:
        time.sleep(0.05)
        if stop.signal is not None and not passed_on:
            stop.finish()
            passed_on, limit = True, time.monotonic() + LAST
            _end(children[0], stop.signal)
        dead = [(rank, child) for rank, child in enumerate(children) if child.poll()]
        if all_needed and dead and not blamed and dead[0][0]:
            limit = min(limit, time.monotonic() + FIND_OUT)
            blamed = f"rank {dead[0][0]} (process {dead[0][1].pid}) {_ending(dead[0][1])}"
    code = children[0].poll()
    if code is None and stop.signal is not None:
        return 128 + stop.signal
    if code is None or code < 0:
        raise UserError(
            f"{blamed or f'rank 0 (process {children[0].pid}) {_ending(children[0])}'}; the same command resumes"
        )
    end = time.monotonic() + LAST
    for child in children[1:]:
        if code and not all_needed:
            _end(child, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            child.wait(max(0.1, end - time.monotonic()))
    return code


def _ending(child: subprocess.Popen[bytes]) -> str:
    code = child.poll()
    if code is None:
        return "did not end"
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"


def _end(child: subprocess.Popen[bytes], number: int) -> None:
    """Send a signal to a process that has not ended."""
    with suppress(ProcessLookupError):
        if child.poll() is None:
            child.send_signal(number)


def _free_port() -> int:
    with socket.socket() as each:
        each.bind(("127.0.0.1", 0))
        return int(each.getsockname()[1])
