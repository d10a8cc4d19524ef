"""Every image decoded once: the store is a memory map of bytes and an index, in a cache folder.

    CACHE/store/SLOT/KEY/images.npy      (N, C, H, W) uint8
                         conditions.npy  (N, A) float32, what is known of each image; NaN where it is not given
                         index.json      shape, attributes; each row's digest and origin; what was left out and why

SLOT is a hash of what was asked (which source, size, channels, background, the version of the decode rules) and KEY of
the state that the source was in (`Source.key`), so a changed folder makes a new store and its old one is removed, while
two sizes of one folder live side by side. CACHE is the `cache` argument, else $SFUMATO_CACHE, else
$XDG_CACHE_HOME/sfumato, else ~/.cache/sfumato.

A store is built beside its place under a temporary name, written to disk, and renamed: it is there whole or not at all.
A killed build leaves only a temporary folder, which a later build removes. When two processes build the same store, the
one that is done second throws its own away. Bytes are written with `write`, not through a map, since a full disk then
is an error and not a signal.

A row's digest is the SHA-256 of its pixels as stored, in their simplest form: one plane where the picture is grey, so
that it doesn't depend on whether other pictures have colour.

What is kept of labels is what the source itself carries. A file of labels is read beside the store (`labels`), so that
an edited label decodes nothing anew.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from sfumato.attributes import Attribute, from_plain, plain
from sfumato.data.decode import fit, is_grey, with_channels
from sfumato.data.source import DataConfig, Pixels, Source, Unreadable
from sfumato.errors import UserError

__all__ = ["SIDES", "Progress", "Stored", "cache_folder", "choose_size", "open_store"]

RULES = 2
"""The version of the rules in `decode` and of this layout: a change makes every store anew."""

SIDES = (8, 12, 16, 24, 32, 48, 64)
"""The sides that a size is chosen from where the user gives none."""

ABANDONED = 3600.0
"""Seconds without a write after which a temporary folder is taken for the remains of a killed build."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Stored:
    """An opened store.

    Attributes:
        images: (N, C, H, W) uint8, mapped read-only.
        conditions: (N, A) float32, NaN where not given.
        digests: N times 64 hexadecimal digits.
        origins: where each row comes from.
        attributes: what the source knows of its pictures; values that none of them has are left out.
        quarantined: (origin, reason) of every picture left out.
        notes: what was chosen and met, in sentences.
    """

    images: Pixels
    conditions: NDArray[np.float32]
    digests: tuple[str, ...]
    origins: tuple[str, ...]
    attributes: tuple[Attribute, ...]
    quarantined: list[tuple[str, str]]
    notes: tuple[str, ...]


def cache_folder(cache: Path | None = None) -> Path:
    """Return the folder for caches: the argument, $SFUMATO_CACHE, or the user's own cache folder."""
    if cache is not None:
        return cache
    if given := os.environ.get("SFUMATO_CACHE"):
        return Path(given)
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base, "sfumato")
    return Path(os.path.expanduser("~"), ".cache", "sfumato")


def open_store(
    source: Source, config: DataConfig, cache: Path | None = None, on_progress: Progress | None = None
) -> Stored:
    """Open the store of a source, building it where there is none for the state that the source is in.

    Args:
        source: the pictures.
        config: size, channels and background; nothing else of it matters here.
        cache: the cache folder; None is the default one.
        on_progress: called with (pictures done, pictures in all) while a store is built.

    Returns:
        The store; its rows are in the source's order.

    Raises:
        UserError: no picture is readable, or the cache can't be written.
    """
    rule = [RULES, source.name, config.size, config.channels, config.background]
    entry = cache_folder(cache) / "store" / _short_hash(json.dumps(rule)) / _short_hash(source.key())
    try:
        for _ in range(3):  # once more where another process removes the store just when it is done
            stored = _load(entry)
            if stored is not None:
                return stored
            _build(source, config, entry, on_progress or (lambda done, total: None))
    except OSError as error:
        raise UserError(
            f"the image cache '{cache_folder(cache)}' cannot be used: {error.strerror or error}; "
            "set SFUMATO_CACHE to a folder that can be written and has room"
        ) from error
    raise UserError(f"the image cache '{entry}' cannot be read back: remove it and try again")


def choose_size(sizes: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], str]:
    """Choose the size of training images from those of the pictures.

    Pictures that are all of one size of at most 64 keep it. Else the square is taken whose side is the largest of
    `SIDES` that the median of the pictures' shorter sides reaches; below 8, that median itself.

    Args:
        sizes: (height, width) of each picture; at least one.

    Returns:
        (height, width), and a sentence that says what was chosen and why.
    """
    first = sizes[0]
    alike = all(size == first for size in sizes)
    if alike and max(first) <= SIDES[-1]:
        return first, f"size {first[0]}x{first[1]} (height x width): every picture has it"
    median = int(np.median([min(size) for size in sizes]))
    side = max((side for side in SIDES if side <= median), default=median)
    what = f"every picture is {first[0]}x{first[1]}" if alike else f"the pictures' median shorter side is {median}"
    return (side, side), f"size {side}x{side}, chosen since {what}; set data.size for another"


def _short_hash(text: str) -> str:
    """The first 20 hexadecimal digits of a text's SHA-256: a folder's name."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:20]


def _load(entry: Path) -> Stored | None:
    """Open a store, None where there is none or it is damaged."""
    try:
        index = json.loads((entry / "index.json").read_text("utf-8"))
        images = np.load(entry / "images.npy", mmap_mode="r", allow_pickle=False)
        conditions = np.load(entry / "conditions.npy", allow_pickle=False)
        rows, shape = index["rows"], tuple(index["shape"])
        attributes = tuple(from_plain(table) for table in index["attributes"])
        if images.shape != shape or images.dtype != np.uint8 or any(len(rows[k]) != shape[0] for k in rows):
            return None
        if conditions.shape != (shape[0], len(attributes)) or conditions.dtype != np.float32:
            return None
        return Stored(
            images=images,
            conditions=conditions,
            digests=tuple(rows["digests"]),
            origins=tuple(rows["origins"]),
            attributes=attributes,
            quarantined=[(origin, reason) for origin, reason in index["quarantined"]],
            notes=tuple(index["notes"]),
        )
    except (FileNotFoundError, EOFError, ValueError, KeyError, TypeError):
        return None


def _build(source: Source, config: DataConfig, entry: Path, on_progress: Progress) -> None:
    """Decode everything into a temporary folder and put it in its place."""
    slot = entry.parent
    slot.mkdir(parents=True, exist_ok=True)
    built = Path(tempfile.mkdtemp(prefix=".build-", dir=slot))
    try:
        size, notes = config.size, []
        if size is None:
            size, note = choose_size(_header_sizes(source))
            notes = [note]
        with (built / "images.npy").open("wb") as file:
            rows = _Rows(file, config.channels or 3, size)
            _decode_all(source, rows, on_progress)
            rows.finish()
        if config.channels is None and not rows.coloured:
            _keep_one_channel(built / "images.npy")
            rows.channels = 1
        if config.channels is None:
            notes.append("grey (1 channel): no picture has colour" if rows.channels == 1 else "RGB (3 channels)")
        _write_index(built, rows, source, [*notes, *rows.notes()])
        _publish(built, entry)
    except BaseException:
        shutil.rmtree(built, ignore_errors=True)
        raise
    _remove_old(slot, keep=entry.name)


def _header_sizes(source: Source) -> list[tuple[int, int]]:
    """The sizes of the pictures whose header can be read."""
    sizes = []
    for i in range(len(source)):
        try:
            sizes.append(source.size(i))
        except Unreadable:
            continue  # reading it will say why
    return sizes or [(SIDES[-1], SIDES[-1])]


@dataclass
class _Index:
    """The columns of the index."""

    digests: list[str] = field(default_factory=list)
    origins: list[str] = field(default_factory=list)


class _Rows:
    """Writes rows behind an .npy header that is written last, when their number is known."""

    def __init__(self, file: IO[bytes], channels: int, size: tuple[int, int]) -> None:
        self.file, self.channels, self.size = file, channels, size
        self.index = _Index()
        self.conditions: list[tuple[float, ...]] = []
        self.quarantined: list[tuple[str, str]] = []
        self.coloured = False
        self.animated = self.enlarged = 0
        file.write(_header(0, channels, size))

    def add(self, pixels: Pixels, condition: tuple[float, ...], origin: str) -> None:
        """Append one picture (H, W, C) of any size."""
        self.enlarged += pixels.shape[0] < self.size[0] or pixels.shape[1] < self.size[1]
        pixels = fit(pixels, self.size)
        grey = is_grey(pixels)
        self.coloured |= not grey
        if self.channels == 1:
            pixels, grey = with_channels(pixels, 1), True
        plain = (pixels[..., :1] if grey else pixels).transpose(2, 0, 1).tobytes()
        self.file.write(plain * self.channels if grey else plain)
        self.index.digests.append(hashlib.sha256(plain).hexdigest())
        self.conditions.append(condition)
        self.index.origins.append(origin)

    def finish(self) -> None:
        """Write the header and bring everything to the disk."""
        self.file.seek(0)
        self.file.write(_header(len(self.conditions), self.channels, self.size))
        _sync(self.file)

    def notes(self) -> list[str]:
        """What was met on the way, in sentences."""
        notes = []
        if self.enlarged:
            notes.append(f"{self.enlarged:,} pictures are smaller than the size and were enlarged")
        if self.animated:
            notes.append(f"{self.animated:,} animated or multi-page files: the first frame of each was taken")
        return notes


def _decode_all(source: Source, rows: _Rows, on_progress: Progress) -> None:
    """Read every picture into rows; raises `UserError` where none could be read."""
    for i in range(len(source)):
        try:
            picture = source.read(i)
        except Unreadable as fault:
            rows.quarantined.append((source.origin(i), fault.reason))
        else:
            rows.add(picture.pixels, picture.condition, source.origin(i))
            rows.animated += picture.animated
        on_progress(i + 1, len(source))
    if not rows.conditions:
        origin, reason = rows.quarantined[0]
        raise UserError(
            f"no readable image in '{source.name}': {len(source):,} files, the first is '{origin}' ({reason}); "
            "give a folder of PNG, JPEG, WebP, ... files"
        )


def _header(count: int, channels: int, size: tuple[int, int]) -> bytes:
    """An .npy header; numpy pads it so that the count can grow without its length changing."""
    buffer = io.BytesIO()
    shape = (count, channels, *size)
    np.lib.format.write_array_header_1_0(buffer, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def _keep_one_channel(path: Path, chunk: int = 1024) -> None:
    """Rewrite (N, 3, H, W) rows, all grey, as (N, 1, H, W)."""
    images = np.load(path, mmap_mode="r", allow_pickle=False)
    narrow = path.with_suffix(".narrow")
    with narrow.open("wb") as file:
        file.write(_header(len(images), 1, images.shape[2:]))
        for start in range(0, len(images), chunk):
            file.write(images[start : start + chunk, :1].tobytes())
        _sync(file)
    del images
    narrow.replace(path)


def _write_index(folder: Path, rows: _Rows, source: Source, notes: list[str]) -> None:
    """Write what is known of the rows, and the index."""
    table = np.array(rows.conditions, np.float32).reshape(len(rows.conditions), -1)
    attributes = [_without_unused(attribute, table[:, a]) for a, attribute in enumerate(source.attributes)]
    index: dict[str, Any] = {
        "source": source.name,
        "shape": [len(table), rows.channels, *rows.size],
        "attributes": [plain(attribute) for attribute in attributes],
        "notes": notes,
        "quarantined": rows.quarantined,
        "rows": vars(rows.index),
    }
    with (folder / "conditions.npy").open("wb") as file:
        np.save(file, table, allow_pickle=False)
        _sync(file)
    with (folder / "index.json").open("wb") as file:
        file.write(json.dumps(index).encode("ascii"))
        _sync(file)


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
    file.flush()
    os.fsync(file.fileno())


def _publish(built: Path, entry: Path) -> None:
    """Rename a finished store to its place, unless another process was first."""
    _sync_folder(built)
    try:
        built.rename(entry)
    except OSError:
        if _load(entry) is None:
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
