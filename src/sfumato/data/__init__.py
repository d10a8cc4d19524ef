"""Images: sources, checking, the decoded store, and batches as functions of position.

The names below are loaded on first use, so that listing the sources doesn't import torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sfumato.config.data import DataConfig
from sfumato.lazy import lazy

if TYPE_CHECKING:
    from sfumato.data.dataset import Batch, Dataset, open_data
    from sfumato.data.sources.arrays import from_arrays, from_dataset
    from sfumato.data.sources.builtin import BUILTIN, describe_sources
    from sfumato.data.sources.opening import open_source
    from sfumato.data.sources.protocol import Picture, Source, Unreadable
    from sfumato.data.sources.tables import from_huggingface

__all__ = [
    "BUILTIN", "Batch", "DataConfig", "Dataset", "Picture", "Source", "Unreadable", "describe_sources",
    "from_arrays", "from_dataset", "from_huggingface", "open_data", "open_source",
]  # fmt: skip
__getattr__, __dir__ = lazy(__name__, __file__)
