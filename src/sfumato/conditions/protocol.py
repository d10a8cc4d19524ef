"""What a kind of condition must offer, so that training, guidance and sampling need not know what it is.

    Condition     a batch of what images should be, as a value (`sfumato.diffusion.condition`)
    Vocabulary    what can be asked for: its words, its embedding, how it is written into a weights file

Attributes (`table`) are one kind, a table with NaN for "not given". Another is one file that defines both values, and
one line in `registry`.
"""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

import torch
from torch import nn

from sfumato.diffusion.condition import Condition

__all__ = ["Vocabulary", "cycled"]

C = TypeVar("C", bound=Condition)


class Vocabulary(Protocol):
    """What a model's images can be asked for; a frozen value."""

    def embedding(self, width: int) -> nn.Module:
        """Return a new module: (Condition or None, number of images B) -> (B, width); None gives nothing to any."""
        ...

    def parse(self, text: str | None, complete: bool = False) -> Condition | None:
        """Return the conditions that words ask for, one row each, which images cycle through; None where `text` is
        None.

        Where `complete`, the model never saw anything left out, so everything must be given. Raises `UserError` for
        words that ask for nothing that is known, or too few of them.
        """
        ...

    def describe(self, condition: Any) -> list[str]:
        """Return each row of a condition of this kind in words that `parse` reads."""
        ...

    def every(self) -> Condition:
        """Return one row for each thing that can be asked for alone, as a grid of samples shows them."""
        ...

    def recode(self, condition: Condition | None, other: Vocabulary | None) -> Condition:
        """Return the conditions of another vocabulary as conditions of this one; raises `UserError` where they say
        something that this one doesn't know, or not all that it knows."""
        ...

    def plain(self) -> dict[str, Any]:
        """Return the vocabulary as JSON has it, its `kind` (a name of `registry.VOCABULARIES`) among the keys."""
        ...


def cycled(condition: C, num: int) -> C:
    """Return `num` rows: image i takes row i modulo the number of rows."""
    return condition.take(torch.arange(num) % len(condition))
