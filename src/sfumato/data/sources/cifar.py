"""CIFAR-10 and CIFAR-100 as published (Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images").

    binary     data_batch_1.bin ... test_batch.bin, batches.meta.txt      a record: label, 3072 bytes
               train.bin, test.bin, fine_label_names.txt, coarse_...      a record: coarse label, fine label, 3072 bytes
    "python"   data_batch_1 ... test_batch, batches.meta; train, test, meta: pickles, read without running them

The 3072 bytes are (3, 32, 32). A folder is its training images; a binary file given by path is that file. Labels are
the attribute `class`, in CIFAR-100 the fine label, and `superclass` the coarse one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sfumato.conditions.attributes import Attribute
from sfumato.data.formats.plain_pickle import read_guarded
from sfumato.data.sources.files import state_of
from sfumato.data.sources.protocol import Arrays, ArraySource, Pixels, printable
from sfumato.errors import UserError

__all__ = ["cifar_source", "find_cifar"]

_BATCH = re.compile(r"(data_batch_\d+|test_batch|train|test)\.bin")
_PIXELS = 3 * 32 * 32
_NAMES = {  # the attribute: its names in the binary version, in the pickles, and of its labels in the pickles
    10: {"class": ("batches.meta.txt", "label_names", "labels")},
    100: {
        "superclass": ("coarse_label_names.txt", "coarse_label_names", "coarse_labels"),
        "class": ("fine_label_names.txt", "fine_label_names", "fine_labels"),
    },
}


def find_cifar(path: Path) -> list[Path]:
    """Return the files of a path that is CIFAR's: a folder's training batches, or a binary batch; else none."""
    if path.is_file():
        return [path] if _BATCH.fullmatch(path.name) else []
    ten = [f"data_batch_{k}" for k in range(1, 10)]
    batches = _there(path, [f"{name}.bin" for name in ten]) or _there(path, ["train.bin"])
    if not batches and _there(path, ["batches.meta"]):
        batches = _there(path, ten)
    if not batches and len(_there(path, ["meta", "train", "test"])) == 3:
        batches = [path / "train"]
    return batches


def _there(folder: Path, names: Sequence[str]) -> list[Path]:
    """Those of the names that are files in a folder."""
    return [folder / name for name in names if (folder / name).is_file()]


def cifar_source(path: Path, batches: Sequence[Path]) -> ArraySource:
    """Return a source of the images in batches.

    Args:
        path: what the user gave.
        batches: what `find_cifar` found there.
    """
    folder = path if path.is_dir() else path.parent
    classes = 100 if batches[0].name.removesuffix(".bin") in ("train", "test") else 10
    load = _binary if batches[0].suffix == ".bin" else _pickled
    return ArraySource(printable(str(path.resolve())), state_of(batches), lambda: load(folder, batches, classes))


def _binary(folder: Path, batches: Sequence[Path], classes: int) -> Arrays:
    """Read binary batches."""
    names = {key: folder / files[0] for key, files in _NAMES[classes].items()}
    length, records = _PIXELS + len(names), []
    for batch in batches:
        data = np.fromfile(batch, np.uint8)
        if not data.size or data.size % length:
            raise UserError(f"'{printable(str(batch))}' is no batch of CIFAR-{classes}: records have {length} bytes")
        records.append(data.reshape(-1, length))
    table = np.concatenate(records)
    texts = {key: file.read_text("utf-8", "replace").split() if file.is_file() else [] for key, file in names.items()}
    return _arrays(table[:, len(names) :], {key: table[:, k] for k, key in enumerate(names)}, texts, folder)


def _pickled(folder: Path, batches: Sequence[Path], classes: int) -> Arrays:
    """Read batches that are pickles."""
    meta, *tables = read_guarded([folder / ("batches.meta" if classes == 10 else "meta"), *batches])
    try:
        images = np.concatenate([table["data"] for table in tables])
        labels = {key: np.concatenate([table[own] for table in tables]) for key, (_, _, own) in _NAMES[classes].items()}
        names = {key: [str(name) for name in meta[own]] for key, (_, own, _) in _NAMES[classes].items()}
    except (KeyError, ValueError):
        raise UserError(
            f"'{printable(str(batches[0]))}' holds no images and labels as CIFAR-{classes} has them"
        ) from None
    return _arrays(images, labels, names, folder)


def _arrays(
    images: Pixels, labels: dict[str, NDArray[np.integer]], names: dict[str, list[str]], folder: Path
) -> Arrays:
    """Images (N, 3072) and their labels, held to one another."""
    shown, columns, attributes = printable(str(folder)), [], []
    if images.ndim != 2 or images.shape[1] != _PIXELS:
        raise UserError(f"the batches in '{shown}' are no images of 3x32x32")
    for key, own in labels.items():
        texts = names[key] or [str(k) for k in range(int(own.max()) + 1)]
        if own.shape != images.shape[:1] or own.min() < 0 or own.max() >= len(texts):
            raise UserError(f"the batches in '{shown}' have labels beyond the {len(texts)} names of {key}")
        attributes.append(Attribute(key, tuple(printable(text) for text in texts)))
        columns.append(own.astype(np.float32))
    pixels = np.ascontiguousarray(images.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
    return Arrays(pixels, np.stack(columns, 1), tuple(attributes))
