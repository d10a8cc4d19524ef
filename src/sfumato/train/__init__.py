"""Training: a generator of events, its clock, average, optimiser, plan and checkpoints.

`train` and `settle` are loaded when they are first used: the parts of a configuration live in this package, and a
configuration must not need the loop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sfumato.lazy import lazy

if TYPE_CHECKING:
    from sfumato.train.loop import train
    from sfumato.train.plan import settle

__all__ = ["settle", "train"]

__getattr__, __dir__ = lazy(__name__, {"settle": "plan", "train": "loop"})
