"""Labels of images from columns of text: what a column is, attributes and captions.

The cells of a column determine its kind:

    yes or no       all are of one of the pairs no/yes, false/true, 0/1, -1/1, in any case
    a number        all are numbers, and one is not an integer, or there are more than `MOST_INTEGERS` different ones
                    and the column is not called `class` or `label`
    values          else: the different cells, sorted (as numbers where they are), at most `MOST_VALUES`

Beside numbers and yes or no, one of the texts `MISSING` (N/A, null, ?, ...) is a value that is not given. A column
called `caption` or `text` also holds captions, and may have any number of different texts.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from sfumato.conditions.attributes import YES_NO, Attribute, has_control
from sfumato.data.sources.protocol import Labels, printable
from sfumato.errors import UserError, nearest

MOST_INTEGERS = 20
"""At most this many different integers are classes; more are a number."""
MOST_VALUES = 1000
"""A column with more different texts than this identifies images instead of grouping them."""
CAPTIONS = ("caption", "text")
"""Names of columns of captions, in any case, the preferred one first."""

MISSING = frozenset({"n/a", "na", "#n/a", "<na>", "null", "none", "nil", "-", "--", "?", ".", "unknown", "missing"})
"""What stands for a value that is not given, in any case, among numbers and among yes and no."""
CLASSES = ("class", "label")
"""Names of columns whose integers are classes, however many there are."""

_PAIRS = ({"no", "yes"}, {"false", "true"}, {"0", "1"}, {"-1", "1"})
Table = NDArray[np.float32]
Cells = Sequence[str | None]


def from_columns(
    columns: Mapping[str, Cells], count: int, classes: Mapping[str, Sequence[str]] | None = None
) -> Labels:
    """Return the labels in columns beside the pictures; columns that identify pictures or are empty are not attributes.

    Args:
        columns: by name, a text for each picture, None where not given.
        count: of pictures.
        classes: of columns of integers: the names that they index.
    """
    found = []
    for name, cells in columns.items():
        if names := tuple(map(printable, (classes or {}).get(name, ()))):
            code = {str(k): float(k) for k in range(len(names))}
            found.append((Attribute(tame(name), names), _numbers(cells, code)))
            continue
        with suppress(UserError):
            attribute, values = column(tame(name), cells)
            if not (attribute.values and len(attribute.values) == np.count_nonzero(~np.isnan(values)) > 2):
                found.append((attribute, values))
    return joined(found, columns, count)


def pick(labels: Labels, chosen: Sequence[str], where: str) -> Labels:
    """Return some of the attributes, in the order in which they are named; all where none is named. Raises `UserError`
    where there is no such attribute."""
    if not chosen:
        return labels
    columns = [chosen_index([attribute.name for attribute in labels.attributes], name, where) for name in chosen]
    attributes = tuple(labels.attributes[c] for c in columns)
    return replace(labels, attributes=attributes, conditions=labels.conditions[:, columns])


def column(name: str, cells: Cells) -> tuple[Attribute, Table]:
    """Return a column's attribute, by the rule of the module's docstring, and its (N,) float32 numbers.

    Args:
        name: of the attribute.
        cells: (N,) text, None where not given; at least one is.

    Raises:
        UserError: no cell is given, or more different texts than `MOST_VALUES`.
    """
    texts = {cell for cell in cells if cell is not None}
    texts -= _missing(texts)
    if not texts:
        raise UserError(f"the column '{name}' is empty: leave it out with data.attributes")
    numbers = {cell: _number(cell) for cell in texts}
    scale = all(map(math.isfinite, numbers.values()))
    most = MOST_VALUES if name.lower() in CLASSES else MOST_INTEGERS
    if any({cell.lower() for cell in texts} <= pair for pair in _PAIRS):
        attribute, code = Attribute(name, ("no", "yes")), {cell: YES_NO[cell.lower()] for cell in texts}
    elif scale and (len(texts) > most or not all(x.is_integer() for x in numbers.values())):
        given = np.array([numbers[cell] for cell in cells if cell in numbers])
        with np.errstate(over="ignore", invalid="ignore"):  # Attribute refuses what is not finite
            attribute = Attribute(name, mean=float(given.mean()), std=float(given.std()) or 1.0)
        code = {cell: (x - attribute.mean) / attribute.std for cell, x in numbers.items()}
    elif len(texts) > MOST_VALUES:
        raise UserError(
            f"the column '{name}' has {len(texts):,} different texts: leave it out by naming the others in "
            "data.attributes"
        )
    else:
        values = in_order(texts)
        attribute, code = Attribute(name, tuple(map(tame, values))), {value: float(k) for k, value in enumerate(values)}
    return attribute, _numbers(cells, code)


def tame(text: str) -> str:
    """Return text with its control characters escaped."""
    return printable(text) if has_control(text) else text


def in_order(texts: Iterable[str]) -> list[str]:
    """Return texts sorted: as numbers where all are numbers, 9 before 10."""
    numbers = {text: _number(text) for text in texts}
    scale = all(map(math.isfinite, numbers.values()))
    return sorted(numbers, key=lambda text: (numbers[text] if scale else 0.0, text))


def _missing(texts: set[str]) -> set[str]:
    """The texts of a column that stand for no value: `MISSING` beside numbers, or beside yes and no."""
    missing = {text for text in texts if text.lower() in MISSING}
    left = {text.lower() for text in texts - missing}
    is_plain = all(math.isfinite(_number(text)) for text in left) or any(left <= pair for pair in _PAIRS)
    return missing if missing and left and is_plain else set()


def remarks(columns: Mapping[str, Cells], wanted: Iterable[str]) -> list[str]:
    """Return what a column holds that was not read as it is written, in sentences."""
    notes = []
    for name in wanted:
        texts = Counter(cell for cell in columns[name] if cell is not None)
        for text in sorted(_missing(set(texts))):
            notes.append(f"{name}: '{printable(text)}' ({texts[text]:,} cells) counts as not given")
        others = sorted(text for text in texts if not math.isfinite(_number(text)))
        if not _missing(set(texts)) and 0 < len(others) < (len(texts) - len(others)) / 2:
            notes.append(
                f"{name} is not read as a number, since '{printable(others[0])}' is none: it has {len(texts):,} values"
            )
    return notes


def _numbers(cells: Cells, code: Mapping[str, float]) -> Table:
    return np.array([math.nan if cell is None else code.get(cell, math.nan) for cell in cells], np.float32)


def joined(
    found: Sequence[tuple[Attribute, Table]], columns: Mapping[str, Cells], count: int, notes: tuple[str, ...] = ()
) -> Labels:
    """Return attributes as one table, with the column of captions if there is one."""
    table = np.stack([values for _, values in found], 1) if found else np.zeros((count, 0), np.float32)
    return Labels(tuple(attribute for attribute, _ in found), table, notes, captions_of(columns))


def captions_of(columns: Mapping[str, Cells]) -> tuple[str | None, ...] | None:
    """Return the column of captions, None where there is none or it is empty."""
    named = {name.lower(): cells for name, cells in columns.items()}
    captions = tuple(next((named[name] for name in CAPTIONS if name in named), ()))
    return captions if any(captions) else None


def _number(cell: str) -> float:
    """The number in a cell; NaN where there is none. Python's own 1_000 is not a number here."""
    try:
        return math.nan if "_" in cell else float(cell)
    except ValueError:
        return math.nan


def chosen_index(names: Sequence[str], name: str, where: str) -> int:
    """Return the index of a name; raises `UserError` where there is none, with the nearest."""
    if name not in names:
        raise UserError(f"'{where}' has no attribute '{name}'{nearest(name, names)}")
    return list(names).index(name)
