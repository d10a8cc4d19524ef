"""Training: a generator of events that records its run, and what it is made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sfumato.lazy import lazy

if TYPE_CHECKING:
    from sfumato.train.loop import train
    from sfumato.train.plan import resolve_length

__all__ = ["resolve_length", "train"]

__getattr__, __dir__ = lazy(__name__, {"resolve_length": "plan", "train": "loop"})
