"""The answers for the pictures of a source: their rows, or why there is none, in order.

Pictures of arrays are made rows many at once, and so are other plain ones that follow one another and have one size.
Encoded files are decoded in this process first, and in others (`workers`) as soon as the time that they take shows that
it pays; those of other processes that want the same store help then (`builders`). A build that goes on from one that
died uses them at once, since one of the files may have ended it.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sfumato.data.formats.decode import read_picture
from sfumato.data.formats.rows import Form, Rows, make_row, make_rows
from sfumato.data.sources.protocol import Blocks, File, Picture, Source, blocks_of, encoded
from sfumato.data.store import builders, parts
from sfumato.data.store import format as disk
from sfumato.data.watch import watched
from sfumato.data.workers import Pace, reason_of

_BATCH_BYTES = 2**22
_TOGETHER = 16


def decoder(setup: bytes) -> Callable[[File], bytes]:
    """Return the workers' function: make rows of the form that JSON describes."""
    form = Form.from_plain(json.loads(setup))
    return lambda file: make_row(read_picture(file), form).pack()


@dataclass(frozen=True)
class Made:
    """The rows of some pictures, or why one has none, and what is known of each: its condition and its caption."""

    rows: Rows | str
    conditions: Sequence[Sequence[float]] | NDArray[np.float32] = ((),)
    captions: Sequence[str | None] = (None,)


def make_all(source: Source, form: Form, first: int, built: Path, died: bool) -> Iterator[Made]:
    """Yield the answers for all pictures in order, from `first` on; each line of the journal ends with one."""
    if (several := blocks_of(source)) is not None:
        yield from _blocks(several, form, first)
        return
    files, groups = encoded(source), _groups(source, first)
    pace = None if files is None else Pace(len(source) - first, died)
    workers = pace.workers() if pace else 0
    while not workers and (group := next(groups, None)):
        yield from [made for _, run in groupby(group, _alike) for made in _together(list(run), form)]
        first += len(group)
        workers = pace.workers(len(group)) if pace else 0
    if files is None or not workers:
        return
    batch = max(1, min(_TOGETHER, _BATCH_BYTES // (3 * math.prod(form.size))))
    shared = parts.Shared(json.dumps(asdict(form)), first, len(source), batch)
    for i, row in enumerate(builders.lead(built, shared, files, workers), first):
        condition, caption = files.labels[i]
        yield Made(row if isinstance(row, str) else Rows.unpack(row), [condition], [caption])


def _blocks(source: Blocks, form: Form, first: int) -> Iterator[Made]:
    """Yield the answers for pictures that are read many at once; for those of a block one by one where that is
    needed to tell them apart."""
    while first < len(source):
        count, rows = min(source.together, disk.CHUNK - first % disk.CHUNK, len(source) - first), None
        with contextlib.suppress(Exception):  # each picture then gives its own reason
            block = source.block(first, count)
            rows = make_rows(block.pixels, form)
        if rows is not None:
            yield Made(rows, block.conditions, (None,) * count)
        else:
            yield from (_made(_read(source, i), form) for i in range(first, first + count))
        first += count


def _groups(source: Source, first: int) -> Iterator[list[Picture | str]]:
    """Yield the pictures from `first` on, or why one can't be read, `_TOGETHER` at a time, or fewer where they are
    large or a line of the journal ends."""
    group, size = list[Picture | str](), 0
    with watched(source.origin) if encoded(source) else contextlib.nullcontext(lambda i: None) as begin:
        for i in range(first, len(source)):
            begin(i)
            group.append(picture := _read(source, i))
            size += 0 if isinstance(picture, str) else picture.pixels.nbytes
            if len(group) == _TOGETHER or size > _BATCH_BYTES or not (i + 1) % disk.CHUNK:
                begin(None)
                yield group
                group, size = [], 0
    if group:
        yield group


def _read(source: Source, i: int) -> Picture | str:
    """Picture i, or why it can't be read."""
    try:
        return source.read(i)
    except Exception as error:  # as in a worker: the other pictures go on
        return reason_of(error)


def _alike(picture: Picture | str) -> tuple[object, ...]:
    """A key that is the same for plain pictures that can become rows together."""
    if isinstance(picture, str) or picture.alpha or picture.animated or picture.profile:
        return (id(picture),)
    return picture.pixels.shape, picture.pixels.dtype


def _together(pictures: Sequence[Picture | str], form: Form) -> Iterator[Made]:
    """The answers for pictures that are alike, one by one where that is needed to tell them apart."""
    rows, several = None, [picture for picture in pictures if isinstance(picture, Picture)]
    if len(several) > 1:
        with contextlib.suppress(Exception):  # each picture then gives its own reason
            rows = make_rows(np.stack([picture.pixels for picture in several]), form)
    if rows is None:
        yield from (_made(picture, form) for picture in pictures)
    else:
        yield Made(rows, [picture.condition for picture in several], [picture.caption for picture in several])


def _made(picture: Picture | str, form: Form) -> Made:
    """The answer for a picture."""
    if isinstance(picture, str):
        return Made(picture)
    try:
        return Made(make_row(picture, form), [picture.condition], [picture.caption])
    except Exception as error:
        return Made(reason_of(error))
