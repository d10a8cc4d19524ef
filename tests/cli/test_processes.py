"""`sfumato train --processes N` and other launchers: one job, one result, one exit code, and nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from sfumato.cli import launch
from sfumato.cli.evaluate import _local
from sfumato.cli.launch import pick_processes
from sfumato.errors import UserError
from sfumato.run.folder import Run

from ..ranks.jobs import free_port

CPU = torch.device("cpu")
SMALL = [
    *("--train.grids", "1", "--train.held_outs", "1", "--train.grid_images", "4", "--train.grid_steps", "2"),
    *("--net.base", "4", "--net.groups", "2", "--net.multipliers", "1", "--net.blocks", "1", "--train.batch", "8"),
    *("--train.micro", "2", "--net.attention", "0"),
]


def train(run: Path, images: int, *more: str) -> list[str]:
    return ["sfumato", "train", "digits", "--run", str(run), "--images", str(images), "--json", *SMALL, *more]


def start(words: list[str], folder: Path, **more: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "SFUMATO_CACHE": str(folder / "cache"), "GLOO_SOCKET_IFNAME": "lo", **more}
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-m", *words], env=environment, stdout=pipe, stderr=pipe, text=True)


def wait_for_steps(run: Path, steps: int) -> None:
    """Wait until a training has taken some steps."""
    end, path = time.monotonic() + 60, Run(run).events_path
    while time.monotonic() < end:
        lines = path.read_text().splitlines() if path.exists() else []
        if any(json.loads(line).get("step", 0) >= steps for line in lines):
            return
        time.sleep(0.05)
    raise AssertionError("it does not train")


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def are_gone(pids: list[int], seconds: float = 15.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not any(Path(f"/proc/{pid}").exists() and "Z" not in _state(pid) for pid in pids):
            return True
        time.sleep(0.1)
    return False


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def images_of(run: Path) -> int:
    return int(Run(run).list_checkpoints()[0].name)


def training_in_two(folder: Path) -> tuple[Path, subprocess.Popen[str], list[int]]:
    """Start a long training in two processes: its run, its launcher and its ranks, once three steps were taken."""
    run = folder / "run"
    process = start(train(run, 800_000, "--processes", "2"), folder)
    wait_for_steps(run, 3)
    return run, process, children(process.pid)


@pytest.mark.slow
def test_a_signal_to_the_launcher_saves_once_and_ends_all(tmp_path):
    run, process, ranks = training_in_two(tmp_path)
    assert len(ranks) == 2
    begun = time.monotonic()
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=20)
    assert time.monotonic() - begun < 10
    assert process.returncode == 143
    assert are_gone(ranks)
    images = images_of(run)
    assert f"stopped at {images:,} images, saved in {run}" in errors
    assert len(errors.strip().splitlines()) == 1
    saved = [line for line in Run(run).events_path.read_text().splitlines() if '"saved"' in line]
    assert len(saved) == 1


@pytest.mark.slow
def test_ctrl_c_twice_ends_at_once(tmp_path):
    _, process, ranks = training_in_two(tmp_path)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode == 130
    assert are_gone(ranks)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_is_killed_ends_the_job_with_its_name(tmp_path, rank):
    _, process, ranks = training_in_two(tmp_path)
    os.kill(ranks[rank], signal.SIGKILL)
    _, errors = process.communicate(timeout=40)
    assert process.returncode == 2
    assert f"rank {rank} (process {ranks[rank]}" in errors
    assert "Traceback" not in errors
    assert are_gone(ranks)


@pytest.mark.slow
def test_without_its_launcher_a_job_saves_and_ends(tmp_path):
    run, process, ranks = training_in_two(tmp_path)
    process.kill()
    process.communicate(timeout=20)
    assert are_gone(ranks)
    assert images_of(run) > 0


@pytest.mark.slow
def test_a_mistake_is_one_line_whatever_the_number_of_processes(tmp_path):
    words = ["sfumato", "train", "digits", "--run", str(tmp_path / "run"), "--images", "800", "--processes", "3"]
    process = start([*words, "--train.batch", "2"], tmp_path)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert errors.strip() == "sfumato: 3 processes can't share 2 images a step: set --train.batch=3"


def torchrun(*more: str) -> list[str]:
    return ["torch.distributed.run", *more, "-m", "--"]


def weights(run: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(Run(run).weights_file("ema"))


@pytest.mark.slow
def test_two_machines_emulated_train_as_one_process(tmp_path):
    """Two torchruns that meet at one address, two processes each; only the first machine writes."""
    alone, run = tmp_path / "alone", tmp_path / "run"
    process = start(train(alone, 160, "--optim.name", "adamw", "--optim.lr", "1e-4"), tmp_path)
    assert process.communicate(timeout=60) is not None
    address = [
        "--nnodes",
        "2",
        "--nproc-per-node",
        "2",
        "--master-addr",
        "127.0.0.1",
        "--master-port",
        str(free_port()),
    ]
    nodes = [
        start(
            torchrun(*address, "--node-rank", str(node))
            + train(run if node == 0 else tmp_path / "unused", 160, "--optim.name", "adamw", "--optim.lr", "1e-4"),
            tmp_path,
        )
        for node in (0, 1)
    ]
    errors = [node.communicate(timeout=120)[1] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], errors
    assert not (tmp_path / "unused").exists()
    ours, theirs = weights(run), weights(alone)
    apart = sum(float((ours[name] - theirs[name]).square().sum()) for name in ours) ** 0.5
    assert apart <= 1e-6 * sum(float(tensor.square().sum()) for tensor in theirs.values()) ** 0.5


@pytest.mark.slow
def test_torchrun_restarts_a_job_that_lost_a_rank(tmp_path):
    run = tmp_path / "run"
    words = train(run, 8 * 400, "--train.save_every", "0")
    restarting = torchrun("--standalone", "--nproc-per-node", "2", "--max-restarts", "2")
    process = start(restarting + words, tmp_path)
    wait_for_steps(run, 5)
    os.kill(children(process.pid)[1], signal.SIGKILL)
    process.communicate(timeout=180)
    assert process.returncode == 0
    lines = [json.loads(line) for line in Run(run).events_path.read_text().splitlines()]
    starts = [line["resumed_at"] for line in lines if line["event"] == "started"]
    assert starts[0] == 0
    assert starts[-1] > 0
    assert lines[-1]["event"] == "finished"


# --- how many


@pytest.fixture
def alone(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)


def test_how_many_processes(alone, monkeypatch):
    assert pick_processes(None, CPU) == (None, 1)
    assert pick_processes("auto", CPU) == (None, 1)
    assert pick_processes("3", CPU) == (None, 3)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    cuda = torch.device("cuda")
    assert [pick_processes(text, cuda)[1] for text in (None, "auto", "2", "1")] == [1, 4, 2, 1]
    with pytest.raises(UserError, match="has 4 GPUs, and each process needs one"):
        pick_processes("5", cuda)
    with pytest.raises(UserError, match="with --device cuda:1: write --device cuda"):
        pick_processes("2", torch.device("cuda:1"))
    assert launch.unused_gpus(cuda) == ", one of 4 GPUs: --processes auto uses all"
    assert launch.unused_gpus(CPU) == launch.unused_gpus(torch.device("cuda:1")) == ""
    for wrong in ("0", "-1", "two", "1.5", ""):
        with pytest.raises(UserError, match="--processes can't be"):
            pick_processes(wrong, CPU)


def test_processes_that_measure_share_the_gpus_there_are(monkeypatch):
    chosen, cuda = [], torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    own = [torch.device("cuda", k) for k in (0, 1, 0)]
    assert [_local(cuda, str(k)) for k in range(3)] == chosen == own
    assert _local(cuda, "") == cuda
    assert _local(own[1], "0") == own[1]
    assert _local(CPU, "0") == CPU


def test_the_number_that_others_have_started_stands(alone, monkeypatch):
    given = {"RANK": "1", "WORLD_SIZE": "4", "MASTER_ADDR": "a", "MASTER_PORT": "1", "TORCHELASTIC_RUN_ID": "x"}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    for text in (None, "auto", "4"):
        place, number = pick_processes(text, CPU)
        assert (place.rank, place.size, number) == (1, 4, 1)
    with pytest.raises(UserError, match="torchrun has started 4 processes: leave --processes 2 out"):
        pick_processes("2", CPU)


def test_the_words_of_a_command_are_those_of_its_ranks(monkeypatch):
    from sfumato.cli.main import main

    main(["--version"])
    assert launch.words == ["--version"]


# --- sampling and measuring


def sampled(run: Path, folder: Path, *more: str) -> tuple[bytes, str]:
    """The picture that `sample` writes in some processes, and what it prints."""
    words = ["sfumato", "sample", str(run), "--num", "24", "--batch", "8", "--steps", "4", "--device", "cpu"]
    process = start([*words, "--out", str(folder / "x.png"), "--force", *more], folder, OMP_NUM_THREADS="1")
    out, errors = process.communicate(timeout=120)
    assert (process.returncode, errors.replace("fitting a grid of times to the model\n", "")) == (0, "")
    return (folder / "x.png").read_bytes(), out


@pytest.fixture(scope="module")
def trained_run(tmp_path_factory) -> Path:
    from sfumato.cli.main import main

    run = tmp_path_factory.mktemp("trained") / "run"
    assert main(train(run, 16, "--device", "cpu")[1:]) == 0
    return run


def test_sampling_in_two_processes_writes_the_file_of_one(trained_run, tmp_path):
    from sfumato.cli.main import main

    two, said = sampled(trained_run, tmp_path, "--processes", "2")
    assert (
        main(
            [
                *["sample", "--num", "24", "--batch", "8", "--steps", "4", "--device", "cpu", "--out"],
                str(tmp_path / "one.png"),
                str(trained_run),
            ]
        )
        == 0
    )
    assert (tmp_path / "one.png").read_bytes() == two
    assert len(said.splitlines()) == 2


@pytest.mark.slow
def test_sampling_and_measuring_in_processes(trained_run, tmp_path):
    """Films and fitted grids too, torchrun too; the figures of an evaluation, also with a process that was killed."""
    for more in (["--grid", "fitted"], ["--sampler", "ddpm", "--variance", "analytic"]):
        alone = sampled(trained_run, tmp_path, *more)[0]
        assert alone == sampled(trained_run, tmp_path, *more, "--processes", "3")[0]
    words = ["sfumato", "evaluate", str(trained_run), "--num", "48", "--steps", "20", "--batch", "8", "--json"]
    reports = []
    for number, more in enumerate(([], ["--processes", "2"], ["--processes", "3"])):
        process = start([*words, "--device", "cpu", "--out", str(tmp_path / str(number)), *more], tmp_path)
        if number == 2:
            end = time.monotonic() + 60
            while len(children(process.pid)) < 3 or not list((tmp_path / "2").rglob("*.part")):
                assert time.monotonic() < end
                time.sleep(0.02)
            os.kill(children(process.pid)[2], signal.SIGKILL)
        out, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
        reports.append({kind: report["result"] for kind, report in json.loads(out).items()})
    for kind, result in reports[0].items():
        assert str(reports[1][kind]) == str(reports[2][kind]) == str(result)


@pytest.mark.slow
def test_a_signal_ends_all_processes_that_sample(trained_run, tmp_path):
    words = ["sfumato", "sample", str(trained_run), "--num", "1000000", "--out", str(tmp_path / "many"), "--batch", "4"]
    process = start([*words, "--processes", "2", "--device", "cpu"], tmp_path)
    end = time.monotonic() + 60
    while not (tmp_path / "many" / "000008.png").exists():
        assert time.monotonic() < end
        time.sleep(0.05)
    ranks = children(process.pid)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 143
    assert are_gone(ranks)
    assert errors.splitlines()[-1].endswith("keeps what was sampled, and the same command continues")
