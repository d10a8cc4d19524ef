"""Sums over steps, kept on the device, so that Python asks for them seldom and together.

Reading one number from a GPU makes it finish all it was given and stand still until Python has given it more. So a step
adds its losses by noise level, its gradient's norm and whether it was applied to tensors there, and one transfer
fetches them all when a report is due.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.diffusion import Terms
from sfumato.run.events import NUM_BUCKETS, Buckets
from sfumato.train.trainer import Outcome

__all__ = ["Meter", "Reading", "summed"]


@dataclass(frozen=True)
class Reading:
    """What a meter has summed since it was last read.

    Attributes:
        steps: steps taken.
        applied: how many of them were applied.
        buckets: the losses of those.
        norm: mean of their gradients' norms; 0 where there are none.
        in_a_row: steps not applied since the last one that was, from before this reading too.
    """

    steps: int
    applied: int
    buckets: Buckets
    norm: float
    in_a_row: int


class Meter:
    """Sums on a device.

    Args:
        device: where the steps happen.
    """

    def __init__(self, device: torch.device) -> None:
        self._steps = 0
        self._loss, self._count = (torch.zeros(NUM_BUCKETS, dtype=torch.float64, device=device) for _ in range(2))
        self._norm, self._applied, self._in_a_row = (
            torch.zeros((), dtype=torch.float64, device=device) for _ in range(3)
        )

    def add(self, outcome: Outcome) -> None:
        """Add a step; one that was not applied leaves no loss and no norm behind."""
        applied = outcome.applied.double()
        self._steps += 1
        self._losses(outcome.terms, applied)
        self._norm += _finite(outcome.grad_norm) * applied
        self._applied += applied
        self._in_a_row = (self._in_a_row + 1) * (1 - applied)

    def _losses(self, terms: Terms, weight: Tensor) -> None:
        """Add the losses of examples, each to the part of (0, 1] that its t lies in."""
        device = self._loss.device
        part = ((terms.t.to(device) * NUM_BUCKETS).ceil().long() - 1).clamp(0, NUM_BUCKETS - 1)
        self._loss.index_add_(0, part, _finite(terms.loss) * weight)
        self._count.index_add_(0, part, weight.expand(len(part)).contiguous())

    def read(self) -> Reading:
        """Fetch the sums, the one wait for the device, and start anew."""
        scalars = torch.stack([self._applied, self._norm, self._in_a_row])
        values = torch.cat([self._loss, self._count, scalars]).tolist()
        total, count = values[:NUM_BUCKETS], values[NUM_BUCKETS : 2 * NUM_BUCKETS]
        applied, norm, in_a_row = values[2 * NUM_BUCKETS :]
        steps, self._steps = self._steps, 0
        for tensor in (self._loss, self._count, self._norm, self._applied):
            tensor.zero_()
        buckets = Buckets(tuple(total), tuple(map(int, count)))
        return Reading(steps, int(applied), buckets, norm / applied if applied else 0.0, int(in_a_row))


def _finite(x: Tensor) -> Tensor:
    """In float64, with 0 for what is not finite: times zero it would not vanish."""
    return x.double().nan_to_num(0.0, 0.0, 0.0)


def summed(terms: Terms) -> Buckets:
    """Return the losses of some examples by noise level."""
    meter = Meter(terms.loss.device)
    meter._losses(terms, torch.ones((), dtype=torch.float64, device=terms.loss.device))
    return meter.read().buckets
