"""Checks, and how they are run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch


@dataclass(frozen=True)
class Setting:
    """The device, the dtype of images (coefficients are float64, networks float32), and whether to check
    torch.compile."""

    device: torch.device
    dtype: torch.dtype = torch.float64
    compile: bool = False

    def tensor(self, values: object) -> torch.Tensor:
        """Return numbers or a tensor on the device and in the dtype."""
        return torch.as_tensor(values, dtype=torch.float64).to(self.device, self.dtype)

    def random(self, seed: int, *shape: int) -> torch.Tensor:
        """Return normal numbers from torch's own generator, on the device and in the dtype."""
        return self.tensor(torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))


@dataclass(frozen=True)
class Finding:
    """The error that an examination measured, the greatest with which it passes, and sentences without a full stop: the
    claim if it passes, the consequence if it fails."""

    measured: float
    limit: float
    holds: str
    harm: str


class Skipped(Exception):
    """Raised by an examination that does not apply in this setting; the message says why."""


Examination = Callable[[Setting], Finding]
Errors = Sequence[torch.Tensor | float]
Measure = Callable[[Setting], Errors]
Limit = float | tuple[float, float] | Callable[[Setting], float]
"""The greatest error with which a check passes; a pair is for float64 and float32."""


class Examinations(dict[str, Examination]):
    """Examinations by name, in the order in which they are defined."""

    def add(self, name: str, limit: Limit, holds: str, harm: str) -> Callable[[Measure], Measure]:
        """Register a function that returns errors, none of which may exceed the limit."""

        def register(measure: Measure) -> Measure:
            def examine(setting: Setting) -> Finding:
                errors = [torch.as_tensor(error, dtype=torch.float64).abs().max().cpu() for error in measure(setting)]
                pair = limit(setting) if callable(limit) else limit
                at_most = pair if isinstance(pair, float) else pair[setting.dtype != torch.float64]
                return Finding(float(torch.stack(errors).max()), at_most, holds, harm)

            self[name] = examine
            return measure

        return register


@dataclass(frozen=True)
class Check:
    """An examination's outcome; the sentence is the claim, the consequence of its failure, or why it was skipped."""

    name: str
    outcome: Literal["passed", "failed", "skipped"]
    measured: float | None
    limit: float | None
    sentence: str
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether it passed or was skipped."""
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
