"""Columns of a store as sequences of texts that are made when they are asked for.

A million digests and paths as Python's own texts take 200 MB and half a second; these hold 32 bytes a digest, and a
path's own bytes and 8 more. They are equal to any sequence of the same texts.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import overload

import numpy as np
from numpy.typing import NDArray

_DIGITS = 64
_TOGETHER = 4096


class Column(Sequence[str]):
    """N texts; a slice is a tuple of them."""

    @abstractmethod
    def rows(self, first: int, last: int) -> list[str]:
        """Return the texts from `first` up to, and without, `last`."""

    @overload
    def __getitem__(self, i: int) -> str: ...
    @overload
    def __getitem__(self, i: slice) -> tuple[str, ...]: ...
    def __getitem__(self, i: int | slice) -> str | tuple[str, ...]:
        which = range(len(self))[i]
        if isinstance(which, int):
            return self.rows(which, which + 1)[0]
        return tuple(self.rows(k, k + 1)[0] for k in which)

    def __iter__(self) -> Iterator[str]:
        for first in range(0, len(self), _TOGETHER):
            yield from self.rows(first, min(first + _TOGETHER, len(self)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {len(self):,}>"


class Digests(Column):
    """SHA-256 in hexadecimal: 64 digits each.

    Args:
        table: (N, 32) uint8.
    """

    def __init__(self, table: NDArray[np.uint8]) -> None:
        self.table = table

    def __len__(self) -> int:
        return len(self.table)

    def rows(self, first: int, last: int) -> list[str]:
        """Return the digits of some rows."""
        text = self.table[first:last].tobytes().hex()
        return [text[start : start + _DIGITS] for start in range(0, len(text), _DIGITS)]


class Lines(Column):
    """Lines of a text.

    Args:
        content: UTF-8; every line ends with a line feed. Raises ValueError where that is not so.
    """

    def __init__(self, content: bytes) -> None:
        content.decode("utf-8")
        self._content = content
        self._ends = np.flatnonzero(np.frombuffer(content, np.uint8) == ord("\n"))
        if content[-1:] not in (b"", b"\n"):
            raise ValueError("the last line has no end")

    def __len__(self) -> int:
        return len(self._ends)

    def rows(self, first: int, last: int) -> list[str]:
        """Return some lines, without their ends."""
        start = int(self._ends[first - 1]) + 1 if first else 0
        return self._content[start : int(self._ends[last - 1])].decode("utf-8").split("\n")


def leading_bits(digests: Sequence[str]) -> NDArray[np.uint64]:
    """Return the first 64 bits of digests as integers, (N,)."""
    if isinstance(digests, Digests):
        first = np.ascontiguousarray(digests.table[:, :8])
    else:
        first = np.frombuffer(bytes.fromhex("".join(digest[:16] for digest in digests)), np.uint8)
    return first.view(">u8").ravel().astype(np.uint64)


def copies_of(digests: Sequence[str]) -> tuple[int, int]:
    """Return how many digests are another's copy, and how many the most frequent one has, itself included."""
    bits = leading_bits(digests)
    ascending = np.sort(bits)
    twice = np.unique(ascending[1:][ascending[1:] == ascending[:-1]])
    rows = np.flatnonzero(np.isin(bits, twice)).tolist() if len(twice) else []
    counts = Counter(digests[row] for row in rows)  # only these can have a copy
    return len(rows) - len(counts), max(counts.values(), default=1)
