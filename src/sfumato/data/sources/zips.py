"""A zip archive of images, read where it lies: nothing is unpacked to the disk.

The directory at the archive's end says what there is. A member's name is only a name: one that is absolute, climbs
with `..`, or belongs to a link, a device or an encrypted member is left out, as are second members of one name, members
that share bytes (D. Fifield, "A better zip bomb", 2019) and members of more than `MAX_FILE` bytes by the directory or
in fact. What is unpacked is held to the length and the CRC that the directory promises. Members are stored or deflated;
the other methods are rare and not read. Pictures are in the order of their names, and folders are labels as in a
folder; where all lies in one folder, the folders in that one.
"""

from __future__ import annotations

import hashlib
import stat
import struct
import zipfile
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

from sfumato.data.sources.files import MAX_FILE, Listed, TreeSource, state_of
from sfumato.data.sources.protocol import Blob, Unreadable, printable
from sfumato.errors import UserError

__all__ = ["ZipSource", "is_hidden", "is_zip", "name_fault"]

_LOCAL = struct.Struct("<4s22sHH")
"""A member's own head: its mark, what the directory says better, the lengths of its name and its extra field."""
_UNIX = 3


@dataclass(frozen=True, slots=True)
class _Member(Listed):
    """A member: where its head begins, how long it is packed and unpacked, its CRC and whether it is deflated."""

    start: int = 0
    packed: int = 0
    length: int = 0
    crc: int = 0
    deflated: bool = False


class ZipSource(TreeSource):
    """The images in a zip archive, as a `Source`.

    Args:
        path: the archive.
        background: the colour under transparent pixels.

    Raises:
        UserError: it is damaged or holds no file.
    """

    def __init__(self, path: Path, background: str = "white") -> None:
        self.path = path.resolve()
        self._members = _listed(self.path)
        super().__init__(printable(str(self.path)), self._members, background, unwrap=True)

    def file(self, i: int) -> Blob:
        """Return member i, unpacked into memory; raises `Unreadable`."""
        member = self._members[i]
        if member.fault is not None:
            raise Unreadable(member.fault)
        try:
            with self.path.open("rb") as file:  # anew, so that processes and threads don't share a place in it
                file.seek(member.start)
                mark, _, name, extra = _LOCAL.unpack(file.read(_LOCAL.size))
                file.seek(name + extra, 1)
                data = file.read(member.packed)
            if mark != b"PK\3\4" or len(data) < member.packed:
                raise Unreadable("damaged: the archive has no such member where it says")
            if member.deflated:
                data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, member.length + 1)
        except (OSError, struct.error, zlib.error) as error:
            raise Unreadable(f"damaged: {printable(str(error))[:80]}") from None
        if len(data) != member.length or zlib.crc32(data) != member.crc:
            raise Unreadable("damaged: it is not what the archive's directory says")
        return Blob(data)

    def key(self) -> str:
        """Return a hash of the archive's path, length and time of change."""
        return hashlib.sha256(state_of([self.path]).encode("utf-8", "surrogatepass")).hexdigest()


def is_zip(path: Path) -> bool:
    """Return whether a file is a zip archive, by its first or last bytes."""
    return zipfile.is_zipfile(path)


def name_fault(name: str) -> str | None:
    """Return why a member's name is none that is read, None where it is an ordinary one."""
    parts = name.replace("\\", "/").split("/")
    if name.startswith(("/", "\\")) or name[1:2] == ":" or ".." in parts:
        return "its name leads out of the archive"
    return None


def is_hidden(name: str) -> bool:
    """Return whether a member is one that its maker didn't mean to show, by its name."""
    return name_fault(name) is None and any(part.startswith(".") and part != "." for part in name.split("/"))


def _listed(path: Path) -> list[_Member]:
    """Every member but folders and hidden ones, in the order of their names."""
    shown = printable(str(path))
    try:
        with zipfile.ZipFile(path) as archive:
            infos = sorted(archive.infolist(), key=lambda info: info.header_offset)
    except (OSError, zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise UserError(f"'{shown}' can't be read as a zip archive: {error}") from None
    members, free = [], 0
    for info in infos:
        member = _member(info)
        overlaps, free = info.header_offset < free, max(free, info.header_offset + _LOCAL.size + info.compress_size)
        if overlaps and member.fault is None:
            member = replace(member, fault="it shares bytes with another member")
        if not info.is_dir() and not is_hidden(info.filename):
            members.append(member)
    if not members:
        raise UserError(f"'{shown}' holds no files: give an archive of images")
    members.sort(key=lambda member: member.parts)
    twice = "its name stands twice in the archive: the first is taken"
    return [
        replace(member, fault=member.fault or twice) if k and member.parts == members[k - 1].parts else member
        for k, member in enumerate(members)
    ]


def _member(info: zipfile.ZipInfo) -> _Member:
    """What the directory says of a member."""
    mode, fault = info.external_attr >> 16 if info.create_system == _UNIX else 0, name_fault(info.filename)
    if stat.S_ISLNK(mode):
        fault = "a symbolic link, which is not followed"
    elif stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        fault = "not a regular file"
    elif info.flag_bits & 0x1:
        fault = "encrypted"
    elif info.file_size > MAX_FILE:
        fault = f"too large: more than {MAX_FILE:,} bytes"
    elif info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        fault = "packed by a method that is not read here"
    elif info.compress_type == zipfile.ZIP_STORED and info.compress_size != info.file_size:
        fault = "damaged: it has two lengths"
    parts = tuple(part for part in info.filename.split("/") if part not in ("", "."))
    deflated = info.compress_type == zipfile.ZIP_DEFLATED
    return _Member(parts, fault, info.header_offset, info.compress_size, info.file_size, info.CRC, deflated)
