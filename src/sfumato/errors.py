"""The exception for mistakes of the user, and helpers of messages.

A `UserError` carries a single line that says what is wrong, where, and what to do about it. The command line prints
that line alone and exits with code 2; a library user sees an ordinary `ValueError`.
"""

from __future__ import annotations

import difflib
import os
import shlex
from collections.abc import Callable, Iterable
from contextlib import suppress
from itertools import islice
from pathlib import Path

_LOOKED_AT = 5000
"""The most names of a folder that are compared with a misspelt one."""
_CANDIDATES = 20
"""The most names that are ranked by their mistakes."""


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
    return likely(name, choices, 0.5) or f"; choose from: {', '.join(sorted(choices))}"


def likely(name: str, choices: Iterable[str], cutoff: float = 0.6) -> str:
    """Return `; did you mean 'faces'?` where one of the choices is close to a name, else an empty text."""
    close = closest(name, choices, cutoff)
    return f"; did you mean '{close[0]}'?" if close else ""


def similar(path: Path | str, fits: Callable[[Path], bool] = Path.exists) -> str:
    """Return `; did you mean 'runs/faces'?` for a path that leads nowhere, by the names in the folder where it goes
    wrong; empty where none of them is close.

    Args:
        path: what the user wrote.
        fits: whether a path is of the kind that is wanted; only those are named, or a folder on the way to one.
    """
    path = Path(path).expanduser()
    for part in (path, *path.parents):
        if part.parent.is_dir() and part.name:
            with suppress(OSError), os.scandir(part.parent) as entries:
                names = (entry.name for entry in islice(entries, _LOOKED_AT) if entry.name[0] != ".")
                stems: dict[str, list[Path]] = {}
                for name in sorted(names, key=lambda name: Path(name).suffix != part.suffix):
                    stems.setdefault(Path(name).stem, []).append(part.parent / name)
                for close in (each for stem in closest(part.stem, stems) for each in stems[stem]):
                    whole = close / path.relative_to(part)
                    if fits(whole) or (whole != close and not whole.exists() and close.is_dir()):
                        return f"; did you mean '{whole if whole.exists() else close}'?"
            break
    return ""


def closest(name: str, choices: Iterable[str], cutoff: float = 0.6) -> list[str]:
    """Return the choices that are near in spelling, in letters of any case, those with the fewest mistakes first.

    Near are a ratio of `difflib` from `cutoff` on, and names with a single mistake.
    """
    name, plain = name.lower(), {choice.lower(): choice for choice in choices}
    near = difflib.get_close_matches(name, plain, _CANDIDATES, min(cutoff, 0.6))
    mistakes = {choice: _mistakes(name, choice) for choice in near}
    clear = difflib.get_close_matches(name, near, _CANDIDATES, cutoff) if cutoff > 0.6 else near
    return [
        plain[choice] for choice in sorted(near, key=mistakes.__getitem__) if mistakes[choice] < 2 or choice in clear
    ]


def _mistakes(a: str, b: str) -> int:
    """The fewest letters to insert, leave out, replace or swap with their neighbour that make one word of another
    (Damerau, "A technique for computer detection and correction of spelling errors", 1964)."""
    before, row = list[int](), list(range(len(b) + 1))
    for i, letter in enumerate(a, 1):
        older, before, row = before, row, [i]
        for j, other in enumerate(b, 1):
            row.append(min(before[j] + 1, row[-1] + 1, before[j - 1] + (letter != other)))
            if min(i, j) > 1 and letter != other and (letter, other) == (b[j - 2], a[i - 2]):
                row[j] = min(row[j], older[j - 2] + 1)
    return row[-1]


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
