"""A stand-in for Slurm on one machine, for scripts of the documents and for what `srun` tells its tasks.

A job has two nodes of two tasks each, whatever its script asks for; the nodes are called 127.0.0.1 and 127.0.0.2, so
that the name of the first leads to this machine. The variables are those of srun(1) and sbatch(1), and so are the
signals: one before the time limit goes to all tasks, or with `B:` to the script's shell only, a cancelled job's tasks
and shell get SIGTERM, and `srun` passes on what it gets.
"""

from __future__ import annotations

import os
import re
import signal
import stat
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

NODES, TASKS = 2, 2
HOSTS = "127.0.0.[1-2]"
STATE = "STAND_IN_STATE"
"""The environment variable with the folder in which the parts of the stand-in find one another."""


def job_environment(number: int, restarts: int = 0) -> dict[str, str]:
    """What sbatch tells a script."""
    total = str(NODES * TASKS)
    names = {
        "JOB_ID": str(number), "JOBID": str(number), "JOB_NAME": "photos", "CLUSTER_NAME": "stand-in",
        "JOB_NODELIST": HOSTS, "NODELIST": HOSTS, "JOB_NUM_NODES": str(NODES), "NNODES": str(NODES),
        "NTASKS": total, "NPROCS": total, "NTASKS_PER_NODE": str(TASKS), "TASKS_PER_NODE": f"{TASKS}(x{NODES})",
        "CPUS_PER_TASK": "1", "PROCID": "0", "LOCALID": "0", "NODEID": "0", "GTIDS": "0",
    }  # fmt: skip
    return {f"SLURM_{name}": value for name, value in names.items()} | (
        {"SLURM_RESTART_COUNT": str(restarts)} if restarts else {}
    )


def task_environment(rank: int, step: int = 0) -> dict[str, str]:
    """What srun tells a task, besides what the script was told."""
    node = rank // TASKS
    names = {
        "PROCID": str(rank), "LOCALID": str(rank % TASKS), "NODEID": str(node), "STEP_ID": str(step),
        "STEPID": str(step), "STEP_NODELIST": HOSTS, "STEP_NUM_NODES": str(NODES), "STEP_NUM_TASKS": str(NODES * TASKS),
        "STEP_TASKS_PER_NODE": f"{TASKS}(x{NODES})", "STEP_LAUNCHER_PORT": "40123", "SRUN_COMM_HOST": "127.0.0.1",
        "SRUN_COMM_PORT": "40122", "LAUNCH_NODE_IPADDR": "127.0.0.1",
        "GTIDS": ",".join(str(node * TASKS + k) for k in range(TASKS)),
    }  # fmt: skip
    return {f"SLURM_{name}": value for name, value in names.items()} | {"SLURMD_NODENAME": f"127.0.0.{node + 1}"}


class Job:
    """A script that is running.

    Args:
        script: as it was given to sbatch.
        folder: where it runs; `state` and `bin` in it belong to the stand-in.
        environment: of whoever submitted it.
        restarts: how often it was put back into the queue.
    """

    def __init__(self, script: str, folder: Path, environment: Mapping[str, str], restarts: int = 0) -> None:
        self.options = dict(re.findall(r"^#SBATCH --([\w-]+)=?(.*)$", script, re.MULTILINE))
        self.state, tools = folder / "state", folder / "bin"
        for made in (self.state, tools):
            made.mkdir(exist_ok=True)
        for name in ("srun", "scontrol"):
            tool = tools / name
            tool.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "{__file__}" {name} "$@"\n')
            tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
        (self.state / "requeue").unlink(missing_ok=True)
        (folder / "script.sh").write_text(script)
        path = os.pathsep.join([str(tools), str(Path(sys.executable).parent), environment["PATH"]])
        own = {**environment, **job_environment(4711, restarts), STATE: str(self.state), "PATH": path}
        with (folder / "slurm.out").open("a") as out:
            self._shell = subprocess.Popen(["bash", "script.sh"], cwd=folder, env=own, stdout=out, stderr=out)

    @property
    def tasks(self) -> list[int]:
        """The processes that srun has started."""
        return [int(word) for word in (self.state / "tasks").read_text().split()]

    def warn(self) -> None:
        """Send the signal that the script wants before its time is over."""
        name, _, seconds = self.options["signal"].partition("@")
        assert int(seconds) > 0
        shell, _, name = name.rpartition(":")
        for pid in [self._shell.pid] if shell == "B" else self.tasks:
            os.kill(pid, getattr(signal, f"SIG{name}"))

    def cancel(self) -> None:
        """End the job as scancel does."""
        for pid in [*self.tasks, self._shell.pid]:
            os.kill(pid, signal.SIGTERM)

    def wait(self, seconds: float = 60.0) -> bool:
        """Wait for the script's end; returns whether it was put back into the queue."""
        self._shell.wait(seconds)
        return (self.state / "requeue").exists()


def srun(words: list[str]) -> int:
    """Start the tasks of a step, pass signals on to them, and return the highest exit code."""
    state = Path(os.environ[STATE])
    step = len(list(state.glob("step-*")))
    (state / f"step-{step}").touch()
    while words[0].startswith("-"):
        words = words[1:]
    tasks = [
        subprocess.Popen(words, env={**os.environ, **task_environment(rank, step)}, stdin=subprocess.DEVNULL)
        for rank in range(NODES * TASKS)
    ]
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, lambda number, _: [task.send_signal(number) for task in tasks])
    (state / "tasks").write_text(" ".join(str(task.pid) for task in tasks))
    codes = [task.wait() for task in tasks]
    return max(128 - code if code < 0 else code for code in codes)


def scontrol(words: list[str]) -> int:
    """Put the job back into the queue."""
    assert words == ["requeue", os.environ["SLURM_JOB_ID"]], words
    (Path(os.environ[STATE]) / "requeue").touch()
    return 0


if __name__ == "__main__":
    sys.exit({"srun": srun, "scontrol": scontrol}[sys.argv[1]](sys.argv[2:]))
