"""Building a store: every picture decoded once, in order, in a folder that a killed build leaves for the next one.

    .build-KEY-*/   plan.json   the form of the rows, chosen before the first of them, and what the first row showed
                    images.npy  rows, behind a header that is written last
                    journal     what became of the pictures (`journal`)
                    lock        held by who builds, so that nobody else goes on with it

The folder is renamed when it is whole and on the disk. A build that is killed or interrupted leaves it, if it had
finished a chunk of pictures; the next build of the same pictures takes it over, verifies what is there and goes on.
Bytes are written with `write`, not through a map, since a full disk then is an error and not a signal. What a row is,
and what of that the first row decides, is `layout`'s affair.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from sfumato.codec import format as depths
from sfumato.codec.format import PixelFormat
from sfumato.conditions.attributes import Attribute, plain
from sfumato.config.data import DataConfig
from sfumato.data import pool
from sfumato.data.sources.files import FileSource
from sfumato.data.sources.layout import SIDES, Ground, Mixed, Plan, choose_size, chosen, depth_found, header, make_plan
from sfumato.data.sources.protocol import Source, Unreadable
from sfumato.data.sources.rows import Form, Row, make_row
from sfumato.data.store import journal
from sfumato.data.store.journal import Chunk, Tally
from sfumato.data.store.stored import load
from sfumato.errors import UserError

try:
    import fcntl
except ImportError:  # a system without flock: no build is ever taken over
    fcntl = None  # type: ignore[assignment]

__all__ = ["ABANDONED", "SIDES", "Progress", "build", "choose_size"]

_BUFFER = 2**20
_TRIES = 5  # a file system that has no locks fails them all: there nobody takes anything over
ABANDONED = 3600.0
"""Seconds without a write after which a temporary folder is taken for the remains of a killed build."""

Progress = Callable[[int, int], None]


def build(source: Source, config: DataConfig, entry: Path, on_progress: Progress) -> None:
    """Decode everything, or what a killed build left of it, and put it in its place.

    Args:
        source: the pictures.
        config: what is wanted of them.
        entry: where the store comes to lie.
        on_progress: called with (pictures done, pictures in all).

    Raises:
        UserError: no picture is readable.
        OSError: the cache can't be written.
    """
    slot = entry.parent
    slot.mkdir(parents=True, exist_ok=True)
    with _claimed(slot, entry.name) as built:
        try:
            plan = make_plan(built, source, config)
            try:
                tally = _write_rows(built, source, plan, on_progress)
            except Mixed:
                plan.mixed(built)
                tally = _write_rows(built, source, plan, on_progress)
            form, ground = plan.form, plan.known
            channels = form.channels or (1 if ground.width == 3 and not tally.coloured else ground.width)
            if channels < ground.width:
                _keep_one_channel(built / "images.npy", ground)
            depth = depth_found(built / "images.npy", ground.kind)
            notes = [*plan.notes, *chosen(form, channels, depth), *_met(tally)]
            _write_index(built, source, [tally.rows, channels, *form.size], plan.size, depth, notes)
            _publish(built, entry)
        except BaseException as error:
            if isinstance(error, Exception) or not (built / "journal").exists():
                shutil.rmtree(built, ignore_errors=True)
            raise
    _remove_old(slot, keep=entry.name)


# The folder of a build


@contextlib.contextmanager
def _claimed(slot: Path, name: str) -> Iterator[Path]:
    """A folder to build in, which nobody else builds in: one that was left, or a new one."""
    with contextlib.ExitStack() as held:
        for left in sorted(slot.glob(f".build-{name}-*")):
            if _lock(left, held, new=False):
                yield left
                return
        for _ in range(_TRIES):
            built = Path(tempfile.mkdtemp(prefix=f".build-{name}-", dir=slot))
            if _lock(built, held, new=True) or fcntl is None:
                break  # else somebody took it for one that was left, before it was locked: it is theirs now
        yield built


def _lock(folder: Path, held: contextlib.ExitStack, new: bool) -> bool:
    """Take a folder's lock until `held` closes; returns whether it was free and the folder is still there."""
    if fcntl is None:
        return False
    try:
        file = held.enter_context((folder / "lock").open("wb" if new else "r+b"))
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(file.fileno()), (folder / "lock").stat())
    except OSError:  # somebody builds there, or just finished, or the file system has no locks
        return False


# Rows


def _write_rows(built: Path, source: Source, plan: Plan, on_progress: Progress) -> Tally:
    """Decode what is not there yet behind what is; raises `UserError` where nothing could be read, and `Mixed`."""
    path = built / "images.npy"
    path.touch()
    with path.open("r+b", buffering=_BUFFER) as file:
        total = _resumed(built, file, plan)
        chunk, fault = Chunk(), ("", "")
        for i, (answer, condition) in enumerate(_answers(source, plan.form, total.pictures), total.pictures):
            chunk.tally.pictures += 1
            if isinstance(answer, Row):
                if plan.ground is None:
                    plan.settle(answer, built)
                    file.write(header(0, plan.known, plan.form.size))
                answer = plan.known.fault(answer) or answer
            if isinstance(answer, Row):
                file.write(answer.planes * (plan.known.width if answer.grey else 1))
                _count(chunk, answer, source.origin(i), condition)
            else:
                fault = source.origin(i), answer
                chunk.quarantined.append(fault)
            on_progress(i + 1, len(source))
            if chunk.tally.pictures == journal.CHUNK or i + 1 == len(source):
                file.flush()
                journal.append(built / "journal", chunk)
                total += chunk.tally
                chunk = Chunk()
        if not total.rows:
            raise UserError(
                f"no readable image in '{source.name}': {len(source):,} files, the last is '{fault[0]}' ({fault[1]}); "
                "give a folder of PNG, JPEG, WebP, ... files"
            )
        file.seek(0)
        file.write(header(total.rows, plan.known, plan.form.size))
        _sync(file)
    return total


def _count(chunk: Chunk, row: Row, origin: str, condition: tuple[float, ...]) -> None:
    """Note what became of a picture."""
    tally = chunk.tally
    tally.rows, tally.coloured = tally.rows + 1, tally.coloured + (not row.grey)
    tally.enlarged, tally.animated = tally.enlarged + row.enlarged, tally.animated + row.animated
    chunk.digests.append(row.digest.hex())
    chunk.origins.append(origin)
    chunk.conditions.append(condition)


def _answers(source: Source, form: Form, first: int) -> Iterator[tuple[Row | str, tuple[float, ...]]]:
    """Yield of each picture from the first on its row, or why there is none, and what is known of it."""
    workers = pool.count_workers(len(source) - first)
    if isinstance(source, FileSource) and workers and first < len(source):
        for i, row in enumerate(pool.decode(source, form, first, workers), first):
            yield row, source.condition(i)
        return
    read = partial(source.read, opacity=True) if form.opacity and isinstance(source, FileSource) else source.read
    for i in range(first, len(source)):
        try:
            picture = read(i)
            yield make_row(picture, form), picture.condition
        except Unreadable as fault:
            yield fault.reason, ()


def _resumed(built: Path, file: IO[bytes], plan: Plan) -> Tally:
    """Verify the rows that are there, cut off what is not verified, and leave the file at its end."""
    if plan.ground is None:
        file.truncate(0)
        return Tally()
    form, ground = plan.form, plan.ground
    total, kept, start = Tally(), 0, len(header(0, ground, form.size))
    path, row_bytes = built / "journal", ground.width * form.size[0] * form.size[1] * ground.dtype.itemsize
    file.seek(start)
    if path.exists():
        for chunk, end in journal.chunks(path):
            if any(_digest(file.read(row_bytes), ground.width) != digest for digest in chunk.digests):
                break
            total += chunk.tally
            kept = end
        os.truncate(path, kept)
    file.truncate(start + total.rows * row_bytes)
    file.seek(0)
    file.write(header(0, ground, form.size))
    file.seek(0, os.SEEK_END)
    return total


def _digest(row: bytes, width: int) -> str:
    """The digest of a stored row: of one plane where all are alike, as `make_row` has it."""
    plane = row[: len(row) // width]
    return hashlib.sha256(plane if width == 3 and plane * width == row else row).hexdigest()


def _met(tally: Tally) -> list[str]:
    """What was met on the way, in sentences."""
    notes = []
    if tally.enlarged:
        notes.append(f"{tally.enlarged:,} pictures are smaller than the size and were enlarged")
    if tally.animated:
        notes.append(f"{tally.animated:,} animated or multi-page files: the first frame of each was taken")
    return notes


def _keep_one_channel(path: Path, ground: Ground, chunk: int = 1024) -> None:
    """Rewrite (N, 3, H, W) rows, all grey, as (N, 1, H, W)."""
    images = np.load(path, mmap_mode="r", allow_pickle=False)
    narrow = path.with_suffix(".narrow")
    with narrow.open("wb") as file:
        file.write(header(len(images), replace(ground, width=1), images.shape[2:]))
        for start in range(0, len(images), chunk):
            file.write(images[start : start + chunk, :1].tobytes())
        _sync(file)
    del images
    narrow.replace(path)


# The index, and the store's place


def _write_index(
    built: Path, source: Source, shape: list[int], size: tuple[int, int], depth: PixelFormat, notes: list[str]
) -> None:
    """Turn the journal into the index."""
    table, quarantined = journal.columns(built, len(source.attributes))
    attributes = [_without_unused(attribute, table[:, a]) for a, attribute in enumerate(source.attributes)]
    index: dict[str, Any] = {
        "source": source.name,
        "shape": shape,
        "size": size,
        "depth": depths.plain(depth),
        "attributes": [plain(attribute) for attribute in attributes],
        "notes": notes,
        "quarantined": quarantined,
    }
    np.save(built / "conditions.npy", table, allow_pickle=False)
    (built / "index.json").write_text(json.dumps(index), "ascii")
    for name in ("conditions.npy", "digests.npy", "origins.txt", "index.json"):
        with (built / name).open("rb") as file:
            _sync(file)
    for name in ("journal", "plan.json", "lock"):
        (built / name).unlink(missing_ok=True)


def _without_unused(attribute: Attribute, column: NDArray[np.float32]) -> Attribute:
    """Drop values that no picture has; a column (N,) is changed in place to count those that are left."""
    given = ~np.isnan(column)
    used, places = np.unique(column[given].astype(np.int64), return_inverse=True)
    if not attribute.values or not len(used):
        return attribute
    column[given] = places
    return replace(attribute, values=tuple(attribute.values[k] for k in used))


def _sync(file: IO[bytes]) -> None:
    """Bring a file to the disk."""
    if file.writable():
        file.flush()
    os.fsync(file.fileno())


def _publish(built: Path, entry: Path) -> None:
    """Rename a finished store to its place, unless another process was first."""
    _sync_folder(built)
    try:
        built.rename(entry)
    except OSError:
        if load(entry) is None:
            # what stands there is damaged: out of the way with it, and an error now is an error
            shutil.rmtree(entry, ignore_errors=True)
            built.rename(entry)
        else:
            shutil.rmtree(built, ignore_errors=True)
    _sync_folder(entry.parent)


def _sync_folder(folder: Path) -> None:
    """Bring a folder's names to the disk, where the system can."""
    if hasattr(os, "O_DIRECTORY"):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _remove_old(slot: Path, keep: str) -> None:
    """Remove stores of earlier states of the source and what killed builds left; open maps of them stay good."""
    for other in slot.iterdir():
        building = other.name.startswith(".build-")
        try:
            newest = max(path.stat().st_mtime for path in (other, *other.iterdir())) if building else 0.0
        except OSError:
            continue  # gone already, or not ours to remove
        if other.name != keep and time.time() - newest > ABANDONED:
            shutil.rmtree(other, ignore_errors=True)
