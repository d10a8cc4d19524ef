"""What the names of folders say about the pictures in them: held out or not, a mask or not, and the class.

    train/cat/1.png   val/cat/2.png      the parts of a collection: those that validate and test are held out
    images/1.png      masks/1.png        label maps beside the pictures are not pictures to train on; nor is 1_mask.png
    cat/1.png         dog/2.png          else the first folders of which there are two or more are the classes
    metadata.jsonl    labels.csv         a file of labels (its names are relative to its folder)

A folder in which all others lie is passed through, and so is `images` beside `masks`. Parts are recognised where one
name says that it trains, another that it does not, and their names are the same otherwise (`train2017`, `val2017`;
`train-000.tar`, `test-000.tar`; `x_train`, `x_test`), so that classes called train and test_tube stay classes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from sfumato.data.labels import in_order
from sfumato.data.sources.protocol import Beside, File, Labels, Layout, printable

_PART = re.compile(
    r"(?<![a-zA-Z])(?i:(train(?:ing)?|trn)|val(?:id(?:ation)?)?|dev|test(?:ing)?|eval(?:uation)?|hold-?out)(?![a-z])"
)
_PICTURES = frozenset({"images", "image", "imgs", "img", "jpegimages", "pictures", "photos", "inputs", "leftimgbit"})
_MASKS = frozenset(
    {"mask", "masks", "label", "labels", "annotation", "annotations", "segmentation", "segmentations", "gt", "gtfine"}
    | {"segmentationclass", "segmentationobject", "gtcoarse", "groundtruth", "target", "targets", "trimap", "trimaps"}
)
_MASK_NAME = re.compile(r"(.+)_mask(?:_\d+)?")
_TABLES = ("metadata.jsonl", "metadata.csv", "labels.jsonl", "labels.csv", "labels.tsv")
"""Files of labels; of several in one folder the first here is read."""
_NOTES = (".txt", ".md", ".csv", ".tsv", ".json", ".jsonl", ".xml", ".yaml", ".yml", ".html", ".pdf")
"""Files that may lie beside folders without being one of several pictures there."""
_SYSTEM = {
    "thumbs.db": "Windows' thumbnails",
    "ehthumbs.db": "Windows' thumbnails",
    "desktop.ini": "Windows' settings of a folder",
    ".ds_store": "macOS's settings of a folder",
    "icon\r": "macOS's icon of a folder",
    "picasa.ini": "Picasa's settings of a folder",
    "zbthumbnail.info": "thumbnails of a phone",
}
"""Files that a system puts beside pictures, by their names in lower case."""
_MOST_LEVELS = 8


@dataclass(frozen=True, slots=True)
class Listed:
    """A listed file: its path within the source, and why it can't be a picture, None where it may be one."""

    parts: tuple[str, ...]
    fault: str | None = None

    @property
    def origin(self) -> str:
        """The path, printable."""
        return printable("/".join(self.parts))


Member = TypeVar("Member", bound=Listed)
Folder = tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Arranged(Generic[Member]):
    """The members that may be pictures, in their order, their class by folders, and the rest of the layout."""

    members: list[Member]
    labels: Callable[[], Labels]
    layout: Layout


def parts_of(names: Iterable[str]) -> dict[str, tuple[bool, str]]:
    """Return of each name that is one of a collection's parts whether it is held out, and the rest of the name.

    Empty where there are no parts to train on and to hold out whose names are the same otherwise.
    """
    found = {}
    for name in names:
        if match := _PART.search(name):
            rest = re.sub(r"\d+", "", name[: match.start()] + name[match.end() :]).lower()
            found[name] = (match[1] is None, rest)
    both = {rest for held_out, rest in found.values() if held_out and (False, rest) in found.values()}
    return {name: part for name, part in found.items() if part[1] in both}


def layout_of_parts(counts: Mapping[str, int]) -> Layout:
    """Return the layout of pictures in named files or arrays, one after another, so many in each."""
    parts = parts_of(counts)
    if not parts:
        return Layout()
    out = {name: parts.get(name, (False, ""))[0] for name in counts}
    return Layout(np.repeat(list(out.values()), list(counts.values())), _listed(name for name in out if out[name]))


def _listed(names: Iterable[str]) -> str:
    """Names as in a sentence: 'a', 'b' and 'c'; of more than four the first."""
    shown = [f"'{printable(name)}'" for name in in_order(names)]
    shown = [*shown[:3], f"{len(shown) - 3} more"] if len(shown) > 4 else shown
    return " and ".join(filter(None, (", ".join(shown[:-1]), *shown[-1:])))


def arrange(members: Sequence[Member], file: Callable[[Member], File]) -> Arranged[Member]:
    """Read the layout of listed members; `file` opens one of them."""
    members = [_named(member) for member in members]
    tables = _label_files(members)
    pictures = [member for k, member in enumerate(members) if k not in tables]
    counted = [member for member in pictures if member.fault is None]
    plain = {member.parts[:-1] for member in counted if not member.parts[-1].lower().endswith(_NOTES)}
    folders = {member.parts[:-1] for member in pictures}
    masks, passed = _masks(folders)
    pictures = _without_masks(pictures, masks)
    places, sides = _places({folder for folder in plain if folder not in masks}, passed)
    held_out = None
    if sides:
        held_out = np.array([sides.get(member.parts[:-1], ("", False))[1] for member in pictures])
    where = _listed({name for name, out in sides.values() if out})
    beside = tuple(
        Beside(member.parts, lambda member=member: file(member))  # type: ignore[misc]
        for member in (members[k] for k in tables)
    )
    return Arranged(pictures, lambda: _classes(pictures, places), Layout(held_out, where, beside))


def _named(member: Member) -> Member:
    """A member, with the fault that it is a file which the system puts beside pictures, where it is one."""
    what = _SYSTEM.get(member.parts[-1].lower()) if member.parts and member.fault is None else None
    return member if what is None else replace(member, fault=f"not an image: {what}, not one of yours")


def _label_files(members: Sequence[Member]) -> list[int]:
    """The indices of the files of labels, one for each folder."""
    best: dict[Folder, tuple[int, int]] = {}
    for k, member in enumerate(members):
        if member.fault is None and member.parts and (name := member.parts[-1].lower()) in _TABLES:
            rank = (_TABLES.index(name), k)
            best[member.parts[:-1]] = min(best.get(member.parts[:-1], rank), rank)
    return [k for _, k in best.values()]


def _masks(folders: Iterable[Folder]) -> tuple[dict[Folder, str], set[Folder]]:
    """The folders of masks, each with the name of the pictures' folder beside it, and these folders of pictures."""
    beside: dict[Folder, set[str]] = {}
    for folder in folders:
        for k, name in enumerate(folder):
            beside.setdefault(folder[:k], set()).add(name)
    masks, passed = dict[Folder, str](), set[Folder]()
    for parent, names in beside.items():
        pictures = {part_of(name): name for name in names if kind_of(name) in _PICTURES}
        for name in names:
            if kind_of(name) in _MASKS and (other := pictures.get(part_of(name))) is not None:
                masks[*parent, name] = other
                passed.add((*parent, other))
    inside = {f: masks[f[:k]] for f in folders for k in range(1, len(f) + 1) if f[:k] in masks}
    return inside, passed


def kind_of(name: str) -> str:
    """Return the letters of a name in lower case, without the part that it says: `x` of `x_train`."""
    return re.sub(r"[^a-z]", "", _PART.sub("", name).lower())


def part_of(name: str) -> str:
    """Return the part that a name says, in lower case: `train` of `x_train`; empty for none."""
    return match[0].lower() if (match := _PART.search(name)) else ""


def _without_masks(members: list[Member], masks: dict[Folder, str]) -> list[Member]:
    """The members with the reason why masks are not used."""
    bases = {_base(member) for member in members} if any("_mask" in m.parts[-1] for m in members if m.parts) else set()
    found = []
    for member in members:
        own = _MASK_NAME.fullmatch(_base(member)[1]) if bases else None
        if member.fault is None and (other := masks.get(member.parts[:-1])) is not None:
            member = replace(
                member, fault=f"a mask: its folder is beside '{printable(other)}' (give its own path to train on it)"
            )
        elif member.fault is None and own and (member.parts[:-1], own[1]) in bases:
            member = replace(member, fault=f"a mask: it is called like the picture '{printable(own[1])}' beside it")
        found.append(member)
    return found


def _base(member: Listed) -> tuple[Folder, str]:
    """A member's folder, and its name without the suffix."""
    return member.parts[:-1], member.parts[-1].rpartition(".")[0] if member.parts else ""


def _places(folders: set[Folder], passed: set[Folder]) -> tuple[dict[Folder, Folder], dict[Folder, tuple[str, bool]]]:
    """Of each folder what is left of its path where only classes count, and the part that it belongs to: the name, and
    whether it is held out; no parts where there are none."""
    places = {f: tuple(name for k, name in enumerate(f) if f[: k + 1] not in passed) for f in folders}
    sides: dict[Folder, tuple[str, bool]] = {}
    for _ in range(_MOST_LEVELS):
        tops = {place[0] for place in places.values() if place}
        if parts := parts_of(tops):
            several = len({rest for _, rest in parts.values()}) > 1  # trainA, trainB: what is left is the class
            for folder, place in places.items():
                if place and place[0] in parts:
                    out, rest = parts[place[0]]
                    sides.setdefault(folder, (place[0], out))
                    places[folder] = (rest, *place[1:]) if several and rest else place[1:]
                elif folder not in sides:
                    sides[folder], places[folder] = ("", False), ()  # neither: it trains, without a class
        elif len(tops) == 1 and all(places.values()):
            places = {folder: place[1:] for folder, place in places.items()}
        else:
            break
    return places, sides


def _classes(members: Sequence[Listed], places: dict[Folder, Folder]) -> Labels:
    """The attribute `class`: the first folder that is left of a path, where there are two or more of them."""
    names = in_order({place[0] for place in places.values() if place})
    if len(names) < 2:
        return Labels.none(len(members))
    codes = {name: float(k) for k, name in enumerate(names)}
    code = {folder: codes[place[0]] for folder, place in places.items() if place}
    indices: NDArray[np.float64] = np.array([code.get(member.parts[:-1], math.nan) for member in members])
    return Labels.of_classes(list(map(printable, names)), indices)
