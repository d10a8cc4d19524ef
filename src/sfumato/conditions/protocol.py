"""The interface of a kind of condition, so that training, guidance and sampling work with any kind.

    Condition     the conditions of a batch, as a value (`sfumato.diffusion.condition`)
    Vocabulary    the possible conditions: their text, their embedding, their form in a weights file

Attributes (`table`) are one kind, a table with NaN for "not given". Another is one file that defines both values, and
one line in `registry`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import torch
from torch import nn

from sfumato.diffusion.condition import Condition

C = TypeVar("C", bound=Condition)


class Vocabulary(Protocol):
    """The conditions that a model was trained with; a frozen value."""

    def embedding(self, width: int) -> nn.Module:
        """Return a new module: (Condition or None, number of images B) -> (B, width); None is unconditional."""
        ...

    def parse(self, text: str | None, complete: bool = False) -> Condition | None:
        """Return the conditions that a text means, one row each, which images cycle through; None where `text` is None.

        Where `complete`, the model was trained without dropout of conditions, so everything must be given. Raises
        `UserError` for unknown words, or too few of them.
        """
        ...

    def describe(self, condition: Any) -> list[str]:
        """Return each row of a condition of this kind as text that `parse` reads."""
        ...

    def every(self) -> Condition:
        """Return one row for each condition that can be given alone, as a grid of samples shows them."""
        ...

    def recode(self, condition: Condition | None, other: Vocabulary | None) -> Condition:
        """Return the conditions of another vocabulary as conditions of this one; raises `UserError` where they have
        something that this one lacks, or lack something that it has."""
        ...

    def plain(self) -> dict[str, Any]:
        """Return the vocabulary as JSON has it, its `kind` (a name of `registry.VOCABULARIES`) among the keys."""
        ...


def common(vocabulary: Vocabulary | None) -> Condition | None:
    """Return rows as training images have them, for samples of which nothing is asked: the `common()` of a kind that
    keeps some; None elsewhere."""
    own: Callable[[], Condition | None] | None = getattr(vocabulary, "common", None)
    return own() if own is not None else None


def cycled(condition: C, num: int) -> C:
    """Return `num` rows: image i takes row i modulo the number of rows."""
    return condition.take(torch.arange(num) % len(condition))
