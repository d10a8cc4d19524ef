"""The vocabulary of attributes: their text, their embedding, their plain form."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from sfumato.conditions import attributes as words
from sfumato.conditions.attributes import Attribute
from sfumato.conditions.embedding import AttributeEmbedding
from sfumato.conditions.protocol import Vocabulary
from sfumato.conditions.table import Attributes
from sfumato.diffusion.condition import Condition
from sfumato.errors import UserError

MOST_USUAL = 256
"""Rows of the training images that a vocabulary keeps at most; fewer where they are long."""
_MOST_NUMBERS = 8192


@dataclass(frozen=True)
class AttributeVocabulary:
    """The attributes of a model, at least one, in the order of the table's columns; satisfies `Vocabulary`.

    Attributes:
        attributes: the attributes.
        usual: rows of training images, drawn at random: what samples are conditioned on when nothing is asked for. ()
            is nothing, as in files that have none. Vocabularies that differ in it alone are equal.
    """

    attributes: tuple[Attribute, ...]
    usual: tuple[tuple[float, ...], ...] = field(default=(), compare=False, repr=False)

    @classmethod
    def of(cls, attributes: Sequence[Attribute], conditions: Tensor) -> AttributeVocabulary:
        """Return the vocabulary of attributes, with some rows of the training images' conditions (N, A); an image of
        which nothing is given has no part in them."""
        rows = conditions[~conditions.isnan().all(1)]
        count = max(1, min(MOST_USUAL, _MOST_NUMBERS // max(1, len(attributes))))
        chosen = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[:count]
        return cls(tuple(attributes), tuple(tuple(row) for row in rows[chosen].tolist()))

    def embedding(self, width: int) -> nn.Module:
        """Return the sum of one vector an attribute."""
        return AttributeEmbedding([len(attribute.values) for attribute in self.attributes], width)

    def parse(self, text: str | None, complete: bool = False) -> Attributes | None:
        """Return the rows that a text means (`attributes` has the syntax).

        For a single attribute, `complete` without a text cycles through its values.
        """
        if text is None and complete and len(self.attributes) == 1:
            return self.every()
        rows = None if text is None else words.rows(self.attributes, text)
        if complete and (rows is None or any(map(math.isnan, rows[0]))):
            example = ",".join(
                f"{attribute.name}={attribute.text(attribute.every[0])}" for attribute in self.attributes
            )
            raise UserError(
                f"this model was trained with label_dropout 0, so all attributes must be given, such as {example}"
            )
        return None if rows is None else self.rows(rows)

    def common(self) -> Attributes | None:
        """Return the rows of training images, None where there are none."""
        return self.rows(self.usual) if self.usual else None

    def describe(self, condition: Attributes) -> list[str]:
        """Return each row as text, `glasses=dark,age=53`."""
        return [words.describe(self.attributes, row) for row in condition.table.tolist()]

    def every(self) -> Attributes:
        """Return one row for each value of each attribute, the others not given."""
        return self.rows(words.every_value(self.attributes))

    def rows(self, rows: Tensor | Sequence[Sequence[float]]) -> Attributes:
        """Return rows of numbers as a condition; raises `UserError` for another number of columns, no row, or a number
        that is not the index of a value."""
        table = torch.as_tensor(rows, dtype=torch.float32)
        if table.ndim != 2 or not len(table) or table.shape[1] != len(self.attributes):
            raise UserError(f"conditions of shape {tuple(table.shape)}: give rows of {len(self.attributes)} numbers")
        for column, attribute in zip(table.T, self.attributes, strict=True):
            numbers, count = column[~column.isnan()], len(attribute.values)
            if count and not set(numbers.tolist()) <= set(range(count)):
                raise UserError(f"{attribute.name} has {count} values: give 0 to {count - 1}, or NaN for not given")
            if not bool(numbers.isfinite().all()):
                raise UserError(f"{attribute.name} is not finite: give numbers, or NaN for not given")
        return Attributes(table)

    def recode(self, condition: Condition | None, other: Vocabulary | None) -> Attributes:
        """Return rows of other attributes as rows of these: values are matched by name, numbers by their unit."""
        others: tuple[Attribute, ...] = other.attributes if isinstance(other, AttributeVocabulary) else ()
        table = condition.table if isinstance(condition, Attributes) else torch.empty(0, 0)
        theirs = {there.name: (there, column) for there, column in zip(others, table.T, strict=True)}
        columns = []
        for attribute in self.attributes:
            if attribute.name not in theirs or bool(theirs[attribute.name][0].values) != bool(attribute.values):
                choices = _some(own.name for own in self.attributes)
                raise UserError(f"they have {_some(theirs)}, and the model has {choices}")
            there, column = theirs[attribute.name]
            if unknown := [value for value in there.values if value not in attribute.values]:
                choices = _some(attribute.values)
                raise UserError(f"they have {attribute.name} = {_some(unknown)}, and the model has {choices}")
            if there.values:
                positions = torch.tensor([attribute.values.index(value) for value in there.values], dtype=torch.float32)
                columns.append(column.where(column.isnan(), positions[column.nan_to_num().long()]))
            else:
                columns.append((there.mean + there.std * column - attribute.mean) / attribute.std)
        return Attributes(torch.stack(columns, 1))

    def plain(self) -> dict[str, Any]:
        """Return the attributes, and the usual rows, as JSON has them: null is not given."""
        plain = {"kind": "attributes", "attributes": [words.plain(attribute) for attribute in self.attributes]}
        usual = [[_number(value) for value in row] for row in self.usual]
        return plain | ({"usual": usual} if usual else {})

    @classmethod
    def from_plain(cls, table: Mapping[str, Any]) -> AttributeVocabulary:
        """Return what `plain` wrote; raises ValueError, KeyError or TypeError where it did not."""
        own = cls(tuple(words.from_plain(attribute) for attribute in table["attributes"]))
        usual = tuple(tuple(math.nan if x is None else float(x) for x in row) for row in table.get("usual", ()))
        if len(usual) > MOST_USUAL:
            raise ValueError(f"{len(usual):,} usual conditions")
        if usual:
            try:
                own.rows(usual)
            except UserError as error:
                raise ValueError(str(error)) from None
        return cls(own.attributes, usual)


def _number(value: float) -> float | None:
    """An index as a whole number, another number to four digits after the point, NaN as null."""
    if math.isnan(value):
        return None
    return int(value) if value == int(value) else round(value, 4)


def _some(names: Iterable[str]) -> str:
    """The first few names."""
    listed = list(names)
    return ", ".join(listed[:4]) + ", ..." * (len(listed) > 4) or "none"
