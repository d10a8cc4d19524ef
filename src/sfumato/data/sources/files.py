"""Sources of encoded files: in a folder, an archive or a table.

Such a source has the bytes and the labels of picture i. Decoding is the same for all and needs only bytes or a path, so
other processes can do it without the source.

A folder is such a source, with all its sub-folders. Every regular file is a candidate, whatever its name; hidden files
and folders (a dot first) are ignored. Symbolic links are never followed, so nothing outside the folder is read and a
loop can't trap the listing: each is listed among the skipped files, as are pipes, sockets and sub-folders that can't be
listed. Pictures are in the order of their paths.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Container, Iterable, Sequence
from functools import cached_property
from pathlib import Path

from sfumato.conditions.attributes import Attribute
from sfumato.data.formats.decode import header_size, read_picture
from sfumato.data.sources.layout import Listed, arrange
from sfumato.data.sources.protocol import File, Labels, Layout, Picture, Unreadable, printable
from sfumato.errors import UserError

State = tuple[int, ...]
MAX_FILE = 2**28
"""The most bytes of a file in an archive or a table; larger ones are not unpacked."""


class FileSource:
    """A source of encoded files; satisfies `Encoded`.

    Args:
        name: printable.
        count: of pictures.
        origin: from the number of a picture to where it comes from.
        file: from its number to its file, not yet opened; raises `Unreadable`.
        key: what changes when the contents do.
        labels: returns the labels of the pictures.
        folder: the folder that holds each picture as a file, if there is one.
        may_have_captions: where False, opening a store does not make the labels, which can take long.
        layout: which pictures are held out, and files of labels beside them.
    """

    def __init__(
        self,
        name: str,
        count: int,
        origin: Callable[[int], str],
        file: Callable[[int], File],
        key: str,
        labels: Callable[[], Labels] | None = None,
        folder: Path | None = None,
        may_have_captions: bool = False,
        layout: Layout | None = None,
    ) -> None:
        self.name, self.origin, self.file, self.folder = name, origin, file, folder
        self._may_have_captions, self.layout = may_have_captions, layout or Layout()
        self._count, self._key, self._labels = count, key, labels

    @cached_property
    def labels(self) -> Labels:
        """The labels of the pictures."""
        return self._labels() if self._labels else Labels.none(len(self))

    def __len__(self) -> int:
        return self._count

    @property
    def attributes(self) -> tuple[Attribute, ...]:
        """The attributes of the labels."""
        return self.labels.attributes

    @property
    def captioned(self) -> bool:
        """Whether there are captions."""
        return self._may_have_captions and self.labels.captions is not None

    def size(self, i: int) -> tuple[int, int]:
        """Return (height, width) of picture i from its header; raises `Unreadable`."""
        return header_size(self.file(i))

    def read(self, i: int) -> Picture:
        """Return picture i, decoded; raises `Unreadable`."""
        condition, caption = self.labels[i]
        read = read_picture(self.file(i))
        return Picture(read.pixels, condition, read.animated, read.alpha, caption, read.profile)

    def key(self) -> str:
        """Return what changes when the contents do."""
        return self._key


def folder_source(folder: Path, wanted: Container[str] | None = None) -> FileSource:
    """Return a source of the images in a folder, or of those with the wanted names; raises `UserError` where the folder
    can't be listed, or holds no file."""
    name, folder = printable(str(folder)), folder.resolve()
    entries = sorted(_walk(folder), key=lambda entry: entry[0].parts)
    entries = [entry for entry in entries if wanted is None or entry[0].parts[-1] in wanted]
    source = arranged_source(printable(str(folder)), folder, entries, folder)
    if not len(source) and wanted is None:
        raise UserError(f"'{name}' holds no files: give a folder of images")
    return source


def arranged_source(
    name: str, root: Path, entries: Sequence[tuple[Listed, State]], folder: Path | None = None
) -> FileSource:
    """Return a source of listed files below a root, labelled and parted by the rules of `layout`; `folder` as
    `FileSource`."""
    arranged = arrange([entry for entry, _ in entries], lambda member: root.joinpath(*member.parts))
    listed, pictures = arranged.members, {entry.parts for entry in arranged.members}
    state = "\n".join(repr((e.parts, e.fault, state)) for e, state in entries if e.parts in pictures)

    def file(i: int) -> Path:
        if (fault := listed[i].fault) is not None:
            raise Unreadable(fault)
        return root.joinpath(*listed[i].parts)

    key, layout, origin = hashed(state), arranged.layout, lambda i: listed[i].origin
    return FileSource(name, len(listed), origin, file, key, arranged.labels, folder, layout=layout)


def _walk(folder: Path) -> list[tuple[Listed, State]]:
    """List a folder and what is below it: each file and its state."""
    entries: list[tuple[Listed, State]] = []

    def failed(error: OSError) -> None:
        path = Path(error.filename)
        if path == folder:
            raise UserError(f"'{printable(str(folder))}' cannot be listed: {error.strerror}")
        entries.append((Listed(path.relative_to(folder).parts, f"cannot be listed: {error.strerror}"), ()))

    for path, folders, files in os.walk(folder, onerror=failed):
        folders[:] = [name for name in folders if not name.startswith(".")]
        links = [name for name in folders if os.path.islink(os.path.join(path, name))]
        parts = Path(path).relative_to(folder).parts
        entries += [look_at(path, parts, name) for name in files + links if not name.startswith(".")]
    return entries


def look_at(folder: str, parts: tuple[str, ...], name: str) -> tuple[Listed, State]:
    """Return what one file is, by its folder, the path of that within the source, and its name; it is neither opened
    nor followed."""
    parts = (*parts, name)
    try:
        status = os.lstat(os.path.join(folder, name))
    except OSError as error:
        return Listed(parts, f"cannot be read: {error.strerror}"), ()
    if stat.S_ISLNK(status.st_mode):
        return Listed(parts, "a symbolic link, which is not followed"), ()
    if not stat.S_ISREG(status.st_mode):
        return Listed(parts, "not a regular file"), ()
    return Listed(parts), state_in(status)


def state_in(status: os.stat_result) -> State:
    """Return what changes when a file does: its length, its times of change, its number on the disk.

    The time of modification can be set to any value, and a copy often keeps it. The other two show a file that was
    replaced by one of the same length and time: the time of change of the entry, and the number of the inode.
    """
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def hashed(text: str) -> str:
    """Return the SHA-256 of a text, which may hold undecodable bytes."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def state_of(paths: Iterable[Path]) -> str:
    """Return a text that changes when files do: of each its path and its state; raises OSError."""
    return "; ".join(f"{path.resolve()} {' '.join(map(str, state_in(path.stat())))}" for path in paths)
