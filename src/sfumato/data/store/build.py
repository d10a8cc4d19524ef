"""Building a store: every picture is decoded once, in order, in a folder from which a later build continues.

The folder is renamed when it is whole and on the disk. A build that is killed or interrupted leaves it, if it had
finished a chunk of pictures; the next build of the same pictures takes it over, verifies it and continues. Bytes are
written with `write`, not through a map, since a full disk is then an error and not a signal.

The size of the rows is chosen from the pictures' headers before the first is decoded; for random crops, rows are an
eighth larger (`MARGIN`). Where depth and channels are to be the pictures' own, the first row decides them: pictures of
another number of channels are skipped, and a row of another depth shows that not all are alike; then the build begins
again and brings all of them to 8 bits.

A range by percentiles is taken from some pictures' values (`percentiles`) before the first is decoded for the store.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import numpy as np

from sfumato.codec import format as formats
from sfumato.codec.format import PixelFormat, format_of
from sfumato.config.data import DataConfig
from sfumato.data.formats.rows import Form, Rows
from sfumato.data.formats.values import Values
from sfumato.data.sources.protocol import Source, encoded
from sfumato.data.store import builders
from sfumato.data.store import format as disk
from sfumato.data.store.answers import make_all
from sfumato.data.store.format import Chunk, Plan, append, chunks, header, load, plan_of, row_digest, write_index
from sfumato.data.store.percentiles import percentile_range
from sfumato.data.store.sizes import choose_size, header_sizes
from sfumato.data.workers import most_workers
from sfumato.errors import UserError, plural
from sfumato.files import sync

LOG = logging.getLogger("sfumato")

MARGIN = 1 / 8
"""How much larger than an image a row is for random crops."""
ABANDONED = 3600.0
"""Seconds without a write after which a temporary folder counts as left by a killed build."""
_BUFFER = 2**20

Progress = Callable[[int, int], None]


class _Mixed(Exception):
    """Pictures of several depths, where each was to keep its own."""


def build(source: Source, config: DataConfig, entry: Path, on_progress: Progress) -> None:
    """Decode everything, or continue a killed build, and publish the store; or help the process that does so.

    Raises:
        UserError: no picture is readable.
        OSError: the cache can't be written.
    """
    slot = entry.parent
    slot.mkdir(parents=True, exist_ok=True)
    files = encoded(source)
    workers = 0 if files is None else most_workers()
    with contextlib.ExitStack() as held:
        if (built := builders.claim(entry, files, workers, on_progress, held)) is None:
            return
        try:
            if (died := (built / "journal").exists()) and workers:
                LOG.warning(
                    "'%s': an import did not end. One of the files may have ended it, so they are read in worker "
                    "processes now, which skip such a file",
                    source.name,
                )
            (built / "journal").touch()
            plan = _plan(built, source, config, died)
            try:
                counts = _write_rows(built, source, plan, on_progress, died)
            except _Mixed:
                note = "some pictures have 8 bits and others more, or floats: all were converted to 8"
                plan = _begun(built, Plan(plan.size, replace(plan.form, depth="8"), [*plan.notes, note]))
                counts = _write_rows(built, source, plan, on_progress, died)
            _finish(built, source, plan, counts)
            _publish(built, entry)
        except BaseException as error:
            if isinstance(error, Exception) or not any(chunks(built / "journal")):
                shutil.rmtree(built, ignore_errors=True)
            raise
    _remove_old(slot, keep=entry.name)


# How the rows are made


def _plan(built: Path, source: Source, config: DataConfig, died: bool = False) -> Plan:
    """The plan of the build that was begun here, or a new one."""
    if (begun := plan_of(built / "journal")) is not None:
        return begun
    size, notes, clamp = config.size, list[str](), config.range if config.clamp else None
    if config.percentiles is not None:
        clamp = percentile_range(source, config, died)
        low, high = (f"{percent:g} %" for percent in config.percentiles)
        notes.append(f"range {clamp[0]:.5g} to {clamp[1]:.5g}: the percentiles {low} and {high} of the values")
    if size is None:
        size, note = choose_size(header_sizes(source))
        notes.append(note)
    rows, crop = size, config.crop
    if crop == "random":
        rows, crop = (math.ceil(size[0] * (1 + MARGIN)), math.ceil(size[1] * (1 + MARGIN))), "center"
        notes.append(f"kept at {rows[0]}x{rows[1]}, of which another {size[0]}x{size[1]} is cut out each time")
    form = Form(rows, config.channels, config.background, config.kind, crop, config.resample, config.hole, clamp)
    return _begun(built, Plan(size, form, notes))


def _begun(built: Path, plan: Plan) -> Plan:
    """Begin a journal with a plan."""
    (built / "journal").unlink(missing_ok=True)
    append(built / "journal", plan)
    return plan


# Rows


def _write_rows(built: Path, source: Source, plan: Plan, on_progress: Progress, died: bool = False) -> Counter[str]:
    """Decode the pictures without a row and append their rows; raises `UserError` where nothing could be read, and
    `_Mixed`."""
    path, fault = built / "images.npy", ("", "")
    path.touch()
    with path.open("r+b", buffering=_BUFFER) as file:
        total, chunk, described = _resumed(built, file, plan), Chunk(), list[Values]()
        done = total["pictures"]
        for made in make_all(source, plan.form, done, built, died):
            rows = made.rows if isinstance(made.rows, str) else _accepted(made.rows, plan, file)
            origins = [source.origin(i) for i in range(done, done + len(made.captions))]
            done += len(origins)
            chunk.counts["pictures"] += len(origins)
            if isinstance(rows, str):
                chunk.skipped += [(origin, rows) for origin in origins]
                fault = chunk.skipped[-1]
            else:
                file.write((rows.planes if rows.channels == plan.width else rows.planes.repeat(plan.width, 1)).data)
                for fact, number in rows.facts.items():
                    if number:
                        chunk.counts[fact] += number
                chunk.counts["rows"] += len(rows)
                chunk.counts["coloured"] += rows.grey.count(False)
                chunk.counts["lost"] += len(rows) * round(1e6 * rows.lost)
                described += rows.values
                chunk.digests += [digest.hex() for digest in rows.digests]
                chunk.origins += origins
                chunk.conditions += map(tuple, made.conditions)
                chunk.captions += made.captions
            for k in range(done - len(origins), done):
                on_progress(k + 1, len(source))
            if chunk.counts["pictures"] == disk.CHUNK or done == len(source):
                file.flush()
                values = Values.joined([Values(), *described])
                append(built / "journal", replace(chunk, width=plan.width, kind=plan.kind, values=values))
                total += chunk.counts
                chunk, described = Chunk(), []
        if not total["rows"]:
            raise UserError(
                f"no readable image in '{source.name}': {plural(len(source), 'file')}, the last is '{fault[0]}' "
                f"({fault[1]}); give a folder of PNG, JPEG, WebP, ... files"
            )
        file.seek(0)
        file.write(header(total["rows"], plan))
    return total


def _accepted(rows: Rows, plan: Plan, file: IO[bytes]) -> Rows | str:
    """The rows, or why they don't fit the first one. Raises `_Mixed`."""
    if not plan.kind:
        plan.width = plan.form.channels or (3 if rows.channels in (1, 3) else rows.channels)
        plan.kind = rows.kind
        file.write(header(0, plan))
    if rows.kind != plan.kind:
        raise _Mixed
    if rows.channels in ((1, 3) if plan.width == 3 else (plan.width,)):
        return rows
    return f"{rows.channels} channels, where the first picture has {plan.width}"


def _resumed(built: Path, file: IO[bytes], plan: Plan) -> Counter[str]:
    """Verify the existing rows, truncate the file after the last good one, and seek to its end."""
    total, kept, start = Counter[str](), 0, 0
    for chunk, end in chunks(built / "journal"):
        if chunk.kind and not plan.kind:
            plan.width, plan.kind = chunk.width, chunk.kind
            file.seek(start := len(header(0, plan)))
        if any(row_digest(file.read(plan.row_bytes), plan.width) != digest for digest in chunk.digests):
            break
        total, kept = total + chunk.counts, end
    if not total:
        plan.width, plan.kind = 0, ""
        _begun(built, plan)
        file.truncate(0)
        file.seek(0)
        return total
    os.truncate(built / "journal", kept)
    file.truncate(start + total["rows"] * (plan.row_bytes if plan.kind else 0))
    file.seek(0, os.SEEK_END)
    return total


# Publishing


def _finish(built: Path, source: Source, plan: Plan, counts: Counter[str]) -> None:
    builders.remove(built)
    path = built / "images.npy"
    channels = plan.form.channels or (1 if plan.width == 3 and not counts["coloured"] else plan.width)
    if channels < plan.width:
        plan.width = channels
        _keep_one_channel(path, plan)
    clamp, notes = plan.form.clamp, list(plan.notes)
    format = _format(path, plan.kind) if clamp is None else format_of(plan.kind, *clamp)
    if plan.form.channels is None:
        usual = {1: "grey (1 channel): no picture has colour", 3: "RGB (3 channels)"}
        notes.append(usual.get(channels, f"{channels} channels, as the pictures have"))
    if format.kind != "8":
        notes.append(
            "16 bits a channel"
            if format.levels
            else f"{format.words}, {'the least and the greatest value of all' if clamp is None else 'clamped'}"
        )
    notes += _changes(counts, plan.form)
    shape = [counts["rows"], channels, *plan.form.size]
    values = Values.joined([Values(), *(chunk.values for chunk, _ in chunks(built / "journal"))])
    index: dict[str, Any] = {"source": source.name, "shape": shape, "size": plan.size, "depth": formats.plain(format)}
    mixed = plan.form.resample != "nearest" and counts["resampled"] > 0
    index |= {"values": values.plain(), "mixed": mixed}
    write_index(built, source.attributes, index | {"attributes": None, "notes": notes})


def _sentence(count: int, said: str) -> str:
    """`3 pictures have colour and became grey by their luma`; of one picture in the singular."""
    verb, _, what = said.partition(" ")
    what = what.replace(" and were ", " and was ").replace(" their ", " its ") if count == 1 else what
    return f"{plural(count, 'picture', verb)} {what}"


def _changes(counts: Counter[str], form: Form) -> list[str]:
    """What was done to pictures' pixels, and to how many."""
    how = "resampled with Lanczos" if form.resample == "lanczos" else "resampled to the nearest pixel"
    text = {
        "resampled": f"were {how}",
        "enlarged": "are smaller than the size and were enlarged",
        "composited": f"have transparency and were laid on {form.background} (data.background=COLOUR sets another)",
        "greyed": "have colour and became grey by their luma",
        "filled": f"have missing data ({form.nodata:g}), filled with the mean of the picture's other pixels"
        if form.nodata is not None
        else "",
        "clamped": "have values beyond the range, which were clamped",
        "converted": "have a colour profile other than sRGB and were converted to sRGB",
        "unconverted": "have a colour profile that was not applied: it can't be read, or the depth isn't 8",
    }
    notes = [_sentence(counts[name], said) for name, said in text.items() if counts[name]]
    if (lost := counts["lost"] / 1e6 / counts["rows"]) >= 0.0005:
        notes.insert(0, f"the crop cuts away {lost:.1%} of a picture's pixels on average (data.crop={form.crop})")
    if counts["animated"]:
        notes.append(f"{plural(counts['animated'], 'animated or multi-page file')}: only the first frame was taken")
    return notes


def _keep_one_channel(path: Path, plan: Plan) -> None:
    """Rewrite (N, 3, H, W) rows, all grey, as (N, 1, H, W)."""
    images = np.load(path, mmap_mode="r", allow_pickle=False)
    narrow = path.with_suffix(".narrow")
    with narrow.open("wb") as file:
        file.write(header(len(images), plan))
        for start in range(0, len(images), disk.CHUNK):
            file.write(images[start : start + disk.CHUNK, :1].tobytes())
    del images
    narrow.replace(path)


def _format(path: Path, kind: str) -> PixelFormat:
    """The format of a finished array of rows; floats range from the least to the greatest."""
    if kind != "float":
        return format_of(kind)
    images = np.load(path, mmap_mode="r", allow_pickle=False)
    parts = [images[start : start + disk.CHUNK] for start in range(0, len(images), disk.CHUNK)]
    return format_of(kind, min(float(part.min()) for part in parts), max(float(part.max()) for part in parts))


def _publish(built: Path, entry: Path) -> None:
    """Rename a finished store to its folder, unless another process was first."""
    try:
        built.rename(entry)
    except OSError:
        if load(entry) is None:
            # the existing folder is damaged: remove it; a second failure is an error
            shutil.rmtree(entry, ignore_errors=True)
            built.rename(entry)
        else:
            shutil.rmtree(built, ignore_errors=True)
    sync(entry.parent)


def _remove_old(slot: Path, keep: str) -> None:
    """Remove stores of earlier states of the source and what killed builds left; open maps of them stay good."""
    for other in slot.iterdir():
        building = other.name.startswith(".build-")
        try:
            newest = max(path.stat().st_mtime for path in (other, *other.iterdir())) if building else 0.0
        except OSError:
            continue  # already removed, or without permission
        if other.name != keep and time.time() - newest > ABANDONED:
            shutil.rmtree(other, ignore_errors=True)
