"""Tar archives of images, plain or compressed, one or many (WebDataset's shards), read where they lie.

An archive is listed once, head by head; nothing is unpacked to the disk. Names are only names: members whose name is
absolute or climbs with `..`, links, devices, sparse files and second members of one name are left out. Pictures are in
the archive's order, since shards are shuffled on purpose and a compressed archive (gzip, bzip2, xz) can only be read
from front to back. It is refused where it unpacks to more than `RATIO` times its length. Where an archive ends too
early, what comes before that is used and the end is named.

**Labels.** Members that share all of their name before the first dot belong together (WebDataset's convention): beside
`0001.jpg`, a `0001.cls` holds the place of its class, and a `0001.json` an object whose plain values are attributes,
told by the rules for columns of a file of labels. Columns that tell pictures apart, such as captions, are not taken.
Without such members the folders are labels, as in a zip archive.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import json
import lzma
import os
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, cast

from sfumato.conditions.attributes import Attribute
from sfumato.data.sources.files import MAX_FILE, Listed, TreeSource, shared_column, state_of
from sfumato.data.sources.protocol import Blob, Unreadable, printable
from sfumato.data.sources.zips import is_hidden, name_fault
from sfumato.errors import UserError

__all__ = ["SUFFIXES", "TarSource", "is_tar"]

SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
RATIO = 200
"""Pictures hardly shrink; what unpacks to more than this many times its length was made to fill a disk."""
_ROOM = 2**28
_SIDE = (".cls", ".json", ".txt")
_SIDE_BYTES = 2**16
_MARKS = ((b"\x1f\x8b", gzip.open), (b"BZh", bz2.open), (b"\xfd7zXZ\0", lzma.open))
_FAULTS = (OSError, EOFError, tarfile.TarError, zlib.error, lzma.LZMAError, ValueError)


@dataclass(frozen=True, slots=True)
class _Member(Listed):
    """A member: in which archive, where its bytes begin, how many they are."""

    archive: int = 0
    start: int = 0
    length: int = 0


@dataclass
class _Listing:
    """What archives hold: members, and by their stems what is known of the pictures."""

    members: list[_Member] = field(default_factory=list)
    known: dict[str, dict[str, str]] = field(default_factory=dict)

    def pictures(self) -> list[_Member]:
        """The members that aren't there for another one."""
        kinds = [_stem(member) for member in self.members]
        stems = {stem for stem, kind in kinds if kind not in _SIDE}
        return [
            m for m, (stem, kind) in zip(self.members, kinds, strict=True) if kind not in _SIDE or stem not in stems
        ]


class TarSource(TreeSource):
    """The images in tar archives, as a `Source`.

    Args:
        paths: the archives, in order.
        name: how the source is called; None is the absolute path of the first.
        background: the colour under transparent pixels.

    Raises:
        UserError: one is damaged from its beginning or unpacks to too much, or none holds a file.
    """

    def __init__(self, paths: Sequence[Path], name: str | None = None, background: str = "white") -> None:
        self.paths = [path.resolve() for path in paths]
        self._open: dict[int, tuple[int, IO[bytes]]] = {}
        listing = _Listing()
        for number, path in enumerate(self.paths):
            _list(listing, number, path, several=len(self.paths) > 1)
        self._members = listing.pictures()
        if not self._members:
            raise UserError(f"'{printable(str(paths[0]))}' holds no files: give an archive of images")
        super().__init__(name or printable(str(self.paths[0])), self._members, background, unwrap=len(paths) == 1)
        self._known = _columns(listing.known, self._members)

    @property
    def attributes(self) -> tuple[Attribute, ...]:
        """What the members beside the pictures say, else the class by folders."""
        return tuple(attribute for attribute, _ in self._known) or super().attributes

    def condition(self, i: int) -> tuple[float, ...]:
        """Return what is known of picture i."""
        return tuple(values[i] for _, values in self._known) or super().condition(i)

    def file(self, i: int) -> Blob:
        """Return member i; raises `Unreadable`."""
        member = self._members[i]
        if member.fault is not None:
            raise Unreadable(member.fault)
        try:
            file = self._archive(member.archive)
            file.seek(member.start)
            data = file.read(member.length)
        except _FAULTS as error:
            raise Unreadable(f"damaged: {printable(str(error))[:80]}") from None
        if len(data) < member.length:
            raise Unreadable("damaged: the archive ends within it")
        return Blob(data)

    def key(self) -> str:
        """Return a hash of the archives' paths, lengths and times of change."""
        return hashlib.sha256(state_of(self.paths).encode("utf-8", "surrogatepass")).hexdigest()

    def _archive(self, number: int) -> IO[bytes]:
        """An archive, open; only the last one used stays so, and each process opens its own."""
        process, file = self._open.get(number, (0, None))
        if file is None or process != os.getpid():
            for _, (_, other) in self._open.items():
                other.close()
            self._open = {number: (os.getpid(), file := _unpacked(self.paths[number]))}
        return file


def is_tar(path: Path) -> bool:
    """Return whether a file is called like a tar archive."""
    return path.name.lower().endswith(SUFFIXES)


def _unpacked(path: Path) -> IO[bytes]:
    """Open an archive, through what unpacks it."""
    with path.open("rb") as file:
        head = file.read(6)
    for mark, opener in _MARKS:
        if head.startswith(mark):
            return cast(IO[bytes], opener(path, "rb"))
    return path.open("rb")


def _list(listing: _Listing, number: int, path: Path, several: bool) -> None:
    """List one archive; raises `UserError`."""
    root, found, fault = ([path.name] if several else []), 0, None
    seen: set[tuple[str, ...]] = set()
    try:
        with _unpacked(path) as file:
            for info in _infos(file, path):
                member = _member(info, number, root, seen)
                if info.isdir() or is_hidden(info.name):
                    continue
                stem, kind = _stem(member)
                if kind in _SIDE and member.fault is None and info.size <= _SIDE_BYTES:
                    file.seek(info.offset_data)
                    _learn(listing.known.setdefault(stem, {}), kind, file.read(info.size))
                seen.add(member.parts)
                listing.members.append(member)
                found += 1
    except UserError:
        raise
    except _FAULTS as error:
        fault = printable(str(error))[:80]
    if fault is not None and not found:
        raise UserError(f"'{printable(str(path))}' can't be read as a tar archive: {fault}")
    if fault is not None:
        listing.members.append(_Member((*root, "(its end)"), f"damaged: {fault}", number))


def _infos(file: IO[bytes], path: Path) -> Iterator[tarfile.TarInfo]:
    """Yield the heads of an archive, none kept; raises `UserError` where it is made to fill a disk."""
    most = RATIO * path.stat().st_size + _ROOM
    with tarfile.open(fileobj=file, mode="r:") as archive:
        while (info := archive.next()) is not None:
            archive.members.clear()  # type: ignore[attr-defined]
            if info.offset_data + info.size > most:
                raise UserError(f"'{printable(str(path))}' unpacks to more than {RATIO} times its length: not read")
            yield info


def _member(info: tarfile.TarInfo, number: int, root: list[str], seen: set[tuple[str, ...]]) -> _Member:
    """What an archive says of a member."""
    parts = (*root, *(part for part in info.name.split("/") if part not in ("", ".")))
    fault = name_fault(info.name)
    if info.issym() or info.islnk():
        fault = "a link, which is not followed"
    elif not info.isreg() or info.issparse():
        fault = "not a regular file"
    elif info.size > MAX_FILE:
        fault = f"too large: more than {MAX_FILE:,} bytes"
    elif fault is None and parts in seen:
        fault = "its name stands twice in the archive: the first is taken"
    return _Member(parts, fault, number, info.offset_data, info.size)


# Labels


def _stem(member: _Member) -> tuple[str, str]:
    """A member's path up to the first dot of its name, and what follows."""
    *folders, name = member.parts or ("",)
    stem, dot, rest = name.partition(".")
    return "/".join([*folders, stem]), dot + rest.lower()


def _learn(known: dict[str, str], kind: str, content: bytes) -> None:
    """Take in what a member beside a picture says; what can't be understood says nothing."""
    try:
        if kind == ".cls":
            known["class"] = str(int(content))
        elif kind == ".json":
            table = json.loads(content)
            for key, value in table.items() if isinstance(table, dict) else ():
                if isinstance(value, bool | int | float | str):
                    known.setdefault(str(key), ("no", "yes")[value] if isinstance(value, bool) else str(value).strip())
    except (ValueError, RecursionError):
        return


def _columns(known: dict[str, dict[str, str]], members: Sequence[_Member]) -> list[tuple[Attribute, list[float]]]:
    """The attributes that pictures share, each with a number a picture."""
    rows = [known.get(_stem(member)[0], {}) for member in members] if known else []
    names = dict.fromkeys(key for row in rows for key in row)
    found = (shared_column(name, [row.get(name) or None for row in rows]) for name in names)
    return [each for each in found if each is not None]
