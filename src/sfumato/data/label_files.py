"""Files of labels: their formats, and which row is which image's.

    file,hair,age              {"file": "a/1.png", "hair": "long"}          202599
    a/1.png,long,35            {"file": "a/2.png", "age": 53}               5_o_Clock_Shadow Bald ...
    a/2.png,,53                                                             000001.jpg -1 1 ...

The first column (in JSON the key `file` or `file_name`) is the path of an image within the folder, with forward
slashes; where no image has such a path, its name alone counts, or its name without suffix, as long as no two images
share it. Images that are rows of an array go by their number, from 0. Every other column is an attribute (`labels` says
of which kind), and an empty cell (or `nan`, or null) is a value that is not given. A CSV may be separated by semicolons
or tabs instead of commas: the separator is the most frequent one in the header. A first line that names an image is no
header: the only column is then called `class`, several are called column2, column3, ... The third format is CelebA's
list of attributes.

A file that can't be trusted as a whole (another encoding, a row of another length, no image named) is refused in one
line. Rows without an image, images without a row and second rows for one image are counted.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from sys import intern

import numpy as np

from sfumato.data.labels import CAPTIONS, MOST_VALUES, Cells, chosen_index, column, from_columns, joined, remarks
from sfumato.data.sources.protocol import Beside, File, Labels, Source, Unreadable, folder_of, layout_of, printable
from sfumato.errors import UserError, plural, similar
from sfumato.files import read_regular

MOST_BYTES, MOST_ROWS = 512 * 2**20, 1_000_000
"""The largest file of labels, and the most rows besides ten for each image."""
_IMAGE = re.compile(r"\.(png|jpe?g|webp|gif|bmp|tiff?|avif|npy)$", re.IGNORECASE)
_FILE_KEYS = frozenset(
    {"file", "filename", "file_name", "image", "image_id", "img", "id", "path", "name", "key", "row", "index"}
)
"""What the first column of a header is called, and an image seldom is."""
_NUMBERED = re.compile(r".*\[(\d+)\]")

Parsed = tuple[list[str], list[tuple[str, Cells]], bool]
"""The columns' names, each row's image and cells, and whether the names are ours, since there was no header."""


def unlabelled(source: Source) -> UserError:
    """Return the error of labels that a source does not have."""
    return UserError(
        f"data.labels is source, but '{source.name}' has no labels: put each class into a sub-folder, or name a CSV or "
        "JSON Lines file"
    )


def check_labels(name: str, source: Source) -> None:
    """Refuse labels that are not there, by `data.labels`, before pictures are decoded."""
    if name == "source" and not (source.attributes or layout_of(source).tables):
        raise unlabelled(source)
    if name in ("none", "source") or any(table.origin == printable(name) for table in layout_of(source).tables):
        return
    if not (path := label_file(name, source)).exists():
        beside = path if path.is_absolute() else (folder_of(source) or Path(source.name)) / path
        near = similar(path, Path.is_file) or similar(beside, Path.is_file)
        raise UserError(
            f"data.labels: there is no '{printable(name)}' in the working folder, nor at the images in "
            f"'{source.name}': give none, source or the path of a CSV or JSON Lines file{printable(near)}"
        )


def label_file(name: str, source: Source) -> Path:
    """Return the path of a file of labels: in the working folder, among the images, or beside their folder."""
    path, own = Path(name).expanduser(), folder_of(source) or Path(source.name)
    paths = [path] if path.is_absolute() else [path, own / path, own.parent / path]
    return next((each for each in paths if each.is_file()), path)


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
    columns, notes = _columns([(shown, "", path)], origins)
    names = list(columns)
    wanted = [names[chosen_index(names, name, shown)] for name in chosen] or [
        name for name in names if name.lower() not in CAPTIONS or len(set(columns[name])) <= MOST_VALUES
    ]
    try:
        found = [column(name, columns[name]) for name in wanted]
    except UserError as error:
        raise UserError(f"'{shown}': {error}") from None
    return joined(found, columns, len(origins), (*notes, *remarks(columns, wanted)))


def with_tables(own: Labels, tables: Sequence[Beside], origins: Sequence[str]) -> Labels:
    """Return a source's labels with those of the files of labels beside its pictures.

    Columns that identify pictures or are empty are not attributes.

    Raises:
        UserError: a file can't be read or understood, or names none of the images.
    """
    if not tables:
        return own
    try:
        files = [(table.origin, "".join(f"{part}/" for part in table.parts[:-1]), table.file()) for table in tables]
    except Unreadable as fault:
        raise UserError(f"'{tables[0].origin}' can't be read: {fault.reason}") from None
    columns, notes = _columns(files, origins, strict=False)
    found = from_columns(columns, len(origins))
    names = [attribute.name for attribute in found.attributes]
    kept = [a for a, attribute in enumerate(own.attributes) if attribute.name not in names]
    return Labels(
        (*(own.attributes[a] for a in kept), *found.attributes),
        np.concatenate([own.conditions[:, kept], found.conditions], 1),
        (*own.notes, *notes, *remarks(columns, names)),
        found.captions or own.captions,
    )


def _columns(
    files: Sequence[tuple[str, str, File]], origins: Sequence[str], strict: bool = True
) -> tuple[dict[str, list[str | None]], list[str]]:
    """The columns of files (name, folder, file), a cell for each image, and what did not fit."""
    keys = [match[1] if (match := _NUMBERED.fullmatch(origin)) else origin for origin in origins]
    columns, notes, missing = dict[str, list[str | None]](), list[str](), np.ones(len(keys), bool)
    for shown, folder, file in files:
        names, lines, headless = _parsed(file, shown, _Names(keys), strict)
        if not names:
            raise UserError(f"'{shown}' has only the column of file names: add a column for each attribute")
        table: dict[str, Cells] = {}
        for name, cells in lines:
            table.setdefault(folder + printable(name.removeprefix("./")), cells)
        rows, how = _rows(table, keys, shown)
        for c, name in enumerate(names):
            column_ = columns.setdefault(name, [None] * len(keys))
            for k, row in enumerate(rows):
                if row is not None:
                    column_[k] = row[c]
        missing &= np.array([row is None for row in rows])
        notes += _fitting(printable(shown.rpartition("/")[2]), table, lines, rows, how, names if headless else ())
    if count := int(missing.sum()):
        last = printable(files[-1][0].rpartition("/")[2])
        they = "it trains" if count == 1 else "they train"
        notes.insert(0, f"{plural(count, 'image', 'have')} no row in {last}: {they} without labels")
    return columns, notes


def _fitting(
    name: str,
    table: Mapping[str, Cells],
    lines: Sequence[tuple[str, Cells]],
    rows: Sequence[Cells | None],
    how: str,
    headless: Sequence[str],
) -> list[str]:
    """What did not fit between a file of labels and the images, and how it was read, in sentences."""
    used = len({id(row) for row in rows if row is not None})
    counts = {
        "of {} without an image in the data": len(table) - used,
        "of {} for an image that has one: the first row counts": len(lines) - len(table),
    }
    notes = [f"{plural(count, 'row')} {note.format(name)}" for note, count in counts.items() if count]
    if how:
        notes.append(f"{name} gives no paths as the images have them: its rows were matched by {how}")
    if headless:
        notes.append(f"{name} has no header: its columns are called {', '.join(headless)}")
    return notes


class _Names:
    """Whether a text names one of the images: by its path, its name alone, or its name without suffix."""

    def __init__(self, keys: Sequence[str]) -> None:
        self.keys = {*keys, *(_file(key) for key in keys)}
        self.stems = {_stem(key) for key in keys}

    def __contains__(self, cell: str) -> bool:
        cell = cell.strip().removeprefix("./")
        known = cell in self.keys or _file(cell) in self.keys or bool(_IMAGE.search(cell))
        return known or (_stem(cell) in self.stems and cell.lower() not in _FILE_KEYS)


def _file(path: str) -> str:
    return path.rpartition("/")[2]


def _stem(path: str) -> str:
    return _file(path).rpartition(".")[0] or _file(path)


def _rows(table: Mapping[str, Cells], keys: Sequence[str], shown: str) -> tuple[list[Cells | None], str]:
    """The row of each image, and by what it was matched, empty where by its path; raises `UserError` for no row."""
    if any(rows := [table.get(key) for key in keys]):
        return rows, ""
    for how, short in (("file name alone", _file), ("file name without suffix", _stem)):
        named = {short(name): cells for name, cells in table.items()}
        if any(rows := [named.get(short(key)) for key in keys]):
            if len(named) < len(table) or len({short(key) for key in keys}) < len(keys):
                raise UserError(
                    f"'{shown}' names images by {how}, which several have: name each by its path, such as '{keys[0]}'"
                )
            return rows, how
    first = next(iter(table), "nothing")
    raise UserError(f"'{shown}' names none of the images: it names '{first}' where the data has '{keys[0]}'")


# Formats


def _parsed(file: File, shown: str, images: _Names, strict: bool) -> Parsed:
    """Read a file of any of the formats, recognised by its content."""
    try:
        content = read_regular(file, MOST_BYTES) if isinstance(file, Path) else file.data
        text = content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError:
        raise UserError(f"'{shown}' is not UTF-8 text: save it in that encoding") from None
    except OSError as error:
        raise UserError(
            f"data.labels: '{shown}' can't be read ({error.strerror}): give none, source or the path of a CSV file"
        ) from None
    if (rows := text.count("\n")) > MOST_ROWS + 10 * len(images.keys):
        raise UserError(f"'{shown}' has {rows:,} rows, far more than there are images: keep the rows of the images")
    lines = text.splitlines()
    if not text.strip():
        raise UserError(f"'{shown}' is empty: give a CSV file with a header, or JSON Lines")
    if text.lstrip().startswith("{"):
        return _json_lines(text.split("\n"), shown, strict)
    if lines[0].strip().isdecimal() and len(lines) > 1 and not re.search("[,;\t]", lines[1]):
        return _celeba(lines, shown)
    return _csv(lines, shown, images)


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


def _csv(lines: Sequence[str], shown: str, images: _Names) -> Parsed:
    separator, rows = max(",;\t", key=lines[0].count), list[tuple[str, Cells]]()
    reader = csv.reader((line + "\n" for line in lines), delimiter=separator, strict=True)
    try:
        header = next(reader)
        if headless := header[0] in images:
            count = len(header) - 1
            names = ["class"] if count == 1 else [f"column{k + 2}" for k in range(count)]
            rows.append((header[0].strip(), [_cell(cell) for cell in header[1:]]))
        else:
            names = _names(header[1:], shown)
        for row in filter(None, reader):
            if len(row) != len(header):
                raise UserError(f"'{shown}' line {reader.line_num} has {len(row)} cells, and its header {len(header)}")
            rows.append((row[0].strip(), [_cell(cell) for cell in row[1:]]))
    except csv.Error as error:
        raise UserError(f"'{shown}' line {reader.line_num} is not CSV: {error}") from None
    return names, rows, headless


def _json_lines(lines: Sequence[str], shown: str, strict: bool) -> Parsed:
    """An object a line; missing keys are not given, and lists and objects in it are left out unless `strict`."""
    tables: list[tuple[str, dict[str, str | None]]] = []
    for number, line in enumerate(lines, 1):
        try:
            if line.strip():
                table = json.loads(line)
                file = str(table.pop("file" if "file" in table else "file_name"))
                plain = {key: value for key, value in table.items() if strict or not isinstance(value, list | dict)}
                tables.append((file, {str(key): _scalar(value) for key, value in plain.items()}))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise UserError(
                f"'{shown}' line {number} is not an object with a file and plain values, such as "
                '{"file": "a.png", "hair": "long"}'
            ) from None
    keys = list(dict.fromkeys(key for _, table in tables for key in table))
    return _names(keys, shown), [(file, [table.get(key) for key in keys]) for file, table in tables], False


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
    return names, rows, False
