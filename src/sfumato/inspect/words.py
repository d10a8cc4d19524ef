"""A report in words for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np

from sfumato.inspect.advice import Advice, many
from sfumato.inspect.report import Report

__all__ = ["facts_of", "summary"]

WIDTH = 110
SHOWN = 8
"""Files named of each kind; the page and the JSON name all."""


def summary(report: Report, advice: Sequence[Advice]) -> str:
    """Return what was seen and what to do about it, in plain lines."""
    lines = [_wrapped(f"{name:<13}", value) for name, value in facts_of(report)]
    marks = {"trouble": "!!", "mind": " !", "good": "ok"}
    lines += ["", *(_wrapped(f"{marks[item.level]} ", f"{item.topic}: {item.text}") for item in advice)]
    lines += _named("can't be used", [(report.source.origin(i), reason) for i, reason in report.faults])
    lines += _named("to look at", [(report.origin(i), reason) for i, reason in report.suspicious])
    odd = report.odd.odd()
    lines += _named("far from the others", [(report.origin(i), report.odd.reason(i)) for i in odd])
    groups = [*report.copies.exact, *report.copies.near]
    lines += _named("copies", [(report.origin(g[0]), "= " + ", ".join(map(report.origin, g[1:4]))) for g in groups])
    return "\n".join(lines)


def facts_of(report: Report) -> list[tuple[str, str]]:
    """Return names and values of the main figures; figures of files only where pictures are files."""
    table = report.table()
    s = report.sights
    sample = "" if report.looked_at == report.total else f", {report.looked_at:,} of them looked at"
    rows = [
        ("source", report.source.name),
        ("pictures", f"{report.total:,}{sample}; {len(s):,} can be read, {report.distinct:,} of these are different"),
    ]
    if not len(s):
        return rows
    sizes = [f"{size} ({count:,})" for size, count in list(table["sizes"].items())[:4]]
    more = f", and {many(table['num_sizes'] - 4, 'other size')}" if table["num_sizes"] > 4 else ""
    rows.append(("size", ", ".join(sizes) + more + " (width x height)"))
    if table["formats"]:
        rows.append(("format", _listed(table["formats"])))
        deep = f"; 16 bits: {table['bits']['16']:,}" if "16" in table["bits"] else ""
        rows.append(("mode", _listed(table["modes"]) + deep))
    rows.append(("colour", f"{len(s) - table['grey']:,} in colour, {table['grey']:,} grey"))
    low, middle, high = (table["quantiles"]["brightness"][k] for k in (1, 3, 5))
    rows.append(("brightness", f"{middle:.0f} in the middle, nine tenths from {low:.0f} to {high:.0f} (of 255)"))
    low, middle, high = (table["quantiles"]["contrast"][k] for k in (1, 3, 5))
    rows.append(("contrast", f"{middle:.0f} in the middle, nine tenths from {low:.0f} to {high:.0f}"))
    for a, attribute in enumerate(report.source.attributes):
        column = s["condition"][:, a]
        given = int((~np.isnan(column)).sum())
        counts = report.counts(a)
        rows.append((attribute.name[:12], _listed(counts) if counts else f"a number, given for {given:,}"))
    return rows


def _wrapped(head: str, text: str) -> str:
    """Text behind a head, its further lines below its first word."""
    return textwrap.fill(text, WIDTH, initial_indent=head, subsequent_indent=" " * len(head), break_on_hyphens=False)


def _listed(counts: dict[str, int], most: int = 10) -> str:
    """`a 12, b 3, and 4 more`."""
    shown = [f"{name} {count:,}" for name, count in list(counts.items())[:most]]
    return ", ".join(shown) + (f", and {len(counts) - most} more" if len(counts) > most else "")


def _named(title: str, items: Sequence[tuple[str, str]]) -> list[str]:
    """A heading and the first few of a list."""
    if not items:
        return []
    lines = ["", f"{title} ({len(items):,}):", *(f"  {name}: {reason}" for name, reason in items[:SHOWN])]
    return lines + (
        [f"  ... and {len(items) - SHOWN:,} more (--out page.html or --json)"] if len(items) > SHOWN else []
    )
