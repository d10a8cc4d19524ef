"""Does the mathematics hold on this machine? Every claim with a closed form, measured against it.

A library can be right where it was written and wrong where it runs: another version of torch, a device with other
rounding, a compiler, an edit of one's own. Each examination here computes something that is known by another way, with
the code that trains, samples and scores, and compares. `EXAMINATIONS` names them all; `sfumato verify` runs them.
"""

from __future__ import annotations

from collections.abc import Iterator

import sfumato.verify.network as network
import sfumato.verify.process as process
import sfumato.verify.randomness as randomness
import sfumato.verify.sampling as sampling
import sfumato.verify.scoring as scoring
from sfumato.verify.check import Check, Examination, Finding, Setting, Skipped, examine

__all__ = ["Check", "Examination", "Finding", "Setting", "Skipped", "examinations", "examine", "verify"]


def examinations() -> dict[str, Examination]:
    """Return every examination by name, in the order of the way from noise to network."""
    rooms = (randomness, process, sampling, scoring, network)
    return {name: examination for room in rooms for name, examination in room.examinations().items()}


def verify(setting: Setting) -> Iterator[Check]:
    """Run every examination and yield each outcome as it is known.

    Args:
        setting: the device, the dtype, and whether to check torch.compile.
    """
    return examine(examinations(), setting)
