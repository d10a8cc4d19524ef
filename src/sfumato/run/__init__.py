"""The run folder: its names, its event log, and what can be read from them."""

from typing import TYPE_CHECKING

from sfumato.lazy import lazy

if TYPE_CHECKING:
    from sfumato.run.folder import Run as Run

__all__ = ["Run"]
__getattr__, __dir__ = lazy(__name__, {"Run": "folder"})
