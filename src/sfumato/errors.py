"""The exception for mistakes of the user, and helpers of messages.

A `UserError` carries a single line that says what is wrong, where, and what to do about it. The command line prints
that line alone and exits with code 2; a library user sees an ordinary `ValueError`.
"""

from __future__ import annotations

import difflib
import os
import shlex
from collections.abc import Iterable
from contextlib import suppress
from itertools import islice
from pathlib import Path

_LOOKED_AT = 5000
"""The most names of a folder that are compared with a misspelt one."""


class UserError(ValueError):
    """A mistake that the user can correct; its message is one line: what, where, what to do."""


def nearest(name: str, choices: Iterable[str]) -> str:
    """Return the hint that ends an "unknown name" message.

    Args:
        name: what the user wrote.
        choices: every valid name.

    Returns:
        `; did you mean 'faces'?` when one valid name is close, else `; choose from: a, b, c`.
    """
    choices = list(choices)
    close = _close(name, choices, 0.5)
    return f"; did you mean '{close}'?" if close else f"; choose from: {', '.join(sorted(choices))}"


def similar(path: Path | str) -> str:
    """Return `; did you mean 'runs/faces'?` for a path that leads nowhere, by the names in the folder where it goes
    wrong; empty where none of them is close."""
    path = Path(path).expanduser()
    for part in (path, *path.parents):
        if part.parent.is_dir() and part.name:
            with suppress(OSError), os.scandir(part.parent) as entries:
                names = (entry.name for entry in islice(entries, _LOOKED_AT) if entry.name[0] != ".")
                alike = sorted(names, key=lambda name: Path(name).suffix == part.suffix)  # the last of a stem is taken
                stems = {Path(name).stem: part.parent / name for name in alike}
                if close := stems.get(_close(part.stem, stems, 0.6)):
                    whole = close / path.relative_to(part)
                    return f"; did you mean '{whole if whole.exists() else close}'?"
            break
    return ""


def _close(name: str, choices: Iterable[str], cutoff: float) -> str:
    """The choice that is nearest in spelling, in letters of any case; empty where none is near enough."""
    plain = {choice.lower(): choice for choice in choices}
    return next((plain[found] for found in difflib.get_close_matches(name.lower(), plain, 1, cutoff)), "")


def command(*words: object) -> str:
    """Return `sfumato` and words as a shell takes them: `sfumato sample 'my run' --num 4`."""
    return shlex.join(["sfumato", *map(str, words)])


def one_line(error: BaseException) -> str:
    """Return an error in one line: of a file what went wrong, and its name."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror + (f": {os.fsdecode(error.filename)}" if error.filename is not None else "")
    return " ".join(str(error).split()) or type(error).__name__


_SINGULAR = {"have": "has", "are": "is", "were": "was"}


def plural(count: int, noun: str, verb: str = "") -> str:
    """Return a number of things, and a verb that agrees: `1 image`, `2,000 losses`, `1 image has`, `2 images have`."""
    one = count == 1
    said = f" {_SINGULAR[verb] if one else verb}" if verb else ""
    return f"{count:,} {noun}{'' if one else 'es' if noun[-1] == 's' else 's'}{said}"
