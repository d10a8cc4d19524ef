"""Tables with a picture in each row: Parquet files, and data sets of the `datasets` library.

Both hold pictures as the bytes of their files, in a column of type {bytes, path} or binary, and their labels in the
other columns. The `path` is not opened: a row without bytes has no picture. The other columns are attributes where
their cells are plain values that pictures share, or captions, by the rules for columns of a file of labels; names that
the `datasets` library stores for integers (ClassLabel) are used.

    train-*.parquet, or a folder of .parquet files      needs pyarrow:   pip install 'sfumato[parquet]'
    hf:NAME, hf:NAME:SPLIT (by default train)           needs datasets:  pip install 'sfumato[datasets]'
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from sfumato.data.labels import captions_of, from_columns
from sfumato.data.sources.files import MAX_FILE, FileSource, hashed, state_of
from sfumato.data.sources.layout import layout_of_parts
from sfumato.data.sources.protocol import Blob, Labels, Layout, Unreadable, printable
from sfumato.errors import UserError

_NAMED = ("image", "img", "picture", "jpg", "png")
_MOST_GROUP = 2**32


def _source(
    name: str,
    count: int,
    key: str,
    cell: Callable[[int], Any],
    columns: Mapping[str, Sequence[Any]],
    classes: Mapping[str, Sequence[str]],
    layout: Layout | None = None,
) -> FileSource:
    """A source of the pictures in rows: row number -> cell, which is {"bytes": ...}, or the bytes, or None."""
    texts = {column: list(map(_text, cells)) for column, cells in columns.items()}
    raw = {column: cells for column, cells in columns.items() if any(isinstance(cell, str) for cell in cells)}

    def labels() -> Labels:
        return replace(from_columns(texts, count, classes), captions=captions_of(raw))  # as they are, not printable

    def file(i: int) -> Blob:
        try:
            value = cell(i)
        except (OSError, ValueError, ArithmeticError) as error:
            raise Unreadable(f"damaged: {printable(str(error))[:80]}") from None
        data = value.get("bytes") if isinstance(value, Mapping) else value
        if not isinstance(data, bytes):
            raise Unreadable("the row holds no bytes of a picture")
        if len(data) > MAX_FILE:
            raise Unreadable(f"too large: more than {MAX_FILE:,} bytes")
        return Blob(data)

    return FileSource(name, count, lambda i: f"{name}[{i}]", file, key, labels, None, True, layout)


def parquet_source(paths: Sequence[Path], name: str | None = None) -> FileSource:
    """Return a source of the pictures in Parquet files, all with the same columns, called like the first by default.
    Raises `UserError` where pyarrow is missing, or a file can't be read or has no column of pictures."""
    shown = printable(str(paths[0]))
    try:
        parquet = import_module("pyarrow.parquet")
    except ImportError:
        raise UserError(f"'{shown}' needs pyarrow: pip install 'sfumato[parquet]'") from None
    try:
        rows = _Rows(parquet, [path.resolve() for path in paths], shown)
    except UserError:
        raise
    except (OSError, ValueError, KeyError, NotImplementedError) as error:
        raise UserError(f"'{shown}' can't be read as Parquet: {printable(str(error))[:120]}") from None
    own = name or printable(str(rows.paths[0]))
    return _source(own, int(rows.ends[-1]), hashed(state_of(rows.paths)), rows, rows.columns, rows.classes, rows.layout)


class _Rows:
    """The rows of Parquet files; the group of rows last read is kept."""

    def __init__(self, parquet: Any, paths: Sequence[Path], shown: str) -> None:
        self.parquet, self.paths = parquet, paths
        files = [parquet.ParquetFile(path) for path in paths]
        schema = files[0].schema_arrow
        self.pictures = _picture_column({field.name: _is_picture(field.type) for field in schema}, shown)
        self.groups = [(f, g) for f, file in enumerate(files) for g in range(file.num_row_groups)]
        groups = [files[f].metadata.row_group(g) for f, g in self.groups]
        if any(
            sum(group.column(k).total_uncompressed_size for k in range(group.num_columns)) > _MOST_GROUP
            for group in groups
        ):
            raise UserError(f"'{shown}' has a group of rows of more than {_MOST_GROUP:,} bytes: write smaller groups")
        self.ends = np.cumsum([group.num_rows for group in groups] or [0])
        plain = [field.name for field in schema if _is_plain(field.type)]
        tables = [file.read(columns=plain).to_pydict() for file in files]
        self.layout = layout_of_parts(
            {path.name: file.metadata.num_rows for path, file in zip(paths, files, strict=True)}
        )
        self.columns = {name: [cell for table in tables for cell in table[name]] for name in plain}
        self.classes = _class_names(schema.metadata)
        self.held: tuple[int, int, Any] = (0, -1, None)

    def __call__(self, i: int) -> Any:
        """Cell i of the column of pictures."""
        group = int(np.searchsorted(self.ends, i, side="right"))
        if self.held[:2] != (os.getpid(), group):
            f, g = self.groups[group]
            table = self.parquet.ParquetFile(self.paths[f]).read_row_group(g, columns=[self.pictures])
            self.held = (os.getpid(), group, table.column(0))
        return self.held[2][i - (int(self.ends[group - 1]) if group else 0)].as_py()


def from_huggingface(dataset: Any, name: str = "dataset", key: str | None = None) -> FileSource:
    """Return a source of the pictures in a `datasets.Dataset`.

    Args:
        dataset: one split, with a column of images or of their bytes.
        name: the source's.
        key: a text that changes when the contents do; None is the data set's fingerprint.

    Raises:
        UserError: it is several splits, a stream, or has no column of pictures.
    """
    features = getattr(dataset, "features", None)
    if features is None or not hasattr(dataset, "select_columns"):
        raise UserError(f"'{name}' is not a single split of a data set: choose one, such as dataset['train']")
    kinds = {column: type(feature).__name__ for column, feature in features.items()}
    image = _picture_column({column: kind == "Image" for column, kind in kinds.items()}, name)
    with suppress(ImportError):  # without the library it is another class with the same interface
        dataset = dataset.cast_column(image, import_module("datasets").Image(decode=False))
    plain = [column for column, feature in features.items() if _is_scalar(feature)]
    classes = {column: list(features[column].names) for column in plain if kinds[column] == "ClassLabel"}
    own = key or str(getattr(dataset, "_fingerprint", ""))
    if not own:
        raise UserError(f"'{name}' has no fingerprint: give a key that changes when its contents do")
    pictures = dataset.select_columns([image])
    columns = {column: list(dataset[column]) for column in plain}
    return _source(name, len(dataset), own, lambda i: pictures[i][image], columns, classes)


def open_huggingface(name: str) -> FileSource:
    """Return a source of a data set of the hub or on the disk, by `hf:NAME` or `hf:NAME:SPLIT`; raises `UserError`
    where `datasets` is missing, or there is no such data set, or it can't be reached."""
    _, own, split = [*name.split(":", 2), "train"][:3]
    shown = printable(name)
    try:
        datasets = import_module("datasets")
    except ImportError:
        raise UserError(f"'{shown}' needs datasets: pip install 'sfumato[datasets]'") from None
    try:
        dataset = datasets.load_dataset(own, split=split or "train")
    except Exception as error:  # errors of the network, the hub or the files
        reason = printable(str(error).split("\n")[0])[:120] or type(error).__name__
        raise UserError(f"'{shown}' can't be loaded: {reason}") from None
    if not isinstance(dataset, datasets.Dataset):
        raise UserError(f"'{shown}' is not a single split: name one, such as {shown}:train")
    return from_huggingface(dataset, shown)


def _picture_column(columns: Mapping[str, bool], where: str) -> str:
    """The name of the column of pictures: one called so, else the first."""
    pictures = [name for name, picture in columns.items() if picture]
    if not pictures:
        raise UserError(f"'{where}' has no column of pictures: it has {', '.join(columns)}")
    return next((name for name in _NAMED if name in pictures), pictures[0])


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
    kind, dtype = type(feature).__name__, str(getattr(feature, "dtype", ""))
    return kind == "ClassLabel" or (kind == "Value" and (_is_plain(dtype) or dtype in ("float32", "float64")))


def _class_names(metadata: Mapping[bytes, bytes] | None) -> dict[str, list[str]]:
    """The names of integers, where the `datasets` library wrote the file."""
    try:
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
        named = {key: value["names"] for key, value in features.items() if value.get("_type") == "ClassLabel"}
        return {str(key): [str(name) for name in names] for key, names in named.items()}
    except (KeyError, ValueError, TypeError, AttributeError):
        return {}


def _text(value: Any) -> str | None:
    if value is None or value == "" or value != value:
        return None
    return ("no", "yes")[value] if isinstance(value, bool) else printable(str(value))
