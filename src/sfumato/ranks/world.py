"""The processes ("ranks") that train one model together, and everything that they say to one another.

Rank 0 decides: it reads the command line, holds the run folder, plans, saves and prints. The others follow its orders,
which are calls of the same method with the same arguments:

    with world.ordered("step", images=640):     rank 0 says it, then all do it
    for name, values in world.orders(): ...     the others hear it

Tensors are summed, gathered and broadcast by torch.distributed: by NCCL on GPUs, by gloo on CPUs, where the orders
travel too. `World()`, one process alone, does nothing of all that, so nobody has to ask how many there are. No object
is pickled: orders are JSON.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import wraps
from inspect import signature
from math import prod
from typing import TYPE_CHECKING, Any, NoReturn, ParamSpec, TypeVar

from sfumato.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from sfumato.ranks.watch import Verdict, Watch

P = ParamSpec("P")
R = TypeVar("R")

_FRAME = 256
"""Bytes of an order's first message: eight of its length, then its beginning."""


class World:
    """One of `size` processes.

    Attributes:
        rank: its number; 0 decides.
        size: how many there are.
        busy: whether the ranks are in the middle of an order, so that no other can be given.
    """

    def __init__(self, rank: int = 0, size: int = 1, watch: Watch | None = None) -> None:
        self.rank, self.size, self.busy, self._watch = rank, size, False, watch

    @property
    def main(self) -> bool:
        """Whether this is rank 0."""
        return self.rank == 0

    @property
    def alone(self) -> bool:
        """Whether there is one process only."""
        return self.size == 1

    def rows(self, total: int) -> slice:
        """Return this rank's part of `total` rows: parts are adjacent, in the order of ranks, and differ by one row at
        most."""
        return slice(total * self.rank // self.size, total * (self.rank + 1) // self.size)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Surround what ends only when every rank has come to it, so that a rank that does not come is noticed."""
        if self._watch is None:
            yield
            return
        with self._watch.meeting():
            yield

    def assemble(self) -> None:
        """Wait until every rank has come here, however long that takes, such as one that decodes images first."""
        if self._watch is not None:
            with self._watch.meeting(patient=True):
                _meet()

    def sum(self, x: Tensor) -> Tensor:
        """Replace x by its sum over the ranks, the same bits on each, and return it."""
        if not self.alone:
            import torch.distributed as dist

            with self.waiting():
                dist.all_reduce(x)
        return x

    def gather(self, part: Tensor, here: slice | list[int], total: int) -> Tensor:
        """Return `total` rows, of which this rank has the part `here`, on every rank, bit for bit."""
        if self.alone:
            return part
        import torch

        # as integers: a sum of floats would lose the sign of -0.0
        kind = {4: torch.int32, 8: torch.int64}.get(part.element_size(), torch.uint8)
        bits = part.reshape(len(part), prod(part.shape[1:])).view(kind)
        whole = bits.new_zeros((total, bits.shape[1]))
        whole[here] = bits
        return self.sum(whole).view(part.dtype).reshape(total, *part.shape[1:])

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Replace tensors, which have the same shapes on all ranks, by those of rank 0."""
        if self.alone:
            return
        import torch
        import torch.distributed as dist

        with self.waiting(), torch.no_grad():
            for tensor in tensors:
                dense = tensor.detach().contiguous()
                dist.broadcast(dense, 0)
                tensor.copy_(dense)

    @contextmanager
    def ordered(self, name: str, **values: Any) -> Iterator[None]:
        """Have the other ranks do what this block does; on them, and for one process, only the block.

        Args:
            name: what to do. values: its arguments, which JSON can hold.
        """
        if self.alone or not self.main or self.busy:
            yield
            return
        self._send(json.dumps([name, values]).encode())
        self.busy = True
        yield
        self.busy = False  # not after an exception: the others are somewhere in the middle

    def orders(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the orders of rank 0, to the last one, which is `end` with a `code`."""
        name = ""
        while name != "end":
            name, values = json.loads(self._receive())
            yield name, values

    def _send(self, content: bytes) -> None:
        import torch

        frame = len(content).to_bytes(8, "little") + content
        first = torch.frombuffer(bytearray(frame[:_FRAME].ljust(_FRAME, b"\0")), dtype=torch.uint8)
        self.broadcast([first])
        if len(frame) > _FRAME:
            self.broadcast([torch.frombuffer(bytearray(frame[_FRAME:]), dtype=torch.uint8)])

    def _receive(self) -> bytes:
        import torch

        first = torch.zeros(_FRAME, dtype=torch.uint8)
        self.broadcast([first])
        frame = bytes(first.tolist())
        length = int.from_bytes(frame[:8], "little")
        if length > _FRAME - 8:
            rest = torch.zeros(length + 8 - _FRAME, dtype=torch.uint8)
            self.broadcast([rest])
            frame += bytes(rest.tolist())
        return frame[8 : 8 + length]

    def ask_to_stop(self, number: int) -> None:
        """Ask rank 0 to stop the job as for a signal of this number."""
        if self._watch is not None:
            self._watch.request(number)

    def leave(self, code: int, reason: str = "") -> None:
        """End the job: rank 0 orders it, the others have heard it; or, in the middle of an order, or with a reason on
        another rank, have the watch end it."""
        if self._watch is None:
            return
        if self.busy or self._watch.verdict or (reason and not self.main):
            self._watch.report(code, reason)
            return
        import torch.distributed as dist

        with self.ordered("end", code=code):
            self._watch.stop()
            _meet()  # rank 0 holds the store, which the watch of another rank may be reading
        dist.destroy_process_group()

    def explain(self, error: BaseException) -> NoReturn:
        """Raise what is behind an error: `UserError` naming the rank that has failed, else the error itself."""
        verdict = None if self._watch is None else self._watch.wait_for_verdict(error)
        if verdict is None:
            raise error
        raise Lost(verdict, self.rank) from None


def _meet() -> None:
    """Return when every rank has come; on processors, whatever the ranks compute on."""
    import torch
    import torch.distributed as dist

    dist.all_reduce(torch.zeros(1))


def together(method: Callable[P, R]) -> Callable[P, R]:
    """Have every rank call a method of its own object, which has a `world`, with the same arguments when rank 0 calls
    it."""
    own = signature(method)

    @wraps(method)
    def call(*args: P.args, **values: P.kwargs) -> R:
        (_, each), *given = own.bind(*args, **values).arguments.items()
        with each.world.ordered(method.__name__, **dict(given)):
            return method(*args, **values)

    return call


class Lost(UserError):
    """Another rank has failed or stopped, and with it this one.

    Attributes:
        code: the exit code of the job.
        said_here: whether this rank is the one that tells the user.
    """

    def __init__(self, verdict: Verdict, rank: int) -> None:
        super().__init__(verdict.message)
        self.code, self.said_here = verdict.code, verdict.said_by(rank)
