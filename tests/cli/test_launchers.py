"""`accelerate launch`, `srun` and a script of Slurm: their processes are used, and do what `--processes` does."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sfumato.ranks import World, find_place
from sfumato.ranks.join import joined
from sfumato.run.folder import Run

from ..ranks.jobs import CPU, free_port
from .slurm import NODES, TASKS, Job, job_environment, task_environment
from .test_processes import are_gone, children, images_of, start, train, training_in_two, wait_for_steps

PAGE = Path(__file__).parents[2] / "docs" / "many-processes.md"
REPOSITORY = Path(__file__).parents[2]


def lines_of(run: Run, event: str) -> list[dict]:
    return [line for line in map(json.loads, run.events_path.read_text().splitlines()) if line["event"] == event]


def weights(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Run(run).weights.iterdir()}


def finished(words: list[str], folder: Path, seconds: float = 120) -> tuple[int, str, str]:
    process = start(words, folder)
    out, errors = process.communicate(timeout=seconds)
    return process.returncode, out, errors


# --- accelerate


def accelerate(*more: str) -> list[str]:
    return ["accelerate.commands.launch", "--mixed_precision", "no", "--dynamo_backend", "no", *more, "-m"]


@pytest.mark.slow
def test_accelerate_trains_samples_and_measures_as_processes_do(tmp_path):
    """Two processes of accelerate; runs that go on from one launcher to the other; four on two machines, emulated."""
    pytest.importorskip("accelerate")
    two, ours = tmp_path / "two", tmp_path / "ours"
    launched = accelerate("--multi_gpu", "--num_processes", "2", "--main_process_port", str(free_port()))
    own = ["--processes", "2"]
    assert finished([*launched, *train(two, 96)], tmp_path)[0] == 0
    assert finished([*train(ours, 96), *own], tmp_path)[0] == 0
    assert weights(two) == weights(ours)
    for name, by_accelerate in (("there", 48), ("back", 96)):
        for images in (48, 96):
            words = train(tmp_path / name, images)
            command = [*launched, *words] if images == by_accelerate else [*words, *own]
            assert finished(command, tmp_path)[0] == 0
    assert weights(tmp_path / "there") == weights(tmp_path / "back")
    port = ["--num_processes", "4", "--num_machines", "2", "--main_process_ip", "127.0.0.1"]
    port += ["--main_process_port", str(free_port())]
    machines = [accelerate("--multi_gpu", *port, "--machine_rank", str(k)) for k in (0, 1)]
    nodes = [start([*machines[k], *train(tmp_path / f"node{k}", 96)], tmp_path) for k in (0, 1)]
    for node in nodes:
        assert node.communicate(timeout=180) is not None
        assert node.returncode == 0
    assert finished([*train(tmp_path / "four", 96), "--processes", "4"], tmp_path)[0] == 0
    assert weights(tmp_path / "node0") == weights(tmp_path / "four")
    assert not (tmp_path / "node1").exists()


@pytest.mark.slow
def test_accelerate_samples_and_measures_as_processes_do(tmp_path):
    pytest.importorskip("accelerate")
    run, own = tmp_path / "run", ["--processes", "2"]
    launched = accelerate("--multi_gpu", "--num_processes", "2", "--main_process_port", str(free_port()))
    assert finished(train(run, 32), tmp_path)[0] == 0
    words = ["sfumato", "sample", str(run), "--num", "24", "--batch", "8", "--steps", "4", "--device", "cpu", "--out"]
    assert finished([*launched, *words, str(tmp_path / "a.png")], tmp_path)[0] == 0
    assert finished([*words, str(tmp_path / "b.png"), *own], tmp_path)[0] == 0
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    words = ["sfumato", "evaluate", str(run), "--num", "32", "--steps", "10", "--batch", "8", "--json"]
    words += ["--device", "cpu", "--out"]
    commands = [*words, str(tmp_path / "0"), *own], [*launched, *words, str(tmp_path / "1")]
    reports = [finished(command, tmp_path) for command in commands]
    assert [code for code, *_ in reports] == [0, 0]
    results = [{kind: report["result"] for kind, report in json.loads(out).items()} for _, out, _ in reports]
    assert str(results[0]) == str(results[1])


@pytest.mark.slow
def test_accelerate_on_a_processor_starts_one_process_and_is_refused(tmp_path):
    pytest.importorskip("accelerate")
    words = [*accelerate("--cpu", "--num_processes", "2"), *train(tmp_path / "run", 96)]
    code, _, errors = finished(words, tmp_path)
    assert code != 0
    assert "sfumato: accelerate launch --cpu starts one process" in errors
    assert not (tmp_path / "run").exists()


# --- signals for requests


@pytest.mark.slow
def test_requests_by_signal_reach_the_process_that_trains(tmp_path):
    """A signal to the launcher asks rank 0; the other rank, which a scheduler signals too, goes on."""
    folder, process, ranks = training_in_two(tmp_path)
    run = Run(folder)
    os.kill(ranks[1], signal.SIGUSR1)
    os.kill(ranks[1], signal.SIGUSR2)
    process.send_signal(signal.SIGUSR2)
    end = time.monotonic() + 60
    while not lines_of(run, "saved"):
        assert time.monotonic() < end
        time.sleep(0.05)
    assert process.poll() is None
    assert children(process.pid) == ranks
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 143
    assert are_gone(ranks)


# --- Slurm


def test_tasks_of_slurm_meet_by_what_it_tells_them(tmp_path, monkeypatch):
    """Two nodes of two tasks: ranks in order, local numbers, the first host of a compressed list."""
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    number, pids = 1000 + os.getpid() % 10_000, []
    for rank in range(NODES * TASKS):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                place = find_place(job_environment(number) | task_environment(rank))
                with joined(place, CPU) as world:
                    code = 0 if _numbers(world, place.local) == [[0, 0], [1, 1], [2, 0], [3, 1]] else 3
            finally:
                os._exit(code)
        pids.append(pid)
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids] == [0] * len(pids)


def _numbers(world: World, local: int) -> list[list[int]]:
    own = torch.tensor([[world.rank, local]])
    numbers = world.gather(own, slice(world.rank, world.rank + 1), world.size).tolist()
    list(() if world.main else world.orders())
    return numbers


def the_script() -> str:
    """The script of the documents."""
    (script,) = re.findall(r"```bash\n(#!/bin/bash\n#SBATCH.*?)```", PAGE.read_text(), re.DOTALL)
    return script


@pytest.fixture
def home(tmp_path) -> Path:
    photos = tmp_path / "photos"
    photos.mkdir()
    for k in range(40):
        pixels = np.random.default_rng(k).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(photos / f"{k}.png")
    return tmp_path


def environment(home: Path) -> dict[str, str]:
    more = {"HOME": str(home), "SFUMATO_CACHE": str(home / "cache"), "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    return {**os.environ, "PYTHONPATH": str(REPOSITORY / "src"), **more}


def alive(job: Job, run: Run, images: int) -> None:
    """Wait until a run has passed so many images."""
    end = time.monotonic() + 240
    while not run.events_path.exists() or not any(line["images"] > images for line in lines_of(run, "stepped")):
        assert time.monotonic() < end, (job.state.parent / "slurm.out").read_text()
        time.sleep(0.1)


@pytest.mark.slow
def test_the_script_of_the_documents_saves_before_its_time_is_over_and_goes_on(home):
    """As printed: it is warned, saves, and is put back into the queue; the next time it resumes, and is cancelled."""
    script, run = the_script(), Run(home / "runs" / "photos")
    job = Job(script, home, environment(home))
    alive(job, run, 0)
    tasks = job.tasks
    job.warn()
    assert job.wait()
    assert are_gone(tasks)
    saved = images_of(run.path)
    assert lines_of(run, "saved")[-1]["images"] == saved > 0
    again = Job(script, home, environment(home), restarts=1)
    alive(again, run, saved)
    again.cancel()
    assert not again.wait()
    assert are_gone(again.tasks)
    assert [line["resumed_at"] for line in lines_of(run, "started")] == [0, saved]
    assert images_of(run.path) > saved
    said = (home / "slurm.out").read_text()
    assert said.count("; the same command resumes") == 2
    assert "Traceback" not in said


@pytest.mark.slow
def test_srun_trains_as_processes_do(tmp_path):
    """The weights and the samples of `--processes 4`, by two steps of one job; a signal to srun reaches all tasks, of
    which one speaks."""
    ours = tmp_path / "ours"
    assert finished([*train(ours, 96), "--processes", "4"], tmp_path)[0] == 0
    sample = ["sfumato", "sample", str(ours), "--num", "24", "--batch", "6", "--steps", "4", "--device", "cpu", "--out"]
    assert finished([*sample, str(tmp_path / "a.png"), "--processes", "4"], tmp_path)[0] == 0
    steps = train(tmp_path / "theirs", 96), [*sample, str(tmp_path / "b.png")]
    script = "".join(f"srun {shlex.join([sys.executable, '-m', *words])}\n" for words in steps)
    assert not Job(f"#!/bin/bash\n{script}", tmp_path, environment(tmp_path)).wait(240)
    assert weights(tmp_path / "theirs") == weights(ours)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    long = tmp_path / "long"
    words = shlex.join([sys.executable, "-m", *train(long, 800_000)])
    script = f"#!/bin/bash\n#SBATCH --signal=B:USR1@60\ntrap 'kill -TERM $!' USR1\nsrun {words} &\nwait; wait\n"
    job = Job(script, tmp_path, environment(tmp_path))
    wait_for_steps(long, 3)
    job.warn()
    job.wait()
    assert are_gone(job.tasks)
    assert (tmp_path / "slurm.out").read_text().count("; the same command resumes") == 1
