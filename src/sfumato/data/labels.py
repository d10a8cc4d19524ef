"""Labels of images: attributes and captions, from columns of text or from a file beside the images.

    file,hair,age              {"file": "a/1.png", "hair": "long"}          202599
    a/1.png,long,35            {"file": "a/2.png", "age": 53}               5_o_Clock_Shadow Bald ...
    a/2.png,,53                                                             000001.jpg -1 1 ...

The first column (in JSON the key `file` or `file_name`) is the path of an image within the folder, with forward
slashes; images that are rows of an array go by their number, from 0. Every other column is an attribute, and an empty
cell (or `nan`, or null) is a value that is not given. A CSV may be separated by semicolons or tabs instead of commas:
the separator is the most frequent one in the header. The third format is CelebA's list of attributes.

The cells of a column determine its kind:

    yes or no       all are of one of the pairs no/yes, false/true, 0/1, -1/1, in any case
    a number        all are numbers, and one is not an integer, or there are more than `MOST_INTEGERS` different ones
    values          else: the different cells, sorted (as numbers where they are), at most `MOST_VALUES`

A column called `caption` or `text` also holds captions, and may have any number of different texts.

A file that can't be trusted as a whole (another encoding, a row of another length, no image named) is refused in one
line. Rows without an image, images without a row and second rows for one image are counted.
"""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from sys import intern

import numpy as np
from numpy.typing import NDArray

from sfumato.conditions.attributes import YES_NO, Attribute
from sfumato.data.sources.protocol import Labels, printable
from sfumato.errors import UserError, nearest

MOST_INTEGERS = 20
"""At most this many different integers are classes; more are a number."""
MOST_VALUES = 1000
"""A column with more different texts than this identifies images instead of grouping them."""
CAPTIONS = ("caption", "text")
"""Names of columns of captions, in any case, the preferred one first."""

_PAIRS = ({"no", "yes"}, {"false", "true"}, {"0", "1"}, {"-1", "1"})
_NUMBERED = re.compile(r".*\[(\d+)\]")

Table = NDArray[np.float32]
Cells = Sequence[str | None]
Parsed = tuple[list[str], list[tuple[str, Cells]]]
"""The columns' names, and each row's image and cells."""


def read_labels(path: Path, origins: Sequence[str], chosen: Sequence[str] = ()) -> Labels:
    """Read a file of labels.

    Args:
        path: the file.
        origins: where each image comes from: its path within its folder, or `name[number]`.
        chosen: the columns to take, in this order; () takes all.

    Raises:
        UserError: the file can't be read or understood, or names none of the images.
    """
    shown = printable(str(path))
    names, lines = _parsed(path, shown)
    if not names:
        raise UserError(f"'{shown}' has only the column of file names: add a column for each attribute")
    table: dict[str, Cells] = {}
    for file, cells in lines:
        table.setdefault(printable(file.removeprefix("./")), cells)
    keys = [match[1] if (match := _NUMBERED.fullmatch(origin)) else origin for origin in origins]
    rows = [table.get(key) for key in keys]
    if not any(rows):
        first = next(iter(table), "nothing")
        raise UserError(f"'{shown}' names none of the images: it names '{first}' where the data has '{keys[0]}'")
    columns = {name: [None if row is None else row[c] for row in rows] for c, name in enumerate(names)}
    wanted = [names[_index(names, name, shown)] for name in chosen] or [
        name for name in names if name.lower() not in CAPTIONS or len(set(columns[name])) <= MOST_VALUES
    ]
    try:
        found = [column(name, columns[name]) for name in wanted]
    except UserError as error:
        raise UserError(f"'{shown}': {error}") from None
    counts = {
        "{:,} images have no row in {}: they train without labels": sum(row is None for row in rows),
        "{:,} rows of {} name an image that is not in the data": len(table.keys() - set(keys)),
        "{:,} rows of {} repeat an image: its first row counts": len(lines) - len(table),
    }
    notes = tuple(note.format(count, printable(path.name)) for note, count in counts.items() if count)
    return _joined(found, columns, len(rows), notes)


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
            found.append((Attribute(name, names), _numbers(cells, code)))
            continue
        with suppress(UserError):
            attribute, values = column(name, cells)
            if not (attribute.values and len(attribute.values) == np.count_nonzero(~np.isnan(values)) > 2):
                found.append((attribute, values))
    return _joined(found, columns, count)


def pick(labels: Labels, chosen: Sequence[str], where: str) -> Labels:
    """Return some of the attributes, in the order in which they are named; all where none is named.

    Raises:
        UserError: there is no such attribute.
    """
    if not chosen:
        return labels
    columns = [_index([attribute.name for attribute in labels.attributes], name, where) for name in chosen]
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
    if not texts:
        raise UserError(f"the column '{name}' is empty: leave it out with data.attributes")
    numbers = {cell: _number(cell) for cell in texts}
    scale = all(map(math.isfinite, numbers.values()))
    if any({cell.lower() for cell in texts} <= pair for pair in _PAIRS):
        attribute, code = Attribute(name, ("no", "yes")), {cell: YES_NO[cell.lower()] for cell in texts}
    elif scale and (len(texts) > MOST_INTEGERS or not all(x.is_integer() for x in numbers.values())):
        given = np.array([numbers[cell] for cell in cells if cell is not None])
        attribute = Attribute(name, mean=float(given.mean()), std=float(given.std()) or 1.0)
        code = {cell: (x - attribute.mean) / attribute.std for cell, x in numbers.items()}
    elif len(texts) > MOST_VALUES:
        raise UserError(
            f"the column '{name}' has {len(texts):,} different texts: leave it out by naming the others in "
            "data.attributes"
        )
    else:
        values = sorted(texts, key=lambda cell: (numbers[cell], cell)) if scale else sorted(texts)
        attribute, code = Attribute(name, tuple(values)), {value: float(k) for k, value in enumerate(values)}
    return attribute, _numbers(cells, code)


def _numbers(cells: Cells, code: Mapping[str, float]) -> Table:
    return np.array([math.nan if cell is None else code.get(cell, math.nan) for cell in cells], np.float32)


def _joined(
    found: Sequence[tuple[Attribute, Table]], columns: Mapping[str, Cells], count: int, notes: tuple[str, ...] = ()
) -> Labels:
    """Attributes as one table, with the column of captions if there is one."""
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


def _index(names: Sequence[str], name: str, where: str) -> int:
    if name not in names:
        raise UserError(f"'{where}' has no attribute '{name}'{nearest(name, names)}")
    return list(names).index(name)


# Formats


def _parsed(path: Path, shown: str) -> Parsed:
    """Read a file of any of the formats, recognised by its content."""
    try:
        text = path.read_text("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"'{shown}' is not UTF-8 text: save it in that encoding") from None
    except OSError as error:
        raise UserError(
            f"data.labels: '{shown}' can't be read ({error.strerror}): give none, source or the path of a CSV file"
        ) from None
    lines = text.splitlines()
    if not text.strip():
        raise UserError(f"'{shown}' is empty: give a CSV file with a header, or JSON Lines")
    if text.lstrip().startswith("{"):
        return _json_lines(text.split("\n"), shown)
    if lines[0].strip().isdecimal() and len(lines) > 1 and not re.search("[,;\t]", lines[1]):
        return _celeba(lines, shown)
    return _csv(lines, shown)


def _cell(text: str) -> str | None:
    """A cell without the spaces around it; None for an empty one or `nan`. Equal cells share memory."""
    text = text.strip()
    return intern(text) if text and text.lower() != "nan" else None


def _names(names: Iterable[str], shown: str) -> list[str]:
    """The names of the attributes' columns, after a check that none is missing or repeated."""
    printed = [printable(name.strip()) for name in names]
    for k, name in enumerate(printed):
        if not name:
            raise UserError(f"'{shown}' has no name for its column {k + 2}: name every column in the first line")
        if name in printed[:k]:
            raise UserError(f"'{shown}' has two columns '{name}': rename one")
    return printed


def _csv(lines: Sequence[str], shown: str) -> Parsed:
    separator, rows = max(",;\t", key=lines[0].count), list[tuple[str, Cells]]()
    reader = csv.reader((line + "\n" for line in lines), delimiter=separator, strict=True)
    try:
        header = next(reader)
        names = _names(header[1:], shown)
        for row in filter(None, reader):
            if len(row) != len(header):
                raise UserError(f"'{shown}' line {reader.line_num} has {len(row)} cells, and its header {len(header)}")
            rows.append((row[0].strip(), [_cell(cell) for cell in row[1:]]))
    except csv.Error as error:
        raise UserError(f"'{shown}' line {reader.line_num} is not CSV: {error}") from None
    return names, rows


def _json_lines(lines: Sequence[str], shown: str) -> Parsed:
    """An object a line; missing keys are not given."""
    tables: list[tuple[str, dict[str, str | None]]] = []
    for number, line in enumerate(lines, 1):
        try:
            if line.strip():
                table = json.loads(line)
                file = str(table.pop("file" if "file" in table else "file_name"))
                tables.append((file, {str(key): _scalar(value) for key, value in table.items()}))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise UserError(
                f"'{shown}' line {number} is not an object with a file and plain values, such as "
                '{"file": "a.png", "hair": "long"}'
            ) from None
    keys = list(dict.fromkeys(key for _, table in tables for key in table))
    return _names(keys, shown), [(file, [table.get(key) for key in keys]) for file, table in tables]


def _scalar(value: object) -> str | None:
    """A JSON value as a cell; raises TypeError for a list or an object."""
    if isinstance(value, list | dict):
        raise TypeError
    if isinstance(value, bool):
        return "yes" if value else "no"
    return None if value is None else _cell(str(value))


def _celeba(lines: Sequence[str], shown: str) -> Parsed:
    """CelebA's `list_attr_celeba.txt`: how many images, the names of the columns, then a line an image."""
    names, rows = _names(lines[1].split(), shown), list[tuple[str, Cells]]()
    for number, line in enumerate(lines[2:], 3):
        if words := line.split():
            if len(words) != 1 + len(names):
                raise UserError(f"'{shown}' line {number} has {len(words) - 1} values for {len(names)} attributes")
            rows.append((words[0], [_cell(cell) for cell in words[1:]]))
    if len(rows) != int(lines[0]):
        raise UserError(f"'{shown}' has {len(rows):,} images where its first line says {int(lines[0]):,}: cut short?")
    return names, rows
