"""Metrics of a step, and their sums over steps, kept on the device: reading a number makes Python wait for a GPU."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from sfumato.diffusion import Terms
from sfumato.diffusion.level import exact_device
from sfumato.run.events import NUM_BUCKETS, Buckets


@dataclass(frozen=True)
class StepMetrics:
    """Metrics of a step, still on the device.

    Attributes:
        terms: the loss of each example and its t (on the CPU where the device has no float64); weighted where t is
            not uniform, so that the mean is unbiased.
        grad_norm: () before clipping.
        applied: () 1, or 0 where loss or gradient was not finite and nothing changed.
        lr: learning rate.
        norms: (P,) the gradient's norm of each weight, in the network's order.
        forgiven: () 1 where nothing changed only because float16's loss scale was too great.
    """

    terms: Terms
    grad_norm: Tensor
    applied: Tensor
    lr: float
    norms: Tensor = torch.zeros(0)
    forgiven: Tensor = torch.zeros(())


@dataclass(frozen=True)
class Trouble:
    """The last step that was skipped.

    Attributes:
        step: its number, from 1.
        weight: index of the last weight, in the network's order, whose gradient was not finite: the first one that the
            backward pass came to; -1 where all were.
        losses: of each example, NaN where it was not finite.
        t: of each example.
    """

    step: int
    weight: int
    losses: tuple[float, ...]
    t: tuple[float, ...]


@dataclass(frozen=True)
class Totals:
    """Sums over the steps since a meter was last read: steps taken, applied, skipped by a fault; the losses and mean
    gradient norm of the applied ones. `in_a_row` counts the faults since the last applied one, across readings;
    `trouble` is the last fault."""

    steps: int
    applied: int
    faults: int
    buckets: Buckets
    grad_norm: float
    in_a_row: int
    trouble: Trouble | None


class Meter:
    """Sums on a device, where the steps happen."""

    def __init__(self, device: torch.device) -> None:
        self._steps = 0
        self._device, self._dtype = device, wide(device)
        self._loss, self._count = (self._zeros(NUM_BUCKETS) for _ in range(2))
        self._norm, self._applied, self._faults, self._in_a_row = (self._zeros() for _ in range(4))
        self._trouble: Tensor | None = None

    def _zeros(self, *shape: int) -> Tensor:
        return torch.zeros(shape, dtype=self._dtype, device=self._device)

    def add(self, metrics: StepMetrics, step: int = 0) -> None:
        """Add the step of a number; loss and norm count only where it was applied."""
        applied = metrics.applied.to(self._dtype)
        fault = (1 - applied) * (1 - metrics.forgiven.to(self._dtype))
        self._steps += 1
        _add_losses(self._loss, self._count, metrics.terms, applied)
        self._norm += _finite(metrics.grad_norm, self._dtype) * applied
        self._applied += applied
        self._faults += fault
        self._in_a_row = (self._in_a_row + fault) * (1 - applied)
        self._note(metrics, step, fault)

    def _note(self, metrics: StepMetrics, step: int, fault: Tensor) -> None:
        """Keep what a fault was, without asking the device whether there is one."""
        order = torch.arange(len(metrics.norms) + 1, device=self._device, dtype=self._dtype)
        bad = ~torch.cat([metrics.norms.new_zeros(1), metrics.norms]).isfinite()
        weight = (order * bad.to(self._device)).max() - 1
        numbers = torch.stack([torch.full_like(weight, step), weight])
        losses = metrics.terms.loss.to(self._dtype)
        new = torch.cat([numbers, losses, metrics.terms.t.to(self._device, self._dtype)])
        old = torch.zeros_like(new) if self._trouble is None else self._trouble
        self._trouble = torch.where(fault > 0, new, old)

    def read(self) -> Totals:
        """Fetch the sums, which waits for the device once, and start again from zero."""
        scalars = torch.stack([self._applied, self._norm, self._faults, self._in_a_row])
        values = torch.cat([self._loss, self._count, scalars]).tolist()
        applied, norm, faults, in_a_row = values[2 * NUM_BUCKETS :]
        steps, self._steps = self._steps, 0
        for tensor in (self._loss, self._count, self._norm, self._applied, self._faults):
            tensor.zero_()
        mean = norm / applied if applied else 0.0
        trouble = self._read_trouble() if faults else None
        return Totals(steps, int(applied), int(faults), _buckets(values), mean, int(in_a_row), trouble)

    def _read_trouble(self) -> Trouble:
        assert self._trouble is not None
        step, weight, *rest = self._trouble.tolist()
        half = len(rest) // 2
        return Trouble(int(step), int(weight), tuple(rest[:half]), tuple(rest[half:]))


def wide(device: torch.device) -> torch.dtype:
    """Return the widest type that a device computes in."""
    return torch.float32 if device.type == "mps" else torch.float64


def memory_in_use(device: torch.device) -> int:
    """Return the bytes that are in use: the most on a GPU so far, else of this process; 0 where unknown."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    try:
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def by_level(terms: Terms) -> Buckets:
    """Return the losses of some examples by noise level."""
    terms = Terms(terms.loss.cpu(), terms.t.cpu())
    loss, count = torch.zeros(2, NUM_BUCKETS, dtype=torch.float64)
    _add_losses(loss, count, terms, torch.ones((), dtype=torch.float64))
    return _buckets(torch.cat([loss, count]).tolist())


def _add_losses(loss: Tensor, count: Tensor, terms: Terms, weight: Tensor) -> None:
    """Add the losses of examples, each to the bucket of (0, 1] that its t lies in."""
    t = terms.t.to(exact_device(loss.device))
    bucket = ((t * NUM_BUCKETS).ceil().long() - 1).clamp(0, NUM_BUCKETS - 1).to(loss.device)
    loss.index_add_(0, bucket, _finite(terms.loss, loss.dtype) * weight)
    count.index_add_(0, bucket, weight.expand(len(bucket)).contiguous())


def _buckets(values: list[float]) -> Buckets:
    return Buckets(tuple(values[:NUM_BUCKETS]), tuple(map(int, values[NUM_BUCKETS : 2 * NUM_BUCKETS])))


def _finite(x: Tensor, dtype: torch.dtype) -> Tensor:
    """In a type, with 0 for what is not finite: times zero it would not vanish."""
    return x.to(dtype).nan_to_num(0.0, 0.0, 0.0)
