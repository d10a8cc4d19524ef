"""Jobs of several processes for tests: forked, so that none has to import torch again."""

from __future__ import annotations

import os
import pickle
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from sfumato.ranks import Lost, Place, World
from sfumato.ranks.join import joined

CPU = torch.device("cpu")


def free_port() -> int:
    with socket.socket() as each:
        each.bind(("127.0.0.1", 0))
        return int(each.getsockname()[1])


class Job:
    """`size` forked processes, each of which runs `act(world)` and leaves its result, or the line of its error."""

    def __init__(self, size: int, act: Callable[[World], Any], folder: Path) -> None:
        self.folder, port = folder, free_port()
        folder.mkdir(parents=True, exist_ok=True)
        self.pids = []
        for rank in range(size):
            pid = os.fork()
            if pid == 0:
                self._child(Place(rank, size, rank, "127.0.0.1", port, "a test"), act)
            self.pids.append(pid)

    def _child(self, place: Place, act: Callable[[World], Any]) -> None:
        code = 1
        try:
            os.environ["GLOO_SOCKET_IFNAME"] = "lo"
            try:
                with joined(place if place.size > 1 else None, CPU) as world:
                    result = act(world)
                code = 0
            except Lost as error:
                result, code = (str(error), error.said_here), error.code
            except Exception as error:
                result, code = str(error), 2
            (self.folder / f"{place.rank}").write_bytes(pickle.dumps(result))
        finally:
            sys.stdout.flush()
            os._exit(code)

    def codes(self, seconds: float = 60.0) -> list[int]:
        """The exit codes; a process that is still there after so long is a failure."""
        end, codes = time.monotonic() + seconds, []
        for pid in self.pids:
            while (ended := os.waitpid(pid, os.WNOHANG))[0] == 0:
                if time.monotonic() > end:
                    for each in self.pids:
                        os.kill(each, 9)
                    raise AssertionError(f"process {pid} is still there")
                time.sleep(0.02)
            codes.append(os.waitstatus_to_exitcode(ended[1]))
        return codes

    def result(self, rank: int = 0) -> Any:
        return pickle.loads((self.folder / f"{rank}").read_bytes())


def results(size: int, act: Callable[[World], Any], folder: Path) -> list[Any]:
    """What each rank of a job returned, all of which must have succeeded."""
    job = Job(size, act, folder)
    codes = job.codes()
    found = [job.result(rank) for rank in range(size)]
    assert codes == [0] * size, found
    return found
