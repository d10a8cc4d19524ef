"""What a check is, and how one is run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch

__all__ = ["Check", "Examination", "Finding", "Setting", "Skipped", "examine"]


@dataclass(frozen=True)
class Setting:
    """Where and how to check.

    Attributes:
        device: the device that is examined.
        dtype: of the images in the mathematics (coefficients are float64 always); networks are checked in float32.
        compile: whether torch.compile is checked too, which costs most of a minute.
    """

    device: torch.device
    dtype: torch.dtype = torch.float64
    compile: bool = False

    def limit(self, double: float, single: float) -> float:
        """Return the limit that goes with the dtype."""
        return double if self.dtype == torch.float64 else single

    def tensor(self, values: object) -> torch.Tensor:
        """Return numbers or a tensor on the device and in the dtype."""
        return torch.as_tensor(values, dtype=torch.float64).to(self.device, self.dtype)


@dataclass(frozen=True)
class Finding:
    """What an examination found.

    Attributes:
        measured: an error, at least 0 and best 0.
        limit: the greatest error with which the check passes.
        holds: what is true if it passes, in a sentence without its full stop.
        harm: what it means for the user if it does not.
    """

    measured: float
    limit: float
    holds: str
    harm: str


class Skipped(Exception):
    """Raised by an examination that means nothing in this setting; the message says why."""


Examination = Callable[[Setting], Finding]


@dataclass(frozen=True)
class Check:
    """An examination's outcome.

    Attributes:
        name: of the check.
        outcome: passed, failed, or skipped.
        measured: the error; None where none was measured.
        limit: the greatest error that passes.
        sentence: what holds, what its failure means for the user, or why it was skipped.
        seconds: how long it took.
    """

    name: str
    outcome: Literal["passed", "failed", "skipped"]
    measured: float | None
    limit: float | None
    sentence: str
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong: passed or skipped."""
        return self.outcome != "failed"


def examine(examinations: Mapping[str, Examination], setting: Setting) -> Iterator[Check]:
    """Run examinations one after another and yield each outcome as it is known.

    One that ends in an exception has failed: whatever it would have measured can't be had on this machine.

    Args:
        examinations: by name.
        setting: where and how.

    Yields:
        One check for each, in order.
    """
    for name, examination in examinations.items():
        yield _one(name, examination, setting)


def _one(name: str, examination: Examination, setting: Setting) -> Check:
    start = time.monotonic()
    try:
        found = examination(setting)
    except Skipped as skipped:
        return Check(name, "skipped", None, None, str(skipped), time.monotonic() - start)
    except Exception as error:
        said = f"it stopped with {type(error).__name__}: {' '.join(str(error).split())[:300]}"
        return Check(name, "failed", None, None, said, time.monotonic() - start)
    seconds = time.monotonic() - start
    if found.measured <= found.limit:
        return Check(name, "passed", found.measured, found.limit, found.holds, seconds)
    return Check(name, "failed", found.measured, found.limit, found.harm, seconds)
