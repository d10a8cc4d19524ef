"""Files that a verb writes: nothing of somebody else's is overwritten without --force.

A file that Sfumato wrote is recognised by its marks: the text `Software` of a PNG, the facts in an array, a film or
pages. A figure replaces only the same figure, not samples that took long to make. Nothing here imports torch, so that a
wrong name is refused at once.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import chain, count
from pathlib import Path

from sfumato.errors import UserError

_MARKS = (b"sfumato", b"Sfumato", b"metadata.npy", b'"sampler"')
_ENDS = 1 << 16
"""Bytes at each end of a file in which the marks are."""


def check_file(
    out: Path, force: bool, suffixes: Sequence[str] = (), flag: str = "--out", kinds: str = "", figure: str = ""
) -> None:
    """Refuse a place that can't be written, a name of another kind, and a file that is there and was not written by
    Sfumato, unless `force`.

    Args:
        suffixes: those that the name may have; () allows any.
        flag: the option that gave the name.
        kinds: the suffixes in words.
        figure: what is drawn; a PNG that is there must be the same figure.
    """
    above = next(parent for parent in out.absolute().parents if parent.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise UserError(f"{flag} {out} can't be written: {above} is not a folder to write in; choose another path")
    if suffixes and out.suffix.lower() not in suffixes:
        raise UserError(f"{flag} {out}: the name must end in {kinds or ', '.join(suffixes)}")
    marks = (b"figure" + b"\0" * 5 + figure.encode(),) if figure else _MARKS
    if out.exists() and not out.is_dir() and not force and not is_ours(out, marks):
        what = f"is no earlier figure '{figure}'" if figure else "was not written by sfumato"
        raise UserError(f"{flag} {out} exists and {what}: choose another name, or give --force to overwrite it")


def free(path: Path) -> Path:
    """Return a path, with a number after its name where it is taken: a.png, a-2.png, a-3.png."""
    numbered = (path.with_stem(f"{path.stem}-{n}") for n in count(2))
    return next(name for name in chain([path], numbered) if not name.exists())


def is_ours(path: Path, marks: Sequence[bytes] = _MARKS) -> bool:
    """Whether a file has one of the marks of what is written here; text files have none."""
    if not path.is_file() or path.suffix.lower() in (".txt", ".toml"):
        return False
    with path.open("rb") as file:
        head = file.read(_ENDS)
        file.seek(max(path.stat().st_size - _ENDS, 0))
        tail = file.read(_ENDS)
    return any(mark in head or mark in tail for mark in marks)
