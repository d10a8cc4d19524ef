"""Images: sources, checking, the decoded store, and batches as functions of position.

The names below are loaded when they are first used, so that listing the sources doesn't import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .builtin import BUILTIN, describe_sources
    from .dataset import Batch, Dataset, open_data
    from .memory import from_arrays, from_dataset
    from .opening import open_source
    from .pixels import to_bytes, to_model
    from .source import DataConfig, Picture, Source, Unreadable
    from .tables import from_huggingface

_HOMES = {
    "BUILTIN": "builtin",
    "Batch": "dataset",
    "DataConfig": "source",
    "Dataset": "dataset",
    "Picture": "source",
    "Source": "source",
    "Unreadable": "source",
    "describe_sources": "builtin",
    "from_arrays": "memory",
    "from_dataset": "memory",
    "from_huggingface": "tables",
    "open_data": "dataset",
    "open_source": "opening",
    "to_bytes": "pixels",
    "to_model": "pixels",
}

__all__ = [
    "BUILTIN",
    "Batch",
    "DataConfig",
    "Dataset",
    "Picture",
    "Source",
    "Unreadable",
    "describe_sources",
    "from_arrays",
    "from_dataset",
    "from_huggingface",
    "open_data",
    "open_source",
    "to_bytes",
    "to_model",
]


def __getattr__(name: str) -> Any:
    """Load a public name from its module (PEP 562)."""
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
