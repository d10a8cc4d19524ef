"""The exception for mistakes of the user, and helpers of messages.

A `UserError` carries a single line that says what is wrong, where, and what to do about it. The command line prints
that line alone and exits with code 2; a library user sees an ordinary `ValueError`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


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
    close = difflib.get_close_matches(name, choices, n=1, cutoff=0.5)
    if close:
        return f"; did you mean '{close[0]}'?"
    return f"; choose from: {', '.join(sorted(choices))}"


_SINGULAR = {"have": "has", "are": "is", "were": "was"}


def plural(count: int, noun: str, verb: str = "") -> str:
    """Return a number of things, and a verb that agrees: `1 image`, `2,000 images`, `1 image has`, `2 images have`."""
    one = count == 1
    said = f" {_SINGULAR[verb] if one else verb}" if verb else ""
    return f"{count:,} {noun}{'' if one else 's'}{said}"
