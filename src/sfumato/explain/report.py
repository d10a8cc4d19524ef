"""The page of a run as a value: every section collected, in order, with a bounded amount of computation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sfumato.errors import UserError
from sfumato.explain.context import Context
from sfumato.explain.figure import Collected, Figure, Section
from sfumato.explain.packing import plain


@dataclass(frozen=True, eq=False)
class Report:
    """What the page shows.

    Attributes:
        title, subtitle: of the page.
        article: whether it reads as an article: derivations open, without what only a run's owner wants.
        facts: names and values at the top.
        shared: what several views read.
        sections: in order.
        command: the command that made it.
    """

    title: str
    subtitle: str
    article: bool
    facts: tuple[tuple[str, str], ...]
    shared: dict[str, Any] = field(repr=False)
    sections: tuple[Collected, ...] = field(repr=False)
    command: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return every figure's numbers and findings as plain values, without images and arrays."""
        return {
            "title": self.title,
            "facts": dict(self.facts),
            "sections": [
                {
                    "name": each.section.name,
                    "title": each.section.title,
                    "missing": each.missing or None,
                    "figures": [
                        {
                            "name": figure.name,
                            "title": figure.title,
                            "findings": list(figure.findings),
                            "data": plain(figure.data, arrays=False),
                        }
                        for figure in each.figures
                    ],
                }
                for each in self.sections
            ],
        }


def collect(context: Context, sections: Sequence[Section]) -> tuple[Collected, ...]:
    """Collect sections; one whose ingredients a run lacks is kept with the reason."""
    found = []
    for section in sections:
        try:
            figures = section.collect(context)
            found.append(Collected(section, (figures,) if isinstance(figures, Figure) else figures))
        except UserError as error:
            found.append(Collected(section, (), str(error)))
    context.report(context.expected, context.expected)
    return tuple(found)
