"""Training: a generator of events, its clock, average, optimiser, plan and checkpoints.

`train` and `settle` are loaded when they are first used: the parts of a configuration live in this package, and a
configuration must not need the loop.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .loop import train
    from .plan import settle

__all__ = ["settle", "train"]

_HOMES = {"settle": "plan", "train": "loop"}


def __getattr__(name: str) -> Any:
    """Load a public name from its module (PEP 562)."""
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
