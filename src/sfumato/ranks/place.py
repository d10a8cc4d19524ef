"""Where a process is among the processes of one job, as whoever started it says in the environment.

    sfumato --processes N, torchrun, accelerate launch    RANK, WORLD_SIZE, LOCAL_RANK
    mpirun (Open MPI; MPICH and its relatives)            OMPI_COMM_WORLD_RANK, ...; PMI_RANK, ...
    srun (Slurm)                                          SLURM_PROCID, SLURM_STEP_NUM_TASKS, SLURM_LOCALID

They meet at MASTER_ADDR and MASTER_PORT. Slurm names neither: without them the address is the first host of the step,
and the port follows from the numbers of job and step. Nothing here imports torch.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from sfumato.errors import UserError

LAUNCHER = "SFUMATO_LAUNCHER"
"""The environment variable in which `--processes` leaves the number of its own process."""
_MEETING = "MASTER_ADDR", "MASTER_PORT"
_STARTERS = (
    ("the environment", "RANK", "WORLD_SIZE", "LOCAL_RANK"),
    ("mpirun", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"),
    ("Slurm", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"),
    ("mpirun", "PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID"),
)
"""Who starts processes, and where each finds its rank, their number, and its number on its machine. What mpirun starts
within a job of Slurm has Slurm's variables too, but those of mpirun's own helper."""
_PORTS = 20_000, 12_000
"""The first port that Slurm jobs are given, and how many there are: below those that systems lend to connections."""


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
    for starter, *names in _STARTERS:
        if all(given.get(name) for name in (*names[:2], *(_MEETING if names[0] == "RANK" else ()))):
            return _place(given, starter, *names)
    if given.get("ACCELERATE_USE_CPU") == "True" and given.get("MASTER_PORT"):
        raise UserError(
            "accelerate launch --cpu starts one process, whatever its --num_processes is: leave accelerate out and "
            "give sfumato --processes N, or start them by torchrun or mpirun"
        )
    return None


def _place(given: Mapping[str, str], starter: str, *names: str) -> Place | None:
    """Return the place that three variables name; None where the process is alone."""
    rank, size = (_number(given, name) for name in names[:2])
    if not 0 <= rank < size:
        raise UserError(f"this process is rank {rank} of {size}: {names[0]} must be from 0 to {names[1]} - 1")
    if size == 1:
        return None
    if starter == "the environment" and "TORCHELASTIC_RUN_ID" in given:
        starter = "torchrun"
    starter = "--processes" if LAUNCHER in given else starter
    local = _number(given, names[2]) if given.get(names[2]) else rank
    if all(given.get(name) for name in _MEETING):
        return Place(rank, size, local, given["MASTER_ADDR"], _number(given, "MASTER_PORT"), starter)
    if starter != "Slurm":
        raise UserError(
            f"{starter} has started {size} processes: set MASTER_ADDR, the host of the first, and MASTER_PORT, a free "
            "port there, for all of them"
        )
    hosts = given.get("SLURM_STEP_NODELIST") or given.get("SLURM_JOB_NODELIST") or "localhost"
    step = _number(given, "SLURM_STEP_ID") if given.get("SLURM_STEP_ID") else 0
    port = _PORTS[0] + (_number(given, "SLURM_JOB_ID") + 997 * step) % _PORTS[1]
    return Place(rank, size, local, first_host(hosts), port, starter)


def first_host(hosts: str) -> str:
    """Return the first host of Slurm's list: `gpu[03-05,9],cpu1` begins with gpu03."""
    found = re.match(r"(?:[^,\[\]]|\[\d[^\]]*\])+", hosts)
    if found is None:
        raise UserError(f"Slurm's list of hosts can't be read: {hosts}")
    return re.sub(r"\[(\d+)[^\]]*\]", r"\1", found[0])


def _number(given: Mapping[str, str], name: str) -> int:
    try:
        return int(given[name])
    except (KeyError, ValueError):
        value = given.get(name)
        problem = "is missing" if value is None else f"is '{value}', which is not a whole number"
        raise UserError(f"the environment variable {name} {problem}: start all processes in the same way") from None
