"""The attributes that a model knows, as a vocabulary: their words, their embedding, their plain form."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sfumato.conditions import attributes as words
from sfumato.conditions.attributes import Attribute
from sfumato.conditions.embedding import AttributeEmbedding
from sfumato.conditions.table import Attributes
from sfumato.errors import UserError

__all__ = ["AttributeVocabulary"]


@dataclass(frozen=True)
class AttributeVocabulary:
    """The attributes that a model knows; satisfies `Vocabulary`.

    Attributes:
        attributes: at least one, in the order of the table's columns.
    """

    attributes: tuple[Attribute, ...]

    def embedding(self, width: int) -> nn.Module:
        """Return the sum of one vector an attribute."""
        return AttributeEmbedding([len(attribute.values) for attribute in self.attributes], width)

    def parse(self, text: str | None, complete: bool = False) -> Attributes | None:
        """Return the rows that words ask for (`attributes` has the spellings).

        A complete condition of a single attribute cycles through its values where no words are given.
        """
        if text is None and complete and len(self.attributes) == 1:
            return self.every()
        rows = None if text is None else words.rows(self.attributes, text)
        if complete and (rows is None or any(map(math.isnan, rows[0]))):
            given = ",".join(f"{attribute.name}={attribute.text(attribute.every[0])}" for attribute in self.attributes)
            raise UserError(
                f"this model was trained with label_dropout 0, so all attributes must be given, such as {given}"
            )
        return None if rows is None else self.rows(rows)

    def describe(self, condition: Attributes) -> list[str]:  # type: ignore[override]
        """Return each row in words, `glasses=dark,age=53`."""
        return [words.describe(self.attributes, row) for row in condition.table.tolist()]

    def every(self) -> Attributes:
        """Return one row for each value of each attribute, the others not given."""
        return self.rows(words.every_value(self.attributes))

    def absent(self, num: int) -> Attributes:
        """Return rows of NaN."""
        return Attributes(torch.full((num, len(self.attributes)), math.nan))

    def rows(self, rows: Tensor | Sequence[Sequence[float]]) -> Attributes:
        """Return rows of numbers as a condition.

        Raises:
            UserError: another number of columns, no row, or a number that stands for no value.
        """
        table = torch.as_tensor(rows, dtype=torch.float32)
        if table.ndim != 2 or not len(table) or table.shape[1] != len(self.attributes):
            raise UserError(f"conditions of shape {tuple(table.shape)}: give rows of {len(self.attributes)} numbers")
        for column, attribute in zip(table.T, self.attributes, strict=True):
            given, count = column[~column.isnan()], len(attribute.values)
            if count and not set(given.tolist()) <= set(range(count)):
                raise UserError(f"{attribute.name} has {count} values: give 0 to {count - 1}, or NaN for not given")
            if not bool(given.isfinite().all()):
                raise UserError(f"{attribute.name} is not finite: give numbers, or NaN for not given")
        return Attributes(table)

    def plain(self) -> dict[str, Any]:
        """Return the attributes as JSON has them."""
        return {"kind": "attributes", "attributes": [words.plain(attribute) for attribute in self.attributes]}

    @classmethod
    def from_plain(cls, table: Mapping[str, Any]) -> AttributeVocabulary:
        """Return what `plain` wrote; raises ValueError, KeyError or TypeError where it did not."""
        return cls(tuple(words.from_plain(attribute) for attribute in table["attributes"]))
