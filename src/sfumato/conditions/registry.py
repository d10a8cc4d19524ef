"""Every kind of condition by the name that a weights file gives it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sfumato.conditions.protocol import Vocabulary
from sfumato.conditions.vocabulary import AttributeVocabulary
from sfumato.errors import nearest

VOCABULARIES: dict[str, Callable[[Mapping[str, Any]], Vocabulary]] = {"attributes": AttributeVocabulary.from_plain}
"""How the vocabulary of each kind is read from what its `plain` wrote."""


def from_plain(table: Mapping[str, Any] | None) -> Vocabulary | None:
    """Return the vocabulary that `plain` wrote, None for None; raises ValueError, KeyError or TypeError where the table
    does not describe one."""
    if table is None:
        return None
    if table["kind"] not in VOCABULARIES:
        raise ValueError(f"conditions of kind '{table['kind']}' are unknown{nearest(str(table['kind']), VOCABULARIES)}")
    return VOCABULARIES[table["kind"]](table)
