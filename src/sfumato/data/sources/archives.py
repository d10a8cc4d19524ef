"""Zip and tar archives of images, read in place: nothing is unpacked to the disk.

These members are skipped: names that are absolute or contain `..`; links, devices and other special files; more than
`MAX_FILE` bytes, as declared or in fact; a second member of the same name. Names that begin with a dot are ignored.
Folders are labels as in a folder; where all lies in one folder, those in that one.

**Zip.** The directory at the archive's end lists the members, which come in the order of their names. Encrypted members
are skipped, and members that share bytes (D. Fifield, "A better zip bomb", 2019). What is unpacked has to have the
length and the CRC that the directory promises. Members are stored or deflated; the other methods are rare and not read.

**Tar**, plain or compressed (gzip, bzip2, xz), one or many (WebDataset's shards). An archive is listed once, head by
head. Pictures are in its order, since shards are shuffled on purpose and a compressed archive can only be read from
front to back. It is refused where it unpacks to more than `RATIO` times its length. Where it ends too early, what comes
before that is used and the end is among the skipped files.

Members of a tar that share all of their name before the first dot belong together (WebDataset): beside `0001.jpg`, a
`0001.cls` holds the index of its class, a `0001.json` an object whose plain values are attributes or captions, by the
rules for columns of a file of labels, and a `0001.txt` its caption. Where there are none, folders are labels.
"""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, cast

from sfumato.data.labels import from_columns
from sfumato.data.sources.files import MAX_FILE, FileSource, hashed, state_of
from sfumato.data.sources.layout import Arranged, Listed, arrange
from sfumato.data.sources.protocol import Blob, Labels, Unreadable, printable
from sfumato.errors import UserError

SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
RATIO = 200
"""Pictures hardly shrink; an archive that unpacks to more than this many times its length was made to fill a disk."""
_ROOM = 2**28
_SIDE, _SIDE_BYTES = (".cls", ".json", ".txt"), 2**16
_OWN = ""  # the key of the text of a caption's own file
_MARKS = ((b"\x1f\x8b", gzip.open), (b"BZh", bz2.open), (b"\xfd7zXZ\0", lzma.open))
_FAULTS = (OSError, EOFError, tarfile.TarError, zlib.error, lzma.LZMAError, ValueError, struct.error)
_LOCAL = struct.Struct("<4s22sHH")
"""A zip member's header: its signature, fields that the directory repeats, the lengths of its name and its extra
field."""
_UNIX = 3
_TWICE = "the archive has this name twice: the first is used"
_LARGE = f"too large: more than {MAX_FILE:,} bytes"


@dataclass(frozen=True, slots=True)
class _Member(Listed):
    """A member: in which archive, where it begins, how long it is; of a zip also its packed length, CRC and method."""

    archive: int = 0
    start: int = 0
    length: int = 0
    packed: int = 0
    crc: int = 0
    deflated: bool = False


def _source(
    paths: Sequence[Path],
    name: str | None,
    members: Sequence[_Member],
    unpacked: Callable[[_Member], bytes],
    labels: Callable[[Arranged[_Member]], Labels] = lambda arranged: arranged.labels(),
) -> FileSource:
    def file(member: _Member) -> Blob:
        if member.fault is not None:
            raise Unreadable(member.fault)
        try:
            return Blob(unpacked(member))
        except _FAULTS as error:
            raise Unreadable(f"damaged: {printable(str(error))[:80]}") from None

    arranged = arrange(members, file)
    if not arranged.members:
        raise UserError(f"'{printable(str(paths[0]))}' holds no files: give an archive of images")
    pictures, name, key = arranged.members, name or printable(str(paths[0])), hashed(state_of(paths))
    return FileSource(
        name,
        len(pictures),
        lambda i: pictures[i].origin,
        lambda i: file(pictures[i]),
        key,
        lambda: labels(arranged),
        may_have_captions=True,
        layout=arranged.layout,
    )


def _name_fault(name: str) -> str | None:
    """Why a member's name is not read, None for an ordinary one."""
    if name.startswith(("/", "\\")) or name[1:2] == ":" or ".." in name.replace("\\", "/").split("/"):
        return "its name leads out of the archive"
    return None


def _is_hidden(name: str) -> bool:
    """Whether a member's name is hidden."""
    return _name_fault(name) is None and any(part.startswith(".") and part != "." for part in name.split("/"))


def _parts(name: str) -> tuple[str, ...]:
    return tuple(part for part in name.split("/") if part not in ("", "."))


# Zip


def is_zip(path: Path) -> bool:
    """Return whether a file is a zip archive, by its first or last bytes."""
    return zipfile.is_zipfile(path)


def zip_source(path: Path) -> FileSource:
    """Return a source of the images in a zip archive; raises `UserError` where it is damaged or holds no file."""
    path = path.resolve()
    members = _listed_zip(path)
    return _source([path], None, members, lambda member: _unzipped(path, member))


def _unzipped(path: Path, member: _Member) -> bytes:
    """The bytes of a member; raises any of `_FAULTS`."""
    with path.open("rb") as file:  # opened for each read, so that processes and threads don't share a position
        file.seek(member.start)
        mark, _, name, extra = _LOCAL.unpack(file.read(_LOCAL.size))
        file.seek(name + extra, 1)
        data = file.read(member.packed)
    if mark != b"PK\3\4" or len(data) < member.packed:
        raise ValueError("the archive has no such member at the offset in its directory")
    if member.deflated:
        data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, member.length + 1)
    if len(data) != member.length or zlib.crc32(data) != member.crc:
        raise ValueError("its length or checksum differs from the archive's directory")
    return data


def _listed_zip(path: Path) -> list[_Member]:
    """Every member but folders and hidden ones, in the order of their names."""
    try:
        with zipfile.ZipFile(path) as archive:
            infos = sorted(archive.infolist(), key=lambda info: info.header_offset)
    except (OSError, zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise UserError(f"'{printable(str(path))}' can't be read as a zip archive: {error}") from None
    members, free = [], 0
    for info in infos:
        fault = _zip_fault(info) or ("it shares bytes with another member" if info.header_offset < free else None)
        free = max(free, info.header_offset + _LOCAL.size + info.compress_size)
        if not info.is_dir() and not _is_hidden(info.filename):
            deflated = info.compress_type == zipfile.ZIP_DEFLATED
            location = (0, info.header_offset, info.file_size, info.compress_size, info.CRC, deflated)
            members.append(_Member(_parts(info.filename), fault, *location))
    members.sort(key=lambda member: member.parts)
    return [
        replace(member, fault=member.fault or _TWICE) if k and member.parts == members[k - 1].parts else member
        for k, member in enumerate(members)
    ]


def _zip_fault(info: zipfile.ZipInfo) -> str | None:
    """Why a member is skipped by what the directory says, None where it may be a picture."""
    mode = info.external_attr >> 16 if info.create_system == _UNIX else 0
    if stat.S_ISLNK(mode):
        return "a symbolic link, which is not followed"
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "not a regular file"
    if info.flag_bits & 0x1:
        return "encrypted"
    if info.file_size > MAX_FILE:
        return _LARGE
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "packed by a method that is not read here"
    if info.compress_type == zipfile.ZIP_STORED and info.compress_size != info.file_size:
        return "damaged: it has two lengths"
    return _name_fault(info.filename)


# Tar


def is_tar(path: Path) -> bool:
    """Return whether a file's name is that of a tar archive."""
    return path.name.lower().endswith(SUFFIXES)


def tar_source(paths: Sequence[Path], name: str | None = None) -> FileSource:
    """Return a source of the images in tar archives, called like the first by default; raises `UserError` where one is
    damaged from its beginning or unpacks to too much, or none holds a file."""
    paths = [path.resolve() for path in paths]
    beside: dict[str, dict[str, str]] = {}
    roots = [[path.name] if len(paths) > 1 else [] for path in paths]
    members = [member for k, path in enumerate(paths) for member in _listed_tar(path, k, roots[k], beside)]
    kinds = [_stem(member) for member in members]
    stems = {stem for stem, kind in kinds if kind not in _SIDE}
    pictures = [m for m, (stem, kind) in zip(members, kinds, strict=True) if kind not in _SIDE or stem not in stems]
    opened: list[tuple[tuple[int, int], IO[bytes]]] = []

    def unpacked(member: _Member) -> bytes:
        if not opened or opened[0][0] != (os.getpid(), member.archive):  # each process opens its own
            while opened:
                opened.pop()[1].close()
            opened.append(((os.getpid(), member.archive), _stream(paths[member.archive])))
        opened[0][1].seek(member.start)
        data = opened[0][1].read(member.length)
        if len(data) < member.length:
            raise ValueError("the archive ends within it")
        return data

    return _source(paths, name, pictures, unpacked, lambda arranged: _tar_labels(arranged, beside))


def _tar_labels(arranged: Arranged[_Member], beside: dict[str, dict[str, str]]) -> Labels:
    """The labels in the members beside the pictures; without any, the class by folders."""
    members = arranged.members
    rows = [beside.get(_stem(member)[0], {}) for member in members] if beside else []
    names = dict.fromkeys(key for row in rows for key in row)
    columns = {name: [row.get(name) or None for row in rows] for name in names}
    own = columns.pop(_OWN, None)  # the texts of a caption's own file are never an attribute
    found = from_columns(columns, len(members))
    labels = found if found.attributes else arranged.labels()
    return replace(labels, captions=found.captions if own is None else tuple(own))


def _stream(path: Path) -> IO[bytes]:
    """Open an archive, decompressed."""
    with path.open("rb") as file:
        head = file.read(6)
    opener = next((opener for mark, opener in _MARKS if head.startswith(mark)), open)
    return cast(IO[bytes], opener(path, "rb"))


def _listed_tar(path: Path, number: int, root: list[str], beside: dict[str, dict[str, str]]) -> Iterator[_Member]:
    """Yield the members of one archive except folders and hidden ones, and collect the labels of those beside
    pictures."""
    seen: set[tuple[str, ...]] = set()
    try:
        with _stream(path) as file:
            for info in _infos(file, path):
                parts = (*root, *_parts(info.name))
                if info.isdir() or _is_hidden(info.name):
                    continue
                member = _Member(parts, _tar_fault(info, parts in seen), number, info.offset_data, info.size)
                stem, kind = _stem(member)
                if kind in _SIDE and member.fault is None and info.size <= _SIDE_BYTES:
                    file.seek(info.offset_data)
                    row, said = beside.setdefault(stem, {}), _said(kind, file.read(info.size))
                    row.update(said if kind == ".cls" else {key: said[key] for key in said if key not in row})
                seen.add(parts)
                yield member
    except UserError:
        raise
    except _FAULTS as error:
        reason = printable(str(error))[:80]
        if not seen:
            raise UserError(f"'{printable(str(path))}' can't be read as a tar archive: {reason}") from None
        yield _Member((*root, "(its end)"), f"damaged: {reason}", number)


def _infos(file: IO[bytes], path: Path) -> Iterator[tarfile.TarInfo]:
    """Yield the headers of an archive, without keeping them; raises `UserError` where it is made to fill a disk."""
    most = RATIO * path.stat().st_size + _ROOM
    with tarfile.open(fileobj=file, mode="r:") as archive:
        while (info := archive.next()) is not None:
            archive.members.clear()  # type: ignore[attr-defined]
            if info.offset_data + info.size > most:
                raise UserError(
                    f"'{printable(str(path))}' unpacks to more than {RATIO} times its length, as no archive of images "
                    "does: it is not read"
                )
            yield info


def _tar_fault(info: tarfile.TarInfo, twice: bool) -> str | None:
    """Why a member is skipped, None where it may be a picture."""
    if info.issym() or info.islnk():
        return "a link, which is not followed"
    if not info.isreg() or info.issparse():
        return "not a regular file"
    return _LARGE if info.size > MAX_FILE else _name_fault(info.name) or (_TWICE if twice else None)


def _stem(member: _Member) -> tuple[str, str]:
    """A member's path up to the first dot of its name, and what follows."""
    *folders, name = member.parts or ("",)
    stem, dot, rest = name.partition(".")
    return "/".join([*folders, stem]), dot + rest.lower()


def _said(kind: str, content: bytes) -> dict[str, str]:
    """The labels in a member beside a picture, by name; empty where it can't be parsed."""
    try:
        if kind == ".cls":
            return {"class": str(int(content))}
        if kind == ".txt":
            return {_OWN: content.decode("utf-8").strip()}
        table = json.loads(content)
        values = table.items() if isinstance(table, dict) else ()
        return {
            str(key): ("no", "yes")[value] if isinstance(value, bool) else str(value).strip()
            for key, value in values
            if isinstance(value, bool | int | float | str)
        }
    except (ValueError, RecursionError):
        return {}
