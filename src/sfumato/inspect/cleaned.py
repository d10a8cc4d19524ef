"""The cleaned list: which files are left when those are out that no model should learn from.

Out are files that can't be read, every exact and near copy but the first, and pictures of a single colour. Odd pictures
stay, since whether they belong is for somebody to decide, and so do mirrored copies.
"""

from __future__ import annotations

from pathlib import Path

from sfumato.data.sources.folder import FolderSource
from sfumato.data.sources.protocol import Source
from sfumato.errors import UserError
from sfumato.inspect.files import path_of
from sfumato.inspect.report import Report

__all__ = ["cleaned", "listable"]


def listable(source: Source, num: int | None) -> None:
    """Refuse what can't be listed, before anything is looked at.

    Raises:
        UserError: the pictures are no files of their own, or only a sample is to be looked at.
    """
    if not isinstance(source, FolderSource):
        raise UserError(f"--fix lists files, and '{source.name}' holds none to list")
    if num is not None and num < len(source):
        raise UserError("--fix needs every image looked at: leave out --num")


def cleaned(report: Report) -> list[Path]:
    """Return the absolute paths of the files to keep, in the collection's order.

    Raises:
        UserError: as `listable`; or a path to keep holds a line break, which no list of lines can hold.
    """
    listable(report.source, report.looked_at)
    places = report.kept()
    paths = [path_of(report.source, int(report.sights["index"][place])) for place in places]
    found = [path for path in paths if path is not None]
    broken = [place for place, path in zip(places, found, strict=True) if len(str(path).splitlines()) > 1]
    if broken:
        raise UserError(f"--fix writes one path a line, and '{report.origin(broken[0])}' holds a line break: rename it")
    return found
