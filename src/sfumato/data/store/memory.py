"""Pictures that a program already has: arrays, tensors, a torch `Dataset`.

    data = open_data(DataConfig(size=(32, 32)), source=from_arrays(images, labels, ("cat", "dog")))
    data = open_data(DataConfig(), source=from_dataset(torchvision_dataset))

They are stored like any others, so their contents must be known by a key: a hash of all of it, unless the caller has a
better one. Items of a `Dataset` are read once for that and once to be stored, and one that draws them anew each time (a
random crop) makes a store each time: leave such transforms out.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfumato.conditions.attributes import Attribute
from sfumato.data.labels import column
from sfumato.data.sources.arrays import as_pixels
from sfumato.data.sources.protocol import Arrays, ArraySource, Picture, Pixels, Unreadable, printable
from sfumato.errors import UserError

__all__ = ["DatasetSource", "from_arrays", "from_dataset"]

_IMAGES, _LABELS = ("image", "img", "pixel_values", "x"), ("label", "labels", "class", "y")


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
        labels: (N,) places in `classes`, any integers or texts where it is None; or (N, A) float32 with `attributes`.
        classes: the names of the classes.
        attributes: what the columns of (N, A) labels are.
        name: the source's; a second source of one name takes the place of the first in the cache.

    Raises:
        UserError: shapes that don't fit one another.
    """
    pixels = _batch(images)
    known = _known(labels, classes, attributes, len(pixels))
    digest = hashlib.sha256(repr((pixels.shape, str(pixels.dtype), known[1])).encode())
    digest.update(np.ascontiguousarray(pixels).tobytes() + known[0].tobytes())
    return ArraySource(name, digest.hexdigest(), lambda: Arrays(pixels, *known))


def from_dataset(
    dataset: Any, classes: Sequence[str] | None = None, name: str = "dataset", key: str | None = None
) -> DatasetSource:
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
        raise UserError("the dataset has no length: give one whose items are asked for by number") from None
    if not count:
        raise UserError("the dataset is empty")
    return DatasetSource(dataset, classes or getattr(dataset, "classes", None), name, key)


class DatasetSource:
    """The pictures of a torch `Dataset`, as a `Source`; made by `from_dataset`."""

    def __init__(self, dataset: Any, classes: Sequence[str] | None, name: str, key: str | None) -> None:
        self.name = name
        self._dataset, self._classes, self._key = dataset, classes, key

    def __len__(self) -> int:
        return len(self._dataset)

    def origin(self, i: int) -> str:
        """Return the name and the number."""
        return f"{self.name}[{i}]"

    def size(self, i: int) -> tuple[int, int]:
        """Return (height, width) of picture i; raises `Unreadable`."""
        height, width, _ = self.read(i).pixels.shape
        return height, width

    def read(self, i: int) -> Picture:
        """Return picture i; raises `Unreadable`."""
        return Picture(_picture(self._item(i)[0]), tuple(self._known[1][i].tolist()))

    def key(self) -> str:
        """Return the given key, or a hash of every item."""
        return self._key or self._seen[0]

    @property
    def attributes(self) -> tuple[Attribute, ...]:
        """The class, where items have labels."""
        return self._known[0]

    @cached_property
    def _seen(self) -> tuple[str, list[Any]]:
        """A hash of every item, and their labels."""
        digest, labels = hashlib.sha256(repr(self._classes).encode()), []
        for i in range(len(self)):
            image, label = None, None
            try:
                image, label = self._item(i)
                pixels = _picture(image)
                digest.update(repr((pixels.shape, str(pixels.dtype), label)).encode() + pixels.tobytes())
            except Unreadable as fault:
                digest.update(fault.reason.encode())
            labels.append(label)
        return digest.hexdigest(), labels

    @cached_property
    def _known(self) -> tuple[tuple[Attribute, ...], NDArray[np.float32]]:
        """The attribute, and (N, A) numbers."""
        labels = self._seen[1]
        if all(label is None for label in labels):
            return (), np.zeros((len(labels), 0), np.float32)
        names = None if self._classes is None else [str(name) for name in self._classes]
        cells = [_cell(label, names) for label in labels]
        if names is None:
            attribute, values = column("class", cells)
            return (attribute,), values[:, None]
        places = {name: float(place) for place, name in enumerate(names)}
        values = np.array([math.nan if cell is None else places.get(cell, math.nan) for cell in cells], np.float32)
        return (Attribute("class", tuple(names)),), values[:, None]

    def _item(self, i: int) -> tuple[Any, Any]:
        """Item i: its picture and its label, None where there is none; raises `Unreadable`."""
        try:
            item = self._dataset[i]
        except Exception as error:  # a stranger's code
            raise Unreadable(f"the dataset's own {type(error).__name__}: {printable(str(error))[:80]}") from None
        if isinstance(item, Mapping):
            image = next((item[name] for name in _IMAGES if name in item), None)
            return image, next((item[name] for name in _LABELS if name in item), None)
        if isinstance(item, tuple | list):
            return item[0], item[1] if len(item) > 1 else None
        return item, None


def _batch(images: Any) -> Pixels:
    """(N, H, W, C) pixels of an array or a tensor."""
    tensor = hasattr(images, "detach")
    array = np.asarray(images.detach().cpu().numpy() if tensor else images)
    if array.ndim not in (3, 4) or not array.size:
        raise UserError(f"images of shape {array.shape}: give (N, H, W, C), of a tensor (N, C, H, W), or (N, H, W)")
    if array.ndim == 3:
        array = array[..., None]
    elif tensor:
        array = array.transpose(0, 2, 3, 1)
    try:
        return as_pixels(array)
    except Unreadable as fault:
        raise UserError(f"the images can't be used: {fault.reason}") from None


def _known(
    labels: Any, classes: Sequence[str] | None, attributes: tuple[Attribute, ...], count: int
) -> tuple[NDArray[np.float32], tuple[Attribute, ...]]:
    """What is known of pictures: (N, A), and the attributes."""
    if labels is None:
        return np.zeros((count, 0), np.float32), ()
    table = np.asarray(labels.detach().cpu().numpy() if hasattr(labels, "detach") else labels)
    if table.shape != ((count, len(attributes)) if attributes else (count,)):
        raise UserError(f"labels of shape {table.shape} for {count:,} images and {len(attributes)} attributes")
    if attributes:
        return table.astype(np.float32), attributes
    if classes is None:
        attribute, values = column("class", [str(label) for label in table.tolist()])
        return values[:, None], (attribute,)
    if table.dtype.kind not in "iu" or table.min() < 0 or table.max() >= len(classes):
        raise UserError(f"labels must be places in the {len(classes)} classes, counted from 0")
    return table.astype(np.float32)[:, None], (Attribute("class", tuple(classes)),)


def _picture(image: Any) -> Pixels:
    """(H, W, C) pixels of a picture of any kind; raises `Unreadable`."""
    if hasattr(image, "detach"):
        array = image.detach().cpu().numpy()
        array = array.transpose(1, 2, 0) if array.ndim == 3 else array[..., None]
    elif hasattr(image, "getbands"):
        array = np.asarray(image.convert("RGB" if image.mode not in ("1", "L", "I;16", "I", "F") else image.mode))
        array = array if array.ndim == 3 else array[..., None]
    elif isinstance(image, np.ndarray):
        array = image if image.ndim == 3 else image[..., None]
    else:
        raise Unreadable(f"an item of type {type(image).__name__} is no picture")
    if array.ndim != 3 or not array.size:
        raise Unreadable(f"an array of shape {array.shape} is no picture")
    return as_pixels(array)


def _cell(label: Any, names: Sequence[str] | None) -> str | None:
    """A label as text: of an integer its name."""
    if label is None:
        return None
    plain = label.item() if hasattr(label, "item") else label
    if names is not None and isinstance(plain, int):
        return names[plain] if 0 <= plain < len(names) else None
    return str(plain)
