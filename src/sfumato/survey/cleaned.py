"""The cleaned list: which files are left when those are out that no model should learn from.

Out are files that can't be read, every exact and near copy but the first, and pictures of a single colour. Odd pictures
stay, since whether they belong is for somebody to decide, and so do mirrored copies.
"""

from __future__ import annotations

from pathlib import Path

from sfumato.errors import UserError
from sfumato.survey.files import file_of
from sfumato.survey.report import Report

__all__ = ["cleaned"]


def cleaned(report: Report) -> list[Path]:
    """Return the absolute paths of the files to keep, in the collection's order.

    Raises:
        UserError: the pictures are no files of their own, only a sample was looked at, or a path to keep holds a line
            break, which no list of lines can hold.
    """
    if report.looked_at < report.total:
        raise UserError("--fix needs every image looked at: leave out --num")
    paths = [file_of(report.source, int(report.sights["index"][place])) for place in report.kept()]
    found = [path for path in paths if path is not None]
    if len(found) < len(paths) or not paths:
        raise UserError(f"--fix lists files, and '{report.source.name}' holds none to list")
    broken = [place for place, path in zip(report.kept(), found, strict=True) if len(str(path).splitlines()) > 1]
    if broken:
        raise UserError(f"--fix writes one path a line, and '{report.origin(broken[0])}' holds a line break: rename it")
    return found
