"""Training: a generator of events, its clock, average, optimiser, plan and checkpoints.

`train` is loaded when it is first used: the parts of a configuration live in this package, and a configuration must not
need the loop.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .loop import train

__all__ = ["train"]


def __getattr__(name: str) -> Any:
    """Load a public name from the loop (PEP 562)."""
    if name in __all__:
        return getattr(import_module(f"{__name__}.loop"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
