"""`--label`: words for what images should be, as `sfumato.attributes` spells them, made conditions of a model."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from sfumato.conditions.attributes import describe
from sfumato.conditions.attributes import rows as turns
from sfumato.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from sfumato.model import Model

__all__ = ["asked", "in_words"]

Rows = list[list[float]]


def asked(model: Model, label: str | None) -> Rows | None:
    """Return the conditions that images take in turn (`generate.in_turn`), or None where nothing is asked for.

    A model that was always shown its labels can't draw without one: of a single attribute it takes all values in turn,
    of several each must be given.

    Args:
        model: to draw with.
        label: the words, or None.

    Raises:
        UserError: as `turns`, or an attribute is missing that the model always knew.
    """
    attributes = model.attributes
    always = bool(attributes) and model.config.train.label_dropout == 0
    if label is None and always and len(attributes) == 1:
        return [[number] for number in attributes[0].every]
    rows = None if label is None else turns(attributes, label)
    if always and (rows is None or any(map(math.isnan, rows[0]))):
        given = ",".join(f"{attribute.name}={attribute.text(attribute.every[0])}" for attribute in attributes)
        raise UserError(
            f"this model was trained with label_dropout 0, so all attributes must be given: --label {given}"
        )
    return rows


def in_words(model: Model, conditions: Tensor) -> list[str]:
    """Return each condition (num, A) in words."""
    return [describe(model.attributes, row) for row in conditions.tolist()]
