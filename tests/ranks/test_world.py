"""What the processes of a job say to one another, and what they do when one of them is lost."""

from __future__ import annotations

import os
import signal
import time
from datetime import timedelta

import pytest
import torch

from sfumato.errors import UserError
from sfumato.ranks import Place, World, find_place, join
from sfumato.ranks import watch as watching
from sfumato.ranks.join import joined, local_device
from sfumato.ranks.place import first_host

from .jobs import CPU, Job, free_port, results


def test_one_process_alone_needs_nothing():
    world = World()
    x = torch.arange(3.0)
    assert world.main
    assert world.alone
    assert torch.equal(world.sum(x.clone()), x)
    assert torch.equal(world.gather(x, slice(0, 3), 3), x)
    world.broadcast([x])
    with world.ordered("step", images=3):
        pass
    with joined(None, CPU) as joined_world:
        assert joined_world.alone


@pytest.mark.parametrize(("size", "total"), [(1, 5), (2, 8), (3, 8), (4, 4), (8, 9)])
def test_rows_are_every_row_once_in_order(size, total):
    parts = [World(rank, size).rows(total) for rank in range(size)]
    assert [row for part in parts for row in range(part.start, part.stop)] == list(range(total))
    assert max(part.stop - part.start for part in parts) - min(part.stop - part.start for part in parts) <= 1


def meet(world: World):
    here = world.rows(5)
    gathered = world.gather(torch.arange(10.0).reshape(5, 2)[here], here, 5)
    strided = torch.full((2, 3, 4, 4), float(world.rank)).contiguous(memory_format=torch.channels_last)
    world.broadcast([strided])
    heard = []
    if world.main:
        with world.ordered("short", a=1), world.ordered("inside"):
            pass
        with world.ordered("long", text="x" * 1000):
            pass
    else:
        heard = [order for order in world.orders() if order[0] != "end"]
    return gathered, strided.is_contiguous(memory_format=torch.channels_last) and float(strided.sum()), heard


def test_sums_gathers_broadcasts_and_orders(tmp_path):
    found = results(3, meet, tmp_path)
    for rank, (gathered, strided, heard) in enumerate(found):
        assert torch.equal(gathered, torch.arange(10.0).reshape(5, 2))
        assert strided == 0.0
        # an order inside another is no order of its own
        assert heard == ([("short", {"a": 1}), ("long", {"text": "x" * 1000})] if rank else [])


def test_what_is_gathered_has_its_bits(tmp_path):
    """Of every type and of no rows: signs of zeros, NaN with its payload, rows of no length."""
    values = torch.tensor([-0.0, 0.0, float("nan"), -float("inf"), 1e-45, 3.5])
    kinds = (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool)
    tensors = [values.nan_to_num(7).to(kind) if not kind.is_floating_point else values.to(kind) for kind in kinds]
    tensors += [values.reshape(3, 2, 1), values.reshape(1, 6), torch.zeros(4, 0)]

    def act(world: World):
        found = [world.gather(each[world.rows(len(each))], world.rows(len(each)), len(each)) for each in tensors]
        list(() if world.main else world.orders())
        return found

    for found in results(4, act, tmp_path):
        for one, expected in zip(found, tensors, strict=True):
            assert (one.shape, one.dtype) == (expected.shape, expected.dtype)
            bits = [each.reshape(len(each), -1).view(torch.uint8) if each.numel() else each for each in (one, expected)]
            assert torch.equal(*bits)


def work(world: World) -> None:
    """Meet again and again, for ever."""
    x = torch.zeros(1)
    while True:
        world.sum(x)
        time.sleep(0.01)


@pytest.mark.parametrize("killed", [0, 1])
def test_a_rank_that_dies_is_named_and_the_job_ends(tmp_path, killed):
    job = Job(3, work, tmp_path)
    time.sleep(1.5)
    os.kill(job.pids[killed], signal.SIGKILL)
    start = time.monotonic()
    codes = job.codes(30)
    assert time.monotonic() - start < 30
    assert codes[killed] == -signal.SIGKILL
    assert [code for rank, code in enumerate(codes) if rank != killed] == [2, 2]
    message, said_here = job.result(1 if killed == 0 else 0)
    assert f"rank {killed} (process {job.pids[killed]} on " in message
    assert said_here
    assert not job.result(2)[1]


@pytest.mark.slow
@pytest.mark.parametrize("stopped", [0, 1])
def test_a_rank_that_is_stopped_is_named_within_half_a_minute(tmp_path, stopped, capfd):
    job = Job(2, work, tmp_path)
    time.sleep(2)
    os.kill(job.pids[stopped], signal.SIGSTOP)
    start, other = time.monotonic(), job.pids[1 - stopped]
    while os.waitpid(other, os.WNOHANG)[0] == 0 and time.monotonic() - start < 35:
        time.sleep(0.1)
    assert time.monotonic() - start < 30
    os.kill(job.pids[stopped], signal.SIGKILL)
    os.waitpid(job.pids[stopped], 0)
    assert f"sfumato: rank {stopped} (process {job.pids[stopped]} on " in capfd.readouterr().err


def work_with_little_patience(world: World) -> None:
    watching.SILENT = 3.0
    work(world)


@pytest.mark.slow
def test_processes_that_are_stopped_together_go_on_together(tmp_path):
    job = Job(2, work_with_little_patience, tmp_path)
    time.sleep(3)
    for number, seconds in ((signal.SIGSTOP, 8), (signal.SIGCONT, 5)):
        for pid in job.pids:
            os.kill(pid, number)
        time.sleep(seconds)
    assert [os.waitpid(pid, os.WNOHANG)[0] for pid in job.pids] == [0, 0]
    os.kill(job.pids[1], signal.SIGSTOP)
    time.sleep(12)
    assert os.waitpid(job.pids[0], os.WNOHANG)[0] == job.pids[0]
    os.kill(job.pids[1], signal.SIGKILL)
    os.waitpid(job.pids[1], 0)


def dawdle(world: World) -> None:
    watching.LATE, watching.TOO_LATE, watching.GRACE = 1.5, 4.0, 1.0
    if world.rank == 1:
        time.sleep(6)  # nobody minds
    world.assemble()
    if world.rank == 1:
        time.sleep(60)
    world.sum(torch.zeros(1))


@pytest.mark.slow
def test_a_rank_that_keeps_the_others_waiting_is_named_and_given_up(tmp_path, capfd):
    job = Job(2, dawdle, tmp_path)
    assert job.codes(30) == [2, 2]
    # gloo may print a trace of its own where a connection ends
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("sfumato: ")]
    assert "rank 1 (process" in lines[0]
    assert "has kept the others waiting" in lines[0]
    assert "has been stuck" in lines[1]
    assert len(lines) == 2


def fail(world: World) -> None:
    if world.rank == 1:
        raise UserError("the images are not here")
    world.sum(torch.zeros(1))


def test_the_reason_of_a_rank_that_fails_is_what_rank_0_says(tmp_path):
    job = Job(3, fail, tmp_path)
    assert job.codes(30) == [2, 2, 2]
    message, said_here = job.result(0)
    assert message.endswith("has failed: the images are not here")
    assert message.startswith("rank 1 ")
    assert said_here
    assert not job.result(2)[1]


class Slow:
    """A store that takes its time to say why the job ends."""

    def __init__(self, store) -> None:
        self.store = store

    def __getattr__(self, name):
        return getattr(self.store, name)

    def get(self, key):
        time.sleep(1.0 if key == "failed" else 0)
        return self.store.get(key)


def test_rank_0_is_there_until_the_others_know_why_it_ends(tmp_path):
    """It ends in the middle of an order, with the code of a signal; that is no rank that has died."""

    def stopped(world: World):
        if world.main:
            with world.ordered("work"):
                time.sleep(1.0)
                error = UserError("stopped")
                error.code = 143
                raise error
        world._watch.store = Slow(world._watch.store)
        for _ in world.orders():
            world.sum(torch.zeros(1))

    job = Job(2, stopped, tmp_path)
    assert job.codes(30) == [2, 143]  # a test's rank 0 calls every `UserError` 2
    assert job.result(1) == ("", False)


def test_the_others_end_with_the_code_of_rank_0(tmp_path):
    """Rank 0 raises between two orders, and what it raises says its code."""

    def interrupted(world: World):
        if world.main:
            error = UserError("stopped")
            error.code = 143
            raise error
        return list(world.orders())[-1]

    job = Job(2, interrupted, tmp_path)
    job.codes(30)
    assert job.result(1) == ("end", {"code": 143})


# --- where a process is


TORCHRUN = {"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "MASTER_ADDR": "gpu01", "MASTER_PORT": "29500"}
SLURM = {
    "SLURM_PROCID": "5",
    "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_LOCALID": "1",
    "SLURM_STEP_NODELIST": "gpu[03-04]",
    "SLURM_JOB_ID": "1234567",
}


MEETING = {"MASTER_ADDR": "gpu01", "MASTER_PORT": "29500"}
OPEN_MPI = {f"OMPI_COMM_WORLD_{name}": number for name, number in (("RANK", "3"), ("SIZE", "8"), ("LOCAL_RANK", "1"))}
MPICH = {"PMI_RANK": "3", "PMI_SIZE": "8", "MPI_LOCALRANKID": "1"}


def test_places_are_read_from_the_environment():
    assert find_place({}) is None
    assert find_place(TORCHRUN | {"TORCHELASTIC_RUN_ID": "x"}) == Place(3, 8, 1, "gpu01", 29500, "torchrun")
    assert find_place(TORCHRUN | {"RANK": "0", "WORLD_SIZE": "1"}) is None
    assert find_place({"RANK": "3", "WORLD_SIZE": "8"}) is None  # names that many programs use
    assert find_place(SLURM) == Place(5, 8, 1, "gpu03", 20000 + 1234567 % 12000, "Slurm")
    # an sbatch script itself is no step of srun
    assert find_place({"SLURM_PROCID": "0", "SLURM_NTASKS": "8", "SLURM_JOB_ID": "7"}) is None
    for started in (OPEN_MPI, MPICH):
        assert find_place(started | MEETING) == Place(3, 8, 1, "gpu01", 29500, "mpirun")
        with pytest.raises(UserError, match="mpirun has started 8 processes: set MASTER_ADDR"):
            find_place(started)


def test_who_has_started_a_process_is_known_where_several_have_left_their_names():
    """torchrun or mpirun in a job of Slurm; an address that a script has chosen; tasks with Slurm's PMI."""
    assert find_place(SLURM | TORCHRUN).rank == 3
    assert find_place(SLURM | OPEN_MPI | MEETING).rank == 3
    assert find_place(SLURM | {"PMI_RANK": "5", "PMI_SIZE": "8"}).starter == "Slurm"
    assert find_place(SLURM | MEETING) == Place(5, 8, 1, "gpu01", 29500, "Slurm")
    assert find_place(SLURM | {"WORLD_SIZE": "8"} | MEETING).rank == 5


def test_steps_of_one_job_of_slurm_meet_at_ports_of_their_own():
    ports = {find_place(SLURM | {"SLURM_STEP_ID": str(step), "SLURM_JOB_ID": str(job)}).port for step, job in STEPS}
    assert len(ports) == len(STEPS)
    assert min(ports) >= 20000
    assert max(ports) < 32768  # where the ports of outgoing connections begin


STEPS = [(step, job) for step in range(4) for job in (1234567, 1234568, 1234569)]


def test_accelerate_that_starts_one_process_for_several_is_refused():
    asked = {"ACCELERATE_USE_CPU": "True", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
    with pytest.raises(UserError, match="accelerate launch --cpu starts one process"):
        find_place(asked)
    assert find_place(asked | OPEN_MPI).size == 8
    assert find_place({"ACCELERATE_USE_CPU": "True"}) is None


@pytest.mark.parametrize(
    ("hosts", "first"),
    [
        ("gpu01", "gpu01"),
        ("gpu[03-05,9],cpu1", "gpu03"),
        ("a-1,b-2", "a-1"),
        ("n[7]-ib,x", "n7-ib"),
        ("r1n[1,4]", "r1n1"),
        ("node[01-04,07]", "node01"),
        ("rack[1-2]-node[003-004,9]", "rack1-node003"),
        ("127.0.0.[1-2]", "127.0.0.1"),
    ],
)
def test_the_first_of_slurms_hosts(hosts, first):
    assert first_host(hosts) == first


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"RANK": "x"}, "RANK is 'x'"),
        ({"RANK": "8"}, "rank 8 of 8"),
        ({"MASTER_PORT": "http"}, "MASTER_PORT is 'http'"),
    ],
)
def test_an_environment_that_can_not_be_is_refused(wrong, message):
    with pytest.raises(UserError, match=message):
        find_place(TORCHRUN | wrong)


def test_each_rank_has_a_gpu_of_its_own(monkeypatch):
    place = find_place(TORCHRUN)
    assert local_device(CPU, place) == CPU
    assert local_device(torch.device("cuda"), None) == torch.device("cuda")
    for count, index in ((4, 1), (1, 0), (2, 1)):  # a task of Slurm may see only its own
        monkeypatch.setattr(torch.cuda, "device_count", lambda count=count: count)
        assert local_device(torch.device("cuda"), place) == torch.device("cuda", index)
    with pytest.raises(UserError, match="can't share cuda:1"):
        local_device(torch.device("cuda:1"), place)
    with pytest.raises(UserError, match="not on mps: write --device cpu"):
        local_device(torch.device("mps"), place)


def test_two_ranks_with_one_gpu_are_refused(tmp_path, monkeypatch):
    """Each may see one GPU only, so that their number on the machine says nothing: its own name does."""
    monkeypatch.setattr(join, "_gpu", lambda device: "GPU-1")
    job = Job(3, work, tmp_path)
    assert job.codes(30) == [2, 2, 2]
    assert [job.result(rank)[1] for rank in range(3)] == [True, False, False]
    assert job.result(0)[0] == "ranks 0 and 1 have the same GPU: start one process for each GPU, or write --device cpu"


def test_gpus_of_several_ranks_are_told_apart(tmp_path, monkeypatch):
    monkeypatch.setattr(join, "_gpu", lambda device: f"GPU-{os.getpid()}")
    assert [gathered.shape for gathered, *_ in results(2, meet, tmp_path)] == [(5, 2)] * 2


def test_processes_that_do_not_meet_are_an_error(monkeypatch, capfd):
    """Rank 0 says after a while for whom it waits."""
    monkeypatch.setattr(join, "ROLL_CALL", timedelta(seconds=0.6))
    monkeypatch.setattr(join, "_NOTICE", timedelta(seconds=0.2))
    with (
        pytest.raises(UserError, match=r"ranks 1, 2 did not come.*unset SLURM_STEP_NUM_TASKS"),
        joined(Place(0, 3, 0, "127.0.0.1", free_port(), "Slurm"), CPU),
    ):
        pass
    assert capfd.readouterr().err.count("sfumato: waiting for ranks 1, 2 of 3") == 1


def test_a_rank_on_a_gpu_chooses_it_before_it_meets_the_others(monkeypatch):
    """Its processors' tensors travel by gloo, those of the GPU by NCCL, whose own watch does not end the process."""
    order = []
    monkeypatch.setenv("TORCH_NCCL_ASYNC_ERROR_HANDLING", "")  # and unset again afterwards
    monkeypatch.delenv("TORCH_NCCL_ASYNC_ERROR_HANDLING")
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: order.append(("chosen", device.index)))
    monkeypatch.setattr(join, "_gpu", lambda device: order.append(("asked", device.index)) or "GPU-1")
    begin = torch.distributed.init_process_group
    monkeypatch.setattr(
        torch.distributed,
        "init_process_group",
        lambda backend, **more: (order.append(("joined", backend)), begin("gloo", **more)),
    )
    with joined(Place(0, 1, 0, "127.0.0.1", free_port(), "a test"), torch.device("cuda", 3)):
        assert os.environ["TORCH_NCCL_ASYNC_ERROR_HANDLING"] == "0"
    assert order == [("chosen", 3), ("asked", 3), ("joined", "cpu:gloo,cuda:nccl")]
