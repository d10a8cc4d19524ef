"""What a build has done so far, so that a killed one goes on where it was.

A build writes rows behind one another into `images.npy` and, after every `CHUNK` pictures, one line into `journal`: the
SHA-256 of what follows, and JSON of what became of those pictures. Rows after the last line are forgotten. Going on, a
line is believed where its own hash is right and the rows that it speaks of have the digests that it names; the first
that isn't ends it. So nothing has to reach the disk at any certain time, and what is kept is what was meant.

When all is read, the journal becomes the index: three files of columns, which open fast whatever their length (a
million rows of JSON take seconds and a gigabyte).
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfumato.data.sources.protocol import Pixels

__all__ = ["CHUNK", "Chunk", "Tally", "append", "chunks", "columns"]

CHUNK = 1024
"""Pictures a line."""


@dataclass
class Tally:
    """What was met among pictures.

    Attributes:
        pictures: looked at, readable or not.
        rows: stored.
        coloured: stored with colour.
        enlarged: smaller than the size.
        animated: with further frames.
    """

    pictures: int = 0
    rows: int = 0
    coloured: int = 0
    enlarged: int = 0
    animated: int = 0

    def __iadd__(self, other: Tally) -> Tally:
        for name, count in vars(other).items():
            setattr(self, name, getattr(self, name) + count)
        return self


@dataclass
class Chunk:
    """What became of some pictures.

    Attributes:
        tally: what was met.
        digests: of each row, SHA-256 in hexadecimal.
        origins: of each row.
        conditions: of each row.
        quarantined: (origin, reason) of the pictures without a row.
    """

    tally: Tally = field(default_factory=Tally)
    digests: list[str] = field(default_factory=list)
    origins: list[str] = field(default_factory=list)
    conditions: list[tuple[float, ...]] = field(default_factory=list)
    quarantined: list[tuple[str, str]] = field(default_factory=list)

    def line(self) -> bytes:
        """Return the chunk as a line of the journal."""
        table = vars(self) | {"tally": vars(self.tally), "conditions": _packed(self.conditions)}
        text = json.dumps(table).encode("ascii")
        return hashlib.sha256(text).hexdigest().encode() + b" " + text + b"\n"


def append(journal: Path, chunk: Chunk) -> None:
    """Write a chunk behind those that are there."""
    with journal.open("ab") as file:
        file.write(chunk.line())


def chunks(journal: Path) -> Iterator[tuple[Chunk, int]]:
    """Yield the chunks of a journal up to the first damaged line, each with the number of bytes up to its end."""
    end = 0
    with journal.open("rb") as file:
        for line in file:
            chunk = _read(line)
            if chunk is None:
                return
            end += len(line)
            yield chunk, end


def columns(folder: Path, attributes: int) -> tuple[NDArray[np.float32], list[tuple[str, str]]]:
    """Write the columns of the index: digests.npy (N, 32) uint8 and origins.txt, a line a row.

    Args:
        folder: of the build, with its journal.
        attributes: how many there are.

    Returns:
        The conditions (N, attributes), and (origin, reason) of the pictures without a row.
    """
    conditions: list[NDArray[np.float32]] = [np.zeros((0, attributes), np.float32)]
    digests: list[Pixels] = [np.zeros((0, 32), np.uint8)]
    quarantined: list[tuple[str, str]] = []
    with (folder / "origins.txt").open("wb") as origins:
        for chunk, _ in chunks(folder / "journal"):
            origins.write("".join(f"{origin}\n" for origin in chunk.origins).encode("utf-8"))
            digests.append(np.frombuffer(bytes.fromhex("".join(chunk.digests)), np.uint8).reshape(-1, 32))
            conditions.append(np.array(chunk.conditions, np.float32).reshape(len(chunk.digests), attributes))
            quarantined += chunk.quarantined
    np.save(folder / "digests.npy", np.concatenate(digests), allow_pickle=False)
    return np.concatenate(conditions), quarantined


def _packed(conditions: list[tuple[float, ...]]) -> list[Any]:
    """A table of numbers as its width and base64 of float32: JSON has no NaN, and takes ten times the room."""
    width = len(conditions[0]) if conditions else 0
    return [width, base64.b64encode(np.array(conditions, "<f4").tobytes()).decode("ascii")]


def _unpacked(width: int, text: str) -> list[tuple[float, ...]]:
    """What `_packed` was given."""
    values = np.frombuffer(base64.b64decode(text), "<f4")
    return [tuple(row) for row in values.reshape(-1, width).tolist()] if width else []


def _read(line: bytes) -> Chunk | None:
    """The chunk of a line, None where it is damaged or not whole."""
    digest, _, text = line.rstrip(b"\n").partition(b" ")
    if not line.endswith(b"\n") or hashlib.sha256(text).hexdigest().encode() != digest:
        return None
    table = json.loads(text)
    chunk = Chunk(Tally(**table["tally"]), table["digests"], table["origins"])
    chunk.conditions = _unpacked(*table["conditions"]) or [()] * len(chunk.digests)
    chunk.quarantined = [(origin, reason) for origin, reason in table["quarantined"]]
    return chunk
