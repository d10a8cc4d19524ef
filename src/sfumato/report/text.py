"""Findings and figures in lines of plain text, as a terminal shows them."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

from sfumato.config.units import duration as duration
from sfumato.errors import command

WIDTH = 100


def wrapped(content: str, head: str = "", indent: str | None = None) -> str:
    """Return text behind a head, its further lines indented as far as the head, or by `indent`; words stay whole."""
    rest = " " * len(head) if indent is None else indent
    return textwrap.fill(content, WIDTH, initial_indent=head, subsequent_indent=rest, break_on_hyphens=False)


def listed(counts: Mapping[str, int], most: int = 10) -> str:
    """Return names with how often each occurs: `a 12, b 3, and 4 more`."""
    shown = [f"{name} {count:,}" for name, count in list(counts.items())[:most]]
    return ", ".join(shown) + (f", and {len(counts) - most} more" if len(counts) > most else "")


def listing(title: str, items: Sequence[tuple[str, str]], most: int, more: str) -> list[str]:
    """Return a heading and the first few (name, text) of a list, and where to find the others; [] for an empty list."""
    if not items:
        return []
    lines = ["", f"{title} ({len(items):,}):", *(f"  {name}: {content}" for name, content in items[:most])]
    return lines + ([f"  ... and {len(items) - most:,} more ({more})"] if len(items) > most else [])


def columns(rows: Sequence[Sequence[str]], width: int, indent: str = "  ") -> str:
    """Return rows of a name and values: names in a column as wide as they need, each value right in `width` more."""
    names = max(len(name) for name, *_ in rows) + 2
    lines = (f"{indent}{name:{names}}" + "".join(f"{value:>{width}}" for value in values) for name, *values in rows)
    return "\n".join(line.rstrip() for line in lines)


def count(number: float) -> str:
    """Return a large number in three digits: 812, 35.7 M, 6.05 G."""
    for factor, unit in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if number >= 0.9995 * factor:
            return f"{number / factor:.3g}{unit}"
    return f"{number:.3g}"


def size(number: float) -> str:
    """Return a number of bytes: 812 B, 2.8 MB."""
    return f"{count(number)}B" if number >= 999.5 else f"{number:.0f} B"


def longer(run: str, images: int, seen: int) -> str:
    """Return the command that goes on with a run, to `images` in all, `seen` of which it has seen."""
    return command("train", run, "--images", max(images, seen + 1))


def facts(pairs: Sequence[tuple[str, str]]) -> str:
    """Return (name, value) pairs as aligned lines; a long value keeps its column, an empty one is left out."""
    pairs = [(name, value) for name, value in pairs if value]
    width = max(len(name) for name, _ in pairs) + 2
    return "\n".join(f"{name:{width}}" + value.replace("\n", "\n" + " " * width) for name, value in pairs)
