"""Check the mathematics on this machine: every claim with a closed form is measured against it.

A library can be right where it was written and wrong where it runs: another version of torch, a device with other
rounding, a compiler, a local edit. Each examination runs the code that trains, samples and scores on a case with a
known answer, and compares. `sfumato verify` runs them all.
"""

from __future__ import annotations

from collections.abc import Iterator

from sfumato.verify import network, process, sampling, scoring
from sfumato.verify.check import Check, Examination, Finding, Setting, Skipped, examine

__all__ = ["Check", "Examination", "Finding", "Setting", "Skipped", "examinations", "examine", "verify"]


def examinations() -> dict[str, Examination]:
    """Return every examination by name, from noise to network."""
    return {n: e for part in (process, sampling, scoring, network) for n, e in part.EXAMINATIONS.items()}


def verify(setting: Setting) -> Iterator[Check]:
    """Run every examination and yield each outcome."""
    return examine(examinations(), setting)
