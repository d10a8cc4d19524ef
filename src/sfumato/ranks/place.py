"""Where a process is among the processes of one job, as whoever started it says in the environment.

    sfumato --processes N, torchrun, accelerate launch    RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT
    srun (Slurm)                                          SLURM_PROCID, SLURM_STEP_NUM_TASKS, SLURM_LOCALID, ...

Slurm names no address and no port: the address is the first host of the step, the port follows from the job's number.
Nothing here imports torch.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from sfumato.errors import UserError

LAUNCHER = "SFUMATO_LAUNCHER"
"""The environment variable in which `--processes` leaves the number of its own process."""
_PORTS = 20_000, 20_000
"""The first port that Slurm jobs are given, and how many there are."""


@dataclass(frozen=True)
class Place:
    """A process's place in a job.

    Attributes:
        rank: its number, from 0.
        size: how many processes there are.
        local: its number among those of its machine.
        address: the host of rank 0.
        port: where they meet, on that host.
        starter: who started them, for messages.
    """

    rank: int
    size: int
    local: int
    address: str
    port: int
    starter: str


def find_place(environment: Mapping[str, str] | None = None) -> Place | None:
    """Return the place of this process; None where it is the only one.

    Raises:
        UserError: the environment says something that can't be.
    """
    given = os.environ if environment is None else environment
    if all(given.get(name) for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")):
        starter = "torchrun" if "TORCHELASTIC_RUN_ID" in given else "the environment"
        rank, size, port = (_number(given, name) for name in ("RANK", "WORLD_SIZE", "MASTER_PORT"))
        local = _number(given, "LOCAL_RANK") if given.get("LOCAL_RANK") else rank
        starter = "--processes" if LAUNCHER in given else starter
        place = Place(rank, size, local, given["MASTER_ADDR"], port, starter)
    elif given.get("SLURM_STEP_NUM_TASKS") and given.get("SLURM_PROCID"):
        rank, size, local = (_number(given, f"SLURM_{name}") for name in ("PROCID", "STEP_NUM_TASKS", "LOCALID"))
        hosts = given.get("SLURM_STEP_NODELIST") or given.get("SLURM_JOB_NODELIST") or "localhost"
        port = _PORTS[0] + _number(given, "SLURM_JOB_ID") % _PORTS[1]
        place = Place(rank, size, local, first_host(hosts), port, "Slurm")
    else:
        return None
    if not 0 <= place.rank < place.size:
        raise UserError(f"this process is rank {place.rank} of {place.size}: RANK must be from 0 to WORLD_SIZE - 1")
    return place if place.size > 1 else None


def first_host(hosts: str) -> str:
    """Return the first host of Slurm's list: `gpu[03-05,9],cpu1` begins with gpu03."""
    found = re.match(r"([^,\[]+)(?:\[(\d+)[^\]]*\]([^,\[]*))?", hosts)
    if found is None:
        raise UserError(f"Slurm's list of hosts can't be read: {hosts}")
    return "".join(part or "" for part in found.groups())


def _number(given: Mapping[str, str], name: str) -> int:
    try:
        return int(given[name])
    except (KeyError, ValueError):
        value = given.get(name)
        problem = "is missing" if value is None else f"is '{value}', which is not a whole number"
        raise UserError(f"the environment variable {name} {problem}: start all processes in the same way") from None
