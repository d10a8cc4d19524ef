"""The run folder: its files, its event log, and summaries of them."""

from typing import TYPE_CHECKING

from sfumato.lazy import lazy

if TYPE_CHECKING:
    from sfumato.run.folder import Run as Run

__all__ = ["Run"]
__getattr__, __dir__ = lazy(__name__, {"Run": "folder"})
