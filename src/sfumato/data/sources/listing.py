"""A list of files as a source: a .txt file with one path a line, as `data check --fix` writes it.

Relative paths start in the list's folder. Empty lines and second lines of one path are left out. The files are read by
the rules of a folder: the first folders below the one that holds them all are their classes.
"""

from __future__ import annotations

import os
from pathlib import Path

from sfumato.data.sources.files import FileSource, arranged_source, look_at
from sfumato.data.sources.protocol import printable
from sfumato.errors import UserError

SUFFIX = ".txt"


def list_source(path: Path) -> FileSource:
    """Return a source of the images that a list names; raises `UserError` where none of them is there, and OSError
    where the list can't be read."""
    shown, here = printable(str(path)), path.resolve().parent
    lines = dict.fromkeys(os.fsdecode(line.strip()) for line in path.read_bytes().splitlines() if line.strip())
    paths = [Path(os.path.abspath(here / line)) for line in lines if "\0" not in line]
    if not any(map(os.path.isfile, paths)):
        first = printable(next(iter(lines), "nothing"))[:80]
        raise UserError(f"'{shown}' names no file that is there (its first line is '{first}'): give a path a line")
    root = Path(os.path.commonpath([file.parent for file in paths]))
    entries = [look_at(str(file.parent), file.parent.relative_to(root).parts, file.name) for file in paths]
    return arranged_source(printable(str(path.resolve())), root, entries)
