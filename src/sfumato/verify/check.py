"""What a check is, and how one is run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch

__all__ = ["Check", "Examination", "Finding", "Setting", "Skipped", "examine", "largest"]


@dataclass(frozen=True)
class Setting:
    """Where and how to check.

    Attributes:
        device: the device that is checked.
        dtype: of the images in the mathematics; coefficients are float64, networks float32 always.
        compile: whether torch.compile is checked too, which takes most of a minute.
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

    def random(self, seed: int, *shape: int) -> torch.Tensor:
        """Return normal numbers from torch's own generator, on the device and in the dtype."""
        return self.tensor(torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))


@dataclass(frozen=True)
class Finding:
    """The result of an examination.

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


def largest(*errors: torch.Tensor | float) -> float:
    """Return the largest absolute value; NaN where there is one."""
    return float(torch.stack([torch.as_tensor(error, dtype=torch.float64).abs().max().cpu() for error in errors]).max())


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
    """Run examinations one after another and yield each outcome; one that ends in an exception has failed."""
    for name, examination in examinations.items():
        yield _one(name, examination, setting)


def _one(name: str, examination: Examination, setting: Setting) -> Check:
    start = time.monotonic()
    try:
        finding = examination(setting)
    except Skipped as skipped:
        return Check(name, "skipped", None, None, str(skipped), time.monotonic() - start)
    except Exception as error:
        message = f"it stopped with {type(error).__name__}: {' '.join(str(error).split())[:300]}"
        return Check(name, "failed", None, None, message, time.monotonic() - start)
    passed = finding.measured <= finding.limit
    sentence, seconds = finding.holds if passed else finding.harm, time.monotonic() - start
    return Check(name, "passed" if passed else "failed", finding.measured, finding.limit, sentence, seconds)
