"""CelebA's folder as published (Liu et al. 2015, "Deep Learning Face Attributes in the Wild"): pictures and lists.

    img_align_celeba/000001.jpg ...        beside it, or in `Anno` and `Eval`:
    list_attr_celeba.txt                   40 attributes, yes or no (`labels` reads it)
    list_eval_partition.txt                a line a picture: 0 to train, 1 to validate, 2 to test

The source is the pictures that train, where the second list is there; the folder of pictures itself is all of them.
"""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path

from sfumato.conditions.attributes import Attribute
from sfumato.data.labels import Labels, read_labels
from sfumato.data.sources.files import state_of
from sfumato.data.sources.folder import FolderSource
from sfumato.data.sources.protocol import printable
from sfumato.errors import UserError

__all__ = ["CelebaSource", "find_celeba"]

_PICTURES, _LIST, _PARTITION = "img_align_celeba", "list_attr_celeba.txt", "list_eval_partition.txt"


def find_celeba(folder: Path) -> tuple[Path, Path, Path | None] | None:
    """Return a folder's pictures, list of attributes and list of parts (None where it has none), if it is CelebA's."""
    places = [folder, folder / "Anno", folder / "Eval"]
    lists = [path for path in (place / _LIST for place in places) if path.is_file()]
    parts = [path for path in (place / _PARTITION for place in places) if path.is_file()]
    if not lists or not (folder / _PICTURES).is_dir():
        return None
    return folder / _PICTURES, lists[0], parts[0] if parts else None


class CelebaSource(FolderSource):
    """CelebA's pictures and attributes, as a `Source`.

    Args:
        folder: the pictures.
        attributes: the list of attributes.
        partition: the list of parts; None takes all pictures.
        background: the colour under transparent pixels.

    Raises:
        UserError: the pictures can't be listed, or no picture trains.
    """

    def __init__(self, folder: Path, attributes: Path, partition: Path | None, background: str = "white") -> None:
        super().__init__(folder, background)
        self._lists = [attributes, partition] if partition is not None else [attributes]
        if partition is not None:
            kept = _training(partition)
            self._entries = [entry for entry in self._entries if entry.parts[-1] in kept]
            self._listed = self._entries
        if not self._entries:
            raise UserError(f"'{printable(str(partition))}' names none of the pictures in '{self.name}' to train on")

    @cached_property
    def _labels(self) -> Labels:
        """What the list of attributes says."""
        return read_labels(self._lists[0], [self.origin(i) for i in range(len(self))])

    @property
    def attributes(self) -> tuple[Attribute, ...]:
        """The attributes of the list."""
        return self._labels.attributes

    def condition(self, i: int) -> tuple[float, ...]:
        """Return what the list says of picture i."""
        return tuple(self._labels.conditions[i].tolist())

    def key(self) -> str:
        """Return a hash of the pictures' and the lists' states."""
        return hashlib.sha256(f"{super().key()}; {state_of(self._lists)}".encode("utf-8", "surrogatepass")).hexdigest()


def _training(partition: Path) -> frozenset[str]:
    """The names of the pictures that train."""
    try:
        lines = [line.split() for line in partition.read_text("utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"'{printable(str(partition))}' can't be read: {error}") from None
    return frozenset(line[0] for line in lines if len(line) == 2 and line[1] == "0")
