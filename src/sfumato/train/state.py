"""What a checkpoint must hold for a trainer, and how many images at once a device has memory for."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from sfumato.errors import UserError
from sfumato.generate.sample import free_cache, out_of_memory
from sfumato.train.shards import Shards

State = Mapping[str, Mapping[str, Tensor]]
"""Tensors by file (`raw`, `ema`, `optim`), then by name."""
_OPTIONAL = ("watch/", "scale/")
"""What a checkpoint may lack: it was written before, or in another precision."""


def matched(parts: State, state: State, shards: Shards) -> dict[str, dict[str, Tensor]]:
    """Return the whole tensors of a state that fill the parts of one; raises `UserError` where the tensors are of
    another network."""
    try:
        found = {
            kind: {
                name: shards.fitting(name, tensor, state[kind][name])
                for name, tensor in named.items()
                if not name.startswith(_OPTIONAL)
            }
            for kind, named in parts.items()
        }
        for kind in ("raw", "ema"):
            if extra := state[kind].keys() - found[kind].keys():
                raise KeyError(f"{kind}/{min(extra)}")
    except KeyError as error:
        raise UserError(f"the checkpoint is of another network: {' '.join(str(error).split())[:160]}") from None
    return found


def most_that_fit(images: int, gradient: Callable[[int], None], device: torch.device) -> int:
    """Halve a number of images until the gradient of so many fits into the device's memory, and return it; where not
    even one fits, raise what the device says."""
    while not _fits(images, gradient):
        free_cache(device)  # only after the exception and its frames are gone
        images = -(-images // 2)
    return images


def _fits(images: int, gradient: Callable[[int], None]) -> bool:
    """Whether a gradient of so many images can be computed."""
    try:
        gradient(images)
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error) or images == 1:
            raise
        return False
    return True
