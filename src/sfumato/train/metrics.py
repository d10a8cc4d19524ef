"""Metrics of a step, and their sums over steps, kept on the device: reading a number makes Python wait for a GPU."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.diffusion import Terms
from sfumato.run.events import NUM_BUCKETS, Buckets


@dataclass(frozen=True)
class StepMetrics:
    """Metrics of a step, still on the device.

    Attributes:
        terms: the loss of each example and its t; weighted where t is not uniform, so that the mean is unbiased.
        grad_norm: () before clipping.
        applied: () 1, or 0 where loss or gradient was not finite and nothing changed.
        lr: learning rate.
    """

    terms: Terms
    grad_norm: Tensor
    applied: Tensor
    lr: float


@dataclass(frozen=True)
class Totals:
    """Sums over the steps since a meter was last read: steps taken, steps applied, the losses and mean gradient norm of
    the applied ones; `in_a_row` counts the steps skipped since the last applied one, across readings."""

    steps: int
    applied: int
    buckets: Buckets
    grad_norm: float
    in_a_row: int


class Meter:
    """Sums on a device, where the steps happen."""

    def __init__(self, device: torch.device) -> None:
        self._steps = 0
        self._loss, self._count = (torch.zeros(NUM_BUCKETS, dtype=torch.float64, device=device) for _ in range(2))
        self._norm, self._applied, self._in_a_row = (
            torch.zeros((), dtype=torch.float64, device=device) for _ in range(3)
        )

    def add(self, metrics: StepMetrics) -> None:
        """Add a step; loss and norm count only where it was applied."""
        applied = metrics.applied.double()
        self._steps += 1
        _add_losses(self._loss, self._count, metrics.terms, applied)
        self._norm += _finite(metrics.grad_norm) * applied
        self._applied += applied
        self._in_a_row = (self._in_a_row + 1) * (1 - applied)

    def read(self) -> Totals:
        """Fetch the sums, which waits for the device once, and start again from zero."""
        scalars = torch.stack([self._applied, self._norm, self._in_a_row])
        values = torch.cat([self._loss, self._count, scalars]).tolist()
        applied, norm, in_a_row = values[2 * NUM_BUCKETS :]
        steps, self._steps = self._steps, 0
        for tensor in (self._loss, self._count, self._norm, self._applied):
            tensor.zero_()
        return Totals(steps, int(applied), _buckets(values), norm / applied if applied else 0.0, int(in_a_row))


def by_level(terms: Terms) -> Buckets:
    """Return the losses of some examples by noise level."""
    loss, count = torch.zeros(2, NUM_BUCKETS, dtype=torch.float64, device=terms.loss.device)
    _add_losses(loss, count, terms, torch.ones((), dtype=torch.float64, device=terms.loss.device))
    return _buckets(torch.cat([loss, count]).tolist())


def _add_losses(loss: Tensor, count: Tensor, terms: Terms, weight: Tensor) -> None:
    """Add the losses of examples, each to the bucket of (0, 1] that its t lies in."""
    bucket = ((terms.t.to(loss.device) * NUM_BUCKETS).ceil().long() - 1).clamp(0, NUM_BUCKETS - 1)
    loss.index_add_(0, bucket, _finite(terms.loss) * weight)
    count.index_add_(0, bucket, weight.expand(len(bucket)).contiguous())


def _buckets(values: list[float]) -> Buckets:
    return Buckets(tuple(values[:NUM_BUCKETS]), tuple(map(int, values[NUM_BUCKETS : 2 * NUM_BUCKETS])))


def _finite(x: Tensor) -> Tensor:
    """In float64, with 0 for what is not finite: times zero it would not vanish."""
    return x.double().nan_to_num(0.0, 0.0, 0.0)
