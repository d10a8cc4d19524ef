"""Sources of arrays: numpy files, arrays and tensors in memory, a torch `Dataset`.

    a .npy or .npz      all pictures: (N, H, W) or (N, H, W, C) or (N, C, H, W); in an .npz the array `images`, or the
                        arrays `npz` finds. It may also hold `labels` (N,) or (N, 1), integers or text, which are the
                        attribute `class`; with `classes` (K,), text, integers are indices of it. A row of K labels
                        of 0 and 1 is the class where it has a single 1, else K attributes of no and yes
    from_arrays         data = open_data(DataConfig(size=(32, 32)), source=from_arrays(images, labels, ("cat", "dog")))
    from_dataset        data = open_data(DataConfig(), source=from_dataset(torchvision_dataset))

Arrays in memory are stored like any other source, so they need a key: a hash of the contents, unless the caller gives a
better one. Items of a `Dataset` are read once for that and once to be stored; a `Dataset` with random transforms makes
a new store each time, so leave these out.
"""

from __future__ import annotations

import hashlib
import math
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfumato.conditions.attributes import Attribute
from sfumato.data.formats.npy import as_pixels, channels_last, mapped, too_large
from sfumato.data.labels import column, in_order
from sfumato.data.sources.files import state_of
from sfumato.data.sources.npz import layout_of_npz, read_members
from sfumato.data.sources.protocol import Block, Labels, Layout, Picture, Pixels, Unreadable, printable
from sfumato.errors import UserError

BLOCK_BYTES = 2**19
"""The most bytes of pictures that are read at once."""
_IMAGES, _LABELS = ("image", "img", "pixel_values", "x"), ("label", "labels", "class", "y")


@dataclass(frozen=True)
class Arrays:
    """What an `ArraySource` loads: images (N, H, W, C) of any numbers, and their labels."""

    images: Any
    labels: Labels


class ArraySource:
    """Pictures that are arrays, loaded on first use; the key may be a function that returns it, as is the layout."""

    def __init__(
        self,
        name: str,
        key: str | Callable[[], str],
        load: Callable[[], Arrays],
        layout: Callable[[], Layout] = Layout,
    ) -> None:
        self.name = name
        self._key, self._load, self._layout = key, load, layout

    @cached_property
    def arrays(self) -> Arrays:
        """The arrays; raises what `load` raises."""
        return self._load()

    @cached_property
    def layout(self) -> Layout:
        """Which pictures are held out."""
        return self._layout()

    @property
    def attributes(self) -> tuple[Attribute, ...]:
        """The attributes of the pictures."""
        return self.arrays.labels.attributes

    def __len__(self) -> int:
        return len(self.arrays.images)

    def origin(self, i: int) -> str:
        """Return the name and the number."""
        return f"{self.name}[{i}]"

    def size(self, i: int) -> tuple[int, int]:
        """Return (height, width) of picture i; raises `Unreadable`."""
        height, width, _ = self.arrays.images[i].shape
        return height, width

    def read(self, i: int) -> Picture:
        """Return picture i; raises `Unreadable`."""
        return Picture(as_pixels(self.arrays.images[i]), self.arrays.labels[i][0])

    @cached_property
    def together(self) -> int:
        """How many pictures `block` is to read, 1 where they don't come in one array."""
        images = self.arrays.images
        return max(1, BLOCK_BYTES // images[0].nbytes) if isinstance(images, np.ndarray) else 1

    def block(self, first: int, count: int) -> Block:
        """Return so many pictures from `first` on; raises `Unreadable` where one of them is."""
        which = slice(first, first + count)
        return Block(as_pixels(self.arrays.images[which]), self.arrays.labels.conditions[which])

    def key(self) -> str:
        """Return a text that changes when the contents do."""
        return self._key if isinstance(self._key, str) else self._key()


# Files


def is_array_file(path: Path) -> bool:
    """Return whether a file's name is one of arrays."""
    return path.suffix.lower() in (".npy", ".npz")


def array_source(path: Path) -> ArraySource:
    """Return a source of the pictures in one .npy or .npz, which is read on first use."""
    return ArraySource(printable(str(path.resolve())), state_of([path]), lambda: _load(path), lambda: _layout(path))


def _layout(path: Path) -> Layout:
    with _faults(path):
        return layout_of_npz(path) if zipfile.is_zipfile(path) else Layout()


@contextmanager
def _faults(path: Path) -> Iterator[None]:
    """Turn errors of reading arrays into one line."""
    shown = printable(str(path))
    try:
        yield
    except Unreadable as fault:
        raise UserError(f"'{shown}' can't be read as an array: {fault.reason}") from None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, RuntimeError) as error:
        reason = printable(str(error))[:100]
        raise UserError(f"'{shown}' can't be read as arrays ({reason}): write it with numpy.save or savez") from None


def _load(path: Path) -> Arrays:
    shown = printable(str(path))
    with _faults(path):
        parts, labels, classes = read_members(path) if zipfile.is_zipfile(path) else ([mapped(path)], [None], None)
    parts = [_images(np.asarray(part), shown) for part in parts]  # views of a map take long to make
    if len({(part.shape[1:], part.dtype) for part in parts}) > 1:
        shapes = ", ".join(f"{'x'.join(map(str, part.shape))} {part.dtype}" for part in parts)
        raise UserError(f"'{shown}' holds parts that don't fit together ({shapes}): write them alike")
    images = parts[0] if len(parts) == 1 else np.concatenate(parts)
    given = np.repeat([own is not None for own in labels], list(map(len, parts)))
    known = [(len(part), own) for part, own in zip(parts, labels, strict=True) if own is not None]
    found = _class_labels(known, classes, shown) if known else Labels.none(0)
    table = np.full((len(images), len(found.attributes)), np.nan, np.float32)
    table[given] = found.conditions
    return Arrays(images, Labels(found.attributes, table))


def _images(array: NDArray[Any], shown: str) -> NDArray[Any]:
    """An array as pictures (N, H, W, C)."""
    if array.ndim not in (3, 4) or not array.size:
        shape = "x".join(map(str, array.shape))
        hint = "; signals of length L are number x 1 x L" if array.ndim == 2 else ""
        raise UserError(f"'{shown}' holds an array of {shape}: images are number x height x width (x channels){hint}")
    images = channels_last(array if array.ndim == 4 else array[..., None])
    if too_large(images.shape[1:]):
        raise UserError(f"'{shown}' holds images of {'x'.join(map(str, images.shape[1:]))}, which are too large")
    return images


def _class_labels(parts: Sequence[tuple[int, NDArray[Any]]], classes: NDArray[Any] | None, shown: str) -> Labels:
    """The labels of pictures in parts: how many pictures, and their labels."""
    labels = [own[:, 0] if own.ndim == 2 and own.shape[1] == 1 else own for _, own in parts]
    count, shapes = sum(count for count, _ in parts), {own.shape[1:] for own in labels}
    fault = f"the labels in '{shown}' must be one integer or text for each of {count:,} images"
    if any(own.shape[:1] != (count,) for count, own in parts) or len(shapes) > 1 or labels[0].ndim > 2:
        raise UserError(fault)
    joined = np.concatenate(labels)
    if joined.ndim == 2:
        return _rows_of_labels(joined, fault)
    if joined.dtype.kind == "S":
        joined = np.char.decode(joined, "utf-8", "replace")
    if joined.dtype.kind == "b" or (joined.dtype.kind == "f" and (joined == np.rint(joined)).all()):
        joined = joined.astype(np.int64)
    if joined.dtype.kind not in "iuU":
        raise UserError(fault)
    if classes is None or joined.dtype.kind == "U":
        names = in_order(map(str, np.unique(joined).tolist()))
        code = {name: k for k, name in enumerate(names)}
        joined = np.array([code[str(label)] for label in joined.tolist()])
    elif joined.min() < 0 or joined.max() >= len(classes):
        raise UserError(f"'{shown}' has labels beyond its {len(classes)} classes: count them from 0")
    else:
        names = list(map(str, classes))
    if len(names) < 2:
        return Labels.none(len(joined))
    return Labels.of_classes(list(map(printable, names)), joined)


def _rows_of_labels(table: NDArray[Any], fault: str) -> Labels:
    """Labels (N, K) of 0 and 1: the class where each row has a single 1, else an attribute for each column."""
    if table.dtype.kind not in "biuf" or not np.isin(table, (0, 1)).all():
        raise UserError(fault)
    if (table.sum(1) == 1).all():
        return Labels.of_classes([str(k) for k in range(table.shape[1])], table.argmax(1))
    attributes = tuple(Attribute(f"label{k}", ("no", "yes")) for k in range(table.shape[1]))
    return Labels(attributes, table.astype(np.float32))


# Memory


def from_arrays(
    images: Any,
    labels: Any = None,
    classes: Sequence[str] | None = None,
    attributes: tuple[Attribute, ...] = (),
    name: str = "arrays",
) -> ArraySource:
    """Return a source of pictures in an array or a tensor.

    Args:
        images: (N, H, W, C) or (N, H, W), numpy; (N, C, H, W) or (N, H, W), torch. Bytes, 16-bit or floats.
        labels: (N,) indices of `classes`, any integers or texts where it is None; or (N, A) float32 with `attributes`.
        classes: the names of the classes.
        attributes: of the columns of (N, A) labels.
        name: the source's; a second source of one name takes the place of the first in the cache.

    Raises:
        UserError: shapes that don't fit together.
    """
    pixels = _all_pixels(images)
    checked = _given_labels(labels, classes, attributes, len(pixels))
    digest = hashlib.sha256(repr((pixels.shape, str(pixels.dtype), checked.attributes)).encode())
    for array in (pixels, checked.conditions):
        digest.update(np.ascontiguousarray(array).data)
    return ArraySource(name, digest.hexdigest(), lambda: Arrays(pixels, checked))


def _all_pixels(images: Any) -> Pixels:
    """(N, H, W, C) pixels of an array or a tensor."""
    array = _numpy(images)
    if array.ndim not in (3, 4) or not array.size:
        raise UserError(f"images of shape {array.shape}: give (N, H, W, C), of a tensor (N, C, H, W), or (N, H, W)")
    if array.ndim == 3:
        array = array[..., None]
    elif hasattr(images, "detach"):
        array = array.transpose(0, 2, 3, 1)
    try:
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise Unreadable("floating-point values that are not finite numbers")
        return as_pixels(array)
    except Unreadable as fault:
        raise UserError(f"the images can't be used: {fault.reason}") from None


def _given_labels(labels: Any, classes: Sequence[str] | None, attributes: tuple[Attribute, ...], count: int) -> Labels:
    """The labels that a caller gives."""
    if labels is None:
        return Labels.none(count)
    table = _numpy(labels)
    if table.shape != ((count, len(attributes)) if attributes else (count,)):
        raise UserError(f"labels of shape {table.shape} for {count:,} images and {len(attributes)} attributes")
    if attributes:
        return Labels(attributes, table.astype(np.float32))
    if classes is None:
        attribute, values = column("class", [str(label) for label in table.tolist()])
        return Labels((attribute,), values[:, None])
    if table.dtype.kind not in "iu" or table.min() < 0 or table.max() >= len(classes):
        raise UserError(f"labels must be indices of the {len(classes)} classes, counted from 0")
    return Labels.of_classes(classes, table)


def from_dataset(
    dataset: Any, classes: Sequence[str] | None = None, name: str = "dataset", key: str | None = None
) -> ArraySource:
    """Return a source of a torch `Dataset`'s pictures.

    Args:
        dataset: has a length, and items by number: a picture (PIL, tensor (C, H, W), array (H, W, C)), a tuple of one
            and its label, or a mapping with `image` and `label`.
        classes: the names of integer labels; None takes `dataset.classes`, else the numbers.
        name: the source's; a second source of one name takes the place of the first in the cache.
        key: what changes when the contents do; None reads every item to know.

    Raises:
        UserError: it has no length, or no items.
    """
    try:
        count = len(dataset)
    except TypeError:
        raise UserError("the dataset has no length: give one with __len__ and __getitem__") from None
    if not count:
        raise UserError("the dataset is empty")
    items, classes = _Items(dataset), classes or getattr(dataset, "classes", None)
    scanned = cache(lambda: _scanned(items, classes))
    return ArraySource(name, lambda: key or scanned()[0], lambda: Arrays(items, _item_labels(scanned()[1], classes)))


class _Items:
    """The pictures of a torch `Dataset` as arrays."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, i: int) -> Pixels:
        return _picture(self.item(i)[0])

    def item(self, i: int) -> tuple[Any, Any]:
        """Item i: its picture and its label, None where there is none; raises `Unreadable`."""
        try:
            item = self.dataset[i]
        except Exception as error:  # foreign code
            raise Unreadable(f"the dataset's own {type(error).__name__}: {printable(str(error))[:80]}") from None
        if isinstance(item, Mapping):
            image, label = (next((item[key] for key in keys if key in item), None) for keys in (_IMAGES, _LABELS))
            return image, label
        if isinstance(item, tuple | list):
            return item[0], item[1] if len(item) > 1 else None
        return item, None


def _scanned(items: _Items, classes: Sequence[str] | None) -> tuple[str, list[Any]]:
    """A hash of every item, and their labels."""
    digest, labels = hashlib.sha256(repr(classes).encode()), []
    for i in range(len(items)):
        label = None
        try:
            image, label = items.item(i)
            pixels = _picture(image)
            digest.update(repr((pixels.shape, str(pixels.dtype), label)).encode() + pixels.tobytes())
        except Unreadable as fault:
            digest.update(fault.reason.encode())
        labels.append(label)
    return digest.hexdigest(), labels


def _item_labels(labels: list[Any], classes: Sequence[str] | None) -> Labels:
    if all(label is None for label in labels):
        return Labels.none(len(labels))
    plain = [label.item() if hasattr(label, "item") else label for label in labels]
    if classes is None:
        attribute, values = column("class", [None if label is None else str(label) for label in plain])
        return Labels((attribute,), values[:, None])
    names = [str(name) for name in classes]
    indices = {name: k for k, name in enumerate(names)}
    codes = [label if isinstance(label, int) else indices.get(str(label), -1) for label in plain]
    return Labels.of_classes(names, np.array([k if 0 <= k < len(names) else math.nan for k in codes]))


def _picture(image: Any) -> Pixels:
    """(H, W, C) pixels of a picture of any kind; raises `Unreadable`."""
    if hasattr(image, "getbands"):
        array = np.asarray(image.convert("RGB" if image.mode not in ("1", "L", "I;16", "I", "F") else image.mode))
    elif hasattr(image, "detach") or isinstance(image, np.ndarray):
        array = _numpy(image)
    else:
        raise Unreadable(f"an item of type {type(image).__name__} is not a picture")
    if array.ndim == 2:
        array = array[..., None]
    elif array.ndim == 3 and hasattr(image, "detach"):
        array = array.transpose(1, 2, 0)
    if array.ndim != 3 or not array.size:
        raise Unreadable(f"an array of shape {array.shape} is not a picture")
    return as_pixels(array)


def _numpy(values: Any) -> NDArray[Any]:
    return np.asarray(values.detach().cpu().numpy() if hasattr(values, "detach") else values)
