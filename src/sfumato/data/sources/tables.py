"""Tables with a picture in each row: Parquet files, and data sets of the `datasets` library.

Both hold pictures as the bytes of their files, in a column of type {bytes, path} or binary, and what is known of them
in columns beside it. The `path` is only a name: where a row has no bytes, it has no picture here. Of the other columns
those are attributes whose cells are plain values that pictures share, by the rules for columns of a file of labels;
where the `datasets` library says what integers stand for (ClassLabel), that is used.

    train-*.parquet, or a folder of .parquet files      needs pyarrow:   pip install 'sfumato[parquet]'
    hf:NAME, hf:NAME:SPLIT (by default train)           needs datasets:  pip install 'sfumato[datasets]'
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from sfumato.conditions.attributes import Attribute
from sfumato.data.sources.files import MAX_FILE, FileSource, shared_column, state_of
from sfumato.data.sources.protocol import Blob, Unreadable, printable
from sfumato.errors import UserError

__all__ = ["ParquetSource", "TableSource", "from_huggingface", "open_huggingface"]

_NAMED = ("image", "img", "picture", "jpg", "png")
_MOST_GROUP = 2**32
Known = list[tuple[Attribute, list[float]]]


class TableSource(FileSource):
    """Pictures in rows; made by `ParquetSource` and `from_huggingface`.

    Args:
        name: printable.
        count: of rows.
        key: what changes when the contents do.
        cell: row number -> {"bytes": ...}, or the bytes, or None.
        known: the attributes, each with a number a row.
        background: the colour under transparent pixels.
    """

    def __init__(
        self, name: str, count: int, key: str, cell: Callable[[int], Any], known: Known, background: str = "white"
    ) -> None:
        super().__init__(name, background)
        self._count, self._key, self._cell, self._known = count, key, cell, known

    @property
    def attributes(self) -> tuple[Attribute, ...]:
        """What the other columns say."""
        return tuple(attribute for attribute, _ in self._known)

    def __len__(self) -> int:
        return self._count

    def origin(self, i: int) -> str:
        """Return the name and the number of the row."""
        return f"{self.name}[{i}]"

    def condition(self, i: int) -> tuple[float, ...]:
        """Return what the other columns say of picture i."""
        return tuple(values[i] for _, values in self._known)

    def file(self, i: int) -> Blob:
        """Return the bytes in row i; raises `Unreadable`."""
        try:
            cell = self._cell(i)
        except (OSError, ValueError, ArithmeticError) as error:
            raise Unreadable(f"damaged: {printable(str(error))[:80]}") from None
        data = cell.get("bytes") if isinstance(cell, Mapping) else cell
        if not isinstance(data, bytes):
            raise Unreadable("the row holds no bytes of a picture")
        if len(data) > MAX_FILE:
            raise Unreadable(f"too large: more than {MAX_FILE:,} bytes")
        return Blob(data)

    def key(self) -> str:
        """Return the fingerprint given at construction."""
        return self._key


class ParquetSource(TableSource):
    """The pictures in Parquet files, as a `Source`.

    Args:
        paths: the files, in order, all with the same columns.
        name: how the source is called; None is the absolute path of the first.
        background: the colour under transparent pixels.

    Raises:
        UserError: pyarrow is missing, or a file can't be read or has no column of pictures.
    """

    def __init__(self, paths: Sequence[Path], name: str | None = None, background: str = "white") -> None:
        self._paths = [path.resolve() for path in paths]
        shown = printable(str(paths[0]))
        try:
            self._parquet: Any = import_module("pyarrow.parquet")
        except ImportError:
            raise UserError(f"'{shown}' needs pyarrow: pip install 'sfumato[parquet]'") from None
        try:
            files = [self._parquet.ParquetFile(path) for path in self._paths]
            schema = files[0].schema_arrow
            self._column = _picture_column({field.name: _is_picture(field.type) for field in schema}, shown)
            self._groups = [(f, g) for f, file in enumerate(files) for g in range(file.num_row_groups)]
            rows = [files[f].metadata.row_group(g).num_rows for f, g in self._groups]
            self._ends = np.cumsum(rows)
            _check_groups([files[f].metadata.row_group(g) for f, g in self._groups], shown)
            columns = [field.name for field in schema if _is_plain(field.type)]
            tables = [file.read(columns=columns).to_pydict() for file in files]
        except UserError:
            raise
        except (OSError, ValueError, KeyError, NotImplementedError) as error:
            raise UserError(f"'{shown}' can't be read as Parquet: {printable(str(error))[:120]}") from None
        self._held: tuple[int, int, Any] = (0, -1, None)
        merged = {name: [cell for table in tables for cell in table[name]] for name in columns}
        key = hashlib.sha256(state_of(self._paths).encode("utf-8", "surrogatepass")).hexdigest()
        known = _known(merged, _class_names(schema.metadata))
        own = name or printable(str(self._paths[0]))
        super().__init__(own, int(sum(rows)), key, self._read, known, background)

    def _read(self, i: int) -> Any:
        """Cell i of the column of pictures; the group of rows last read is kept."""
        group = int(np.searchsorted(self._ends, i, side="right"))
        if self._held[:2] != (os.getpid(), group):
            f, g = self._groups[group]
            table = self._parquet.ParquetFile(self._paths[f]).read_row_group(g, columns=[self._column])
            self._held = (os.getpid(), group, table.column(0))
        place = i - (int(self._ends[group - 1]) if group else 0)
        return self._held[2][place].as_py()


def from_huggingface(
    dataset: Any, name: str = "dataset", key: str | None = None, background: str = "white"
) -> TableSource:
    """Return a source of the pictures in a `datasets.Dataset`.

    Args:
        dataset: one split, with a column of images or of their bytes.
        name: the source's.
        key: what changes when the contents do; None is the fingerprint that the data set has.
        background: the colour under transparent pixels.

    Raises:
        UserError: it is several splits, a stream, or has no column of pictures.
    """
    features = getattr(dataset, "features", None)
    if features is None or not hasattr(dataset, "select_columns"):
        raise UserError(f"'{name}' is no single split of a data set: choose one, such as dataset['train']")
    kinds = {column: type(feature).__name__ for column, feature in features.items()}
    image = _picture_column({column: kind == "Image" for column, kind in kinds.items()}, name)
    with suppress(ImportError):  # without the library it is something else of the same make
        dataset = dataset.cast_column(image, import_module("datasets").Image(decode=False))
    plain = [column for column, feature in features.items() if _is_scalar(feature)]
    names = {column: list(features[column].names) for column in plain if kinds[column] == "ClassLabel"}
    known = _known({column: list(dataset[column]) for column in plain}, names)
    own = key or str(getattr(dataset, "_fingerprint", ""))
    if not own:
        raise UserError(f"'{name}' has no fingerprint: give a key that changes when its contents do")
    pictures = dataset.select_columns([image])
    return TableSource(name, len(dataset), own, lambda i: pictures[i][image], known, background)


def open_huggingface(name: str, background: str = "white") -> TableSource:
    """Return a source of a data set of the hub or on the disk, by its id.

    Args:
        name: `hf:NAME` or `hf:NAME:SPLIT`.
        background: the colour under transparent pixels.

    Raises:
        UserError: `datasets` is missing, or there is no such data set, or it can't be reached.
    """
    _, own, split = [*name.split(":", 2), "train"][:3]
    try:
        datasets = import_module("datasets")
    except ImportError:
        raise UserError(f"'{printable(name)}' needs datasets: pip install 'sfumato[datasets]'") from None
    try:
        dataset = datasets.load_dataset(own, split=split or "train")
    except Exception as error:  # the network's, the hub's and the files' own troubles
        reason = printable(str(error).split("\n")[0])[:120] or type(error).__name__
        raise UserError(f"'{printable(name)}' can't be loaded: {reason}") from None
    if not isinstance(dataset, datasets.Dataset):
        raise UserError(f"'{printable(name)}' is no single split: name one, such as {printable(name)}:train")
    return from_huggingface(dataset, printable(name), None, background)


def _picture_column(columns: Mapping[str, bool], where: str) -> str:
    """The name of the column of pictures: one called so, else the first."""
    found = [name for name, picture in columns.items() if picture]
    if not found:
        raise UserError(f"'{where}' has no column of pictures: it has {', '.join(columns)}")
    return next((name for name in _NAMED if name in found), found[0])


def _is_picture(kind: Any) -> bool:
    """Whether an Arrow type can hold pictures' bytes: binary, or a struct with a field of it called bytes."""
    text = str(kind)
    return text in ("binary", "large_binary") or (text.startswith("struct<") and "bytes: binary" in text)


def _is_plain(kind: Any) -> bool:
    """Whether an Arrow type is one of plain values."""
    text = str(kind)
    return text in ("bool", "string", "large_string", "float", "double") or text.removeprefix("u").startswith("int")


def _is_scalar(feature: Any) -> bool:
    """Whether a feature of `datasets` is one of plain values."""
    if type(feature).__name__ == "ClassLabel":
        return True
    kind = str(getattr(feature, "dtype", ""))
    return type(feature).__name__ == "Value" and (_is_plain(kind) or kind in ("float32", "float64"))


def _check_groups(groups: Sequence[Any], shown: str) -> None:
    """Refuse groups of rows that unpack to more than fits: one is in memory at a time."""
    for group in groups:
        if sum(group.column(k).total_uncompressed_size for k in range(group.num_columns)) > _MOST_GROUP:
            raise UserError(f"'{shown}' has a group of rows of more than {_MOST_GROUP:,} bytes: write smaller groups")


def _class_names(metadata: Mapping[bytes, bytes] | None) -> dict[str, list[str]]:
    """What integers stand for, where the `datasets` library wrote the file."""
    try:
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
        named = {key: value["names"] for key, value in features.items() if value.get("_type") == "ClassLabel"}
        return {str(key): [str(name) for name in names] for key, names in named.items()}
    except (KeyError, ValueError, TypeError, AttributeError):
        return {}


def _known(columns: Mapping[str, Sequence[Any]], names: Mapping[str, Sequence[str]]) -> Known:
    """The attributes that columns are, those left out that tell pictures apart or say nothing."""
    found: Known = []
    for name, cells in columns.items():
        own = tuple(printable(text) for text in names.get(name, ()))
        if own:
            values = [float(cell) if cell is not None and 0 <= cell < len(own) else np.nan for cell in cells]
            found.append((Attribute(name, own), values))
        elif (told := shared_column(name, [_cell(cell) for cell in cells])) is not None:
            found.append(told)
    return found


def _cell(value: Any) -> str | None:
    """A plain value as text."""
    if value is None or value == "" or value != value:
        return None
    return ("no", "yes")[value] if isinstance(value, bool) else printable(str(value))
