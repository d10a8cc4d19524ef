"""Which arrays in an .npz are images, which are their labels, and which parts of a collection they are.

    images, labels, classes                            what `sfumato sample` writes
    x_train, y_train, x_test, y_test                   Keras
    train_images, train_labels, val_images, ...        MedMNIST
    imgs, X and y, data and target, a single array     others

Arrays of parts are taken one after another, those to train on first. An array that is not needed is not read, so it may
be one of objects.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfumato.data.formats.npy import check_length
from sfumato.data.sources.layout import kind_of, layout_of_parts, part_of, parts_of
from sfumato.data.sources.protocol import Layout

_IMAGES = ("images", "image", "imgs", "img", "x", "data", "pixels", "pictures", "arr")
_LABELS = ("labels", "label", "y", "targets", "target", "class")
_CLASSES = ("classes", "class_names", "label_names", "classnames")


@dataclass(frozen=True)
class Members:
    """The names of the arrays: images, for each its labels or None, and the names of the classes or None."""

    images: tuple[str, ...]
    labels: tuple[str | None, ...]
    classes: str | None


def find_members(path: Path) -> Members:
    """Choose the arrays of an .npz; raises ValueError where none is called as images are, and what reading raises."""
    with zipfile.ZipFile(path) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist()]
    images = ["images"] if "images" in names else _images(names)
    if not images:
        raise ValueError(
            f"it holds {', '.join(names[:6])}, and no array 'images', 'x_train', 'train_images' or such: call it so"
        )
    labels = [next(_labels_of(image, names), None) for image in images]
    return Members(tuple(images), tuple(labels), next((name for name in _CLASSES if name in names), None))


def layout_of_npz(path: Path) -> Layout:
    """Return the layout of the images, by the arrays' names; raises as `find_members`."""
    members = find_members(path)
    with zipfile.ZipFile(path) as archive:
        return layout_of_parts({name: _shape(archive, name)[0] for name in members.images})


def read_members(path: Path) -> tuple[list[NDArray[Any]], list[NDArray[Any] | None], NDArray[Any] | None]:
    """Return the arrays of images, of each the labels or None, and the names of the classes or None.

    Raises:
        ValueError: an array of objects, larger than its file, or of a number; and what reading raises.
    """
    members = find_members(path)
    wanted = {*members.images, *members.labels, members.classes} - {None}
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if info.filename.removesuffix(".npy") in wanted:
                with archive.open(info) as member:
                    check_length(member, info.file_size)
    with np.load(path, allow_pickle=False) as arrays:
        labels = [None if name is None else arrays[name] for name in members.labels]
        classes = None if members.classes is None else arrays[members.classes]
        return [arrays[name] for name in members.images], labels, classes


def _images(names: Sequence[str]) -> list[str]:
    """The arrays of images, those to train on first."""
    if len(names) == 1:
        return list(names)
    for kind in _IMAGES:
        if chosen := [name for name in names if kind_of(name) == kind]:
            parts = parts_of(chosen)
            return sorted(parts, key=lambda name: (parts[name][0], chosen.index(name))) or chosen[:1]
    return []


def _labels_of(image: str, names: Sequence[str]) -> Any:
    """Yield the arrays of labels of an array of images, the likeliest first."""
    for kind in _LABELS:
        yield from (name for name in names if kind_of(name) == kind and part_of(name) == part_of(image))
    if re.fullmatch(r"arr_\d", image):  # numpy.savez(file, x, y)
        yield from (name for name in names if name == "arr_1")


def _shape(archive: zipfile.ZipFile, name: str) -> tuple[int, ...]:
    with archive.open(f"{name}.npy") as member:
        version = np.lib.format.read_magic(member)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape: tuple[int, ...] = read(member)[0]
        return shape or (0,)
