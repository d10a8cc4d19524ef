"""What a batch of images should be, as a value: labels, text, boxes, anything a network was trained to follow.

This package hands conditions on and never looks inside. Guidance needs the unconditional counterpart, and the flow's
solver some rows of a batch; the trainer drops conditions at random, so that one network learns the unconditional
distribution too.
"""

from __future__ import annotations

from typing import Protocol, Self

import torch
from torch import Tensor


class Condition(Protocol):
    """A batch of conditions, one row an image; implementations are frozen values."""

    def __len__(self) -> int:
        """Return B."""

    def take(self, index: Tensor) -> Self:
        """Return the rows at `index`, (n,) int64."""

    def to(self, device: torch.device | str) -> Self:
        """Return the condition on a device."""

    def absent(self) -> Self:
        """Return a batch of the same length in which every row is unconditional."""

    def cat(self, other: Self) -> Self:
        """Return this batch followed by another of the same kind."""

    @property
    def num_uniforms(self) -> int:
        """How many uniform numbers a row needs for `dropped`."""

    def dropped(self, u: Tensor, probability: float) -> Self:
        """Return the condition with rows left out with a probability, by u (B, num_uniforms) uniform in [0, 1).

        Parts of the other rows may be left out too.
        """
