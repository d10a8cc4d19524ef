"""Where the processes of a job meet: at a store, then in a process group of torch.distributed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.distributed import PrefixStore, Store, TCPStore  # type: ignore[attr-defined]

from sfumato.errors import UserError
from sfumato.ranks.place import Place
from sfumato.ranks.watch import Watch
from sfumato.ranks.world import Lost, World

ROLL_CALL = timedelta(minutes=10)
"""How long the processes wait for one another at the start."""
_FOREVER = timedelta(days=365)
"""Of a single meeting: rank 0 may decode images for hours while the others wait. `Watch` sees who does not come."""


def local_device(device: torch.device, place: Place | None) -> torch.device:
    """Return the device of a rank: one GPU of its machine each, the number `place.local`.

    Raises:
        UserError: one GPU was chosen for several processes, or the machine has fewer GPUs than processes.
    """
    if place is None or device.type != "cuda":
        return device
    if device.index is not None:
        raise UserError(
            f"{place.size} processes can't share {device}: write --device cuda, and each takes a GPU of its own"
        )
    count = torch.cuda.device_count()
    if count > 1 and place.local >= count:
        raise UserError(f"process {place.local} of this machine finds {count} GPUs: start one process for each GPU")
    return torch.device("cuda", place.local if count > 1 else 0)


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
        UserError: not all processes came; `Lost`, a kind of it, where another rank has failed, with its exit code.
    """
    if place is None:
        yield World()
        return
    store, control = _meet(place)
    if device.type == "cuda":
        torch.cuda.set_device(device)
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


def _meet(place: Place) -> tuple[Store, Store]:
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
        control.set(here[place.rank], "1")
        control.wait(here, ROLL_CALL)
    except RuntimeError:
        missing = [str(rank) for rank, key in enumerate(here) if not control.check([key])]
        raise _not_met(place, f"ranks {', '.join(missing)} did not come") from None
    return store, control


def _not_met(place: Place, reason: str) -> UserError:
    return UserError(
        f"the {place.size} processes did not meet at {place.address}:{place.port} ({reason}): start all of them, with "
        "the same address and a free port"
    )
