"""Where the processes of a job meet: at a store, then in a process group of torch.distributed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.distributed import PrefixStore, Store, TCPStore  # type: ignore[attr-defined]

from sfumato.errors import UserError
from sfumato.ranks.place import Place
from sfumato.ranks.watch import HEAR, Verdict, Watch, say
from sfumato.ranks.world import Lost, World

_NCCL = "TORCH_NCCL_ASYNC_ERROR_HANDLING"
"""By default NCCL's own watch aborts a process whose connection broke, before ours has named the rank that is gone."""
ROLL_CALL = timedelta(minutes=10)
"""How long the processes wait for one another at the start."""
_NOTICE = timedelta(seconds=20)
"""After so long rank 0 says for whom it waits."""
_FOREVER = timedelta(days=365)
"""Of a single meeting: rank 0 may decode images for hours while the others wait. `Watch` sees who does not come."""


def local_device(device: torch.device, place: Place | None) -> torch.device:
    """Return the device of a rank: one GPU of its machine each, the number `place.local` of those that it sees. Whether
    two have the same one shows when they meet (`joined`).

    Raises:
        UserError: one GPU was chosen for several processes, or a kind of device that only one process can use.
    """
    if place is None or device.type == "cpu":
        return device
    if device.type != "cuda":
        raise UserError(
            f"several processes compute on NVIDIA GPUs or on CPUs, not on {device.type}: write --device cpu"
        )
    if device.index is not None:
        raise UserError(
            f"{place.size} processes can't share {device}: write --device cuda, and each takes a GPU of its own"
        )
    return torch.device("cuda", place.local % max(1, torch.cuda.device_count()))


@contextmanager
def joined(
    place: Place | None, device: torch.device, on_request: Callable[[int], None] | None = None
) -> Iterator[World]:
    """Join the other processes of a job for a `with` block; with None for a place, be one process alone.

    Where the block of rank 0 ends, the job ends: the others, in `World.orders`, hear its exit code.

    Args:
        place: `find_place()`.
        device: `local_device(...)`; a GPU's tensors travel by NCCL.
        on_request: called on rank 0, in another thread, with the number of a signal that another rank has received.

    Raises:
        UserError: not all processes came; `Lost`, a kind of it, where another rank has failed, with its exit code, or
            two have the same GPU.
    """
    if place is None:
        yield World()
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)  # before anything asks the driver, which takes memory of the current one
        os.environ.setdefault(_NCCL, "0")
    store, control = _meet(place, device)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    watch = Watch(control, place.rank, place.size, on_request)
    dist.init_process_group(backend, store=store, rank=place.rank, world_size=place.size, timeout=_FOREVER)
    world = World(place.rank, place.size, watch)
    watch.start()
    try:
        yield world
    except BaseException as error:
        _leave_after(world, error)
        raise
    world.leave(0)


def _leave_after(world: World, error: BaseException) -> None:
    """End the job after an exception in the block; where it comes from another rank, raise that rank's verdict."""
    if isinstance(error, RuntimeError):
        try:
            world.explain(error)
        except Lost:
            raise
        except RuntimeError:
            pass
    code = getattr(error, "code", 2 if isinstance(error, UserError | OSError) else 1)
    if not isinstance(error, Lost):
        world.leave(code if isinstance(code, int) else 1, " ".join(str(error).split()) or type(error).__name__)


def _meet(place: Place, device: torch.device) -> tuple[Store, Store]:
    """Return the store for the process group, and one for the watch, after every process has come."""
    held = place.rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    attempt = "/".join(os.environ.get(f"TORCHELASTIC_{name}", "0") for name in ("RUN_ID", "RESTART_COUNT"))
    try:
        tcp = TCPStore(place.address, place.port, place.size, held, ROLL_CALL, wait_for_workers=False)
    except (RuntimeError, OSError) as error:
        raise _not_met(place, " ".join(str(error).split())[:200]) from None
    store = PrefixStore(f"sfumato/{attempt}/group", tcp)
    control = PrefixStore(f"sfumato/{attempt}/watch", tcp.clone())  # type: ignore[attr-defined]
    here = [f"here/{rank}" for rank in range(place.size)]
    try:
        control.set(here[place.rank], _gpu(device) or str(place.rank))
        _wait_for_all(control, here, place)
        gpus = [text.decode() for text in control.multi_get(here)]
    except RuntimeError:
        raise _not_met(place, "the connection to the first of them broke") from None
    for rank, gpu in enumerate(gpus):
        if (first := gpus.index(gpu)) < rank:
            said = f"ranks {first} and {rank} have the same GPU: start one process for each GPU, or write --device cpu"
            with suppress(RuntimeError):  # rank 0 may hold the store, from which the others have to read it first
                control.set(f"read/{place.rank}", "1")
                control.wait([f"read/{each}" for each in range(place.size)], timedelta(seconds=HEAR))
            raise Lost(Verdict(said, 2, -1), place.rank)
    return store, control


def _wait_for_all(control: Store, here: list[str], place: Place) -> None:
    """Wait for all processes; rank 0 says after a while who is missing. Raises `UserError` where they do not come."""
    end, said = time.monotonic() + ROLL_CALL.total_seconds(), place.rank > 0
    while True:
        left = timedelta(seconds=max(0.01, end - time.monotonic()))
        try:
            return control.wait(here, min(left, _NOTICE))
        except RuntimeError:
            missing = ", ".join(str(rank) for rank, key in enumerate(here) if not control.check([key]))
            if time.monotonic() >= end:
                raise _not_met(place, f"ranks {missing} did not come") from None
        if not said and missing:
            minutes = f"{ROLL_CALL.total_seconds() / 60:.0f} minutes"
            say(f"waiting for ranks {missing} of {place.size}, for {minutes} at most")
            said = True


def _gpu(device: torch.device) -> str:
    """Return what tells a GPU from all others, on any machine; empty for a CPU."""
    return str(getattr(torch.cuda.get_device_properties(device), "uuid", "")) if device.type == "cuda" else ""


def _not_met(place: Place, reason: str) -> UserError:
    shell = "; in a shell that srun started, unset SLURM_STEP_NUM_TASKS" if place.starter == "Slurm" else ""
    return UserError(
        f"the {place.size} processes did not meet at {place.address}:{place.port} ({reason}): start all of them, with "
        f"the same address and a free port{shell}"
    )
