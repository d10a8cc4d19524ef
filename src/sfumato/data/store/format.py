"""The files of a store, finished or being built.

    CACHE/store/SLOT/KEY/    images.npy      (N, C, H, W) uint8, uint16 or float32
                             conditions.npy  (N, A) float32, the attributes of each image; NaN where one is not given
                             digests.npy     (N, 32) uint8, the SHA-256 of each image
                             origins.txt     a line an image: where it comes from
                             captions.jsonl  a line an image: its caption or null; only where there are captions
                             index.json      shape, size, depth, attributes, skipped files with the reason, notes,
                                             SHA-256 of the columns

Columns are files of their own because a million rows of JSON take seconds to read; these take a few tenths.

    CACHE/store/SLOT/.build-KEY-*/    images.npy  rows, behind a header that is written last
                                      journal     how rows are made (`Plan`), and the results for the pictures (`Chunk`)
                                      lock        held by the build, so that no other continues it

A line of the journal is JSON after its SHA-256; after the plan comes one for every `CHUNK` pictures. Rows after the
last line are discarded. A build that continues accepts a line if its own hash is right and its rows have its digests;
the first other line ends it. So the order of writes to the disk does not matter.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfumato.codec import format as formats
from sfumato.codec.format import PixelFormat, format_of
from sfumato.conditions.attributes import Attribute, from_plain, plain
from sfumato.data.columns import Digests, Lines
from sfumato.data.formats.rows import Form
from sfumato.data.formats.values import Values
from sfumato.data.sources.protocol import Labels, Pixels
from sfumato.files import sync

RULES = 5
"""The version of the rules in `formats` and of this layout: a change makes every store anew."""
CHUNK = 1024
"""Pictures in a line of the journal."""


@dataclass(frozen=True, eq=False)
class Stored:
    """An opened store.

    Attributes:
        images: (N, C, H, W), mapped read-only.
        size: (height, width) of an image, smaller than a row's for random crops.
        format: of the values; of floats, from the least to the greatest that there is.
        labels: the source's; values that no picture has are left out.
        digests: N times 64 hexadecimal digits.
        origins: where each row comes from.
        skipped: (origin, reason) of every picture that could not be used.
        notes: what was chosen and found, in sentences.
        values: of all pictures that have a row, before they were clamped and resized.
        mixed: whether pictures were resized by mixing their pixels.
    """

    images: Pixels
    size: tuple[int, int]
    format: PixelFormat
    labels: Labels
    digests: Sequence[str]
    origins: Sequence[str]
    skipped: list[tuple[str, str]]
    notes: tuple[str, ...]
    values: Values = Values()
    mixed: bool = False


def load(entry: Path) -> Stored | None:
    """Open a store, None where there is none or it is damaged; raises OSError where it can't be read."""
    try:
        index = json.loads((entry / "index.json").read_text("utf-8"))
        images = np.load(entry / "images.npy", mmap_mode="r", allow_pickle=False)
        conditions, digests = (np.load(entry / f"{name}.npy", allow_pickle=False) for name in ("conditions", "digests"))
        origins = Lines((entry / "origins.txt").read_bytes())
        captions = None
        if index.get("captions"):
            captions = tuple(map(json.loads, (entry / "captions.jsonl").read_text("utf-8").splitlines()))
        attributes, format = tuple(map(from_plain, index["attributes"])), formats.from_plain(index["depth"])
        count, (height, width) = index["shape"][0], index["size"]
        whole = images.shape == tuple(index["shape"]) and images.dtype == format.dtype
        whole &= (conditions.shape, conditions.dtype) == ((count, len(attributes)), np.float32)
        sums = index.get("sha256") or {}  # older stores have none
        whole &= all(_sha256(entry / name) == sums[name] for name in sums)
        whole &= digests.shape == (count, 32) and len(origins) == count and len(captions or origins) == count
        if not whole:
            return None
        return Stored(
            images=images,
            size=(int(height), int(width)),
            format=format,
            labels=Labels(attributes, conditions, (), captions),
            digests=Digests(digests),
            origins=origins,
            skipped=[(origin, reason) for origin, reason in index["quarantined"]],
            notes=tuple(index["notes"]),
            values=Values.from_plain(index["values"]) if "values" in index else Values(),
            mixed=bool(index.get("mixed")),
        )
    except (FileNotFoundError, EOFError, ValueError, KeyError, TypeError):
        return None


# A build


@dataclass
class Plan:
    """How the rows of a build are made.

    Attributes:
        size: (height, width) of the images, which rows are at least as large as.
        form: of the rows.
        notes: how it was chosen, in sentences.
        width: the channels that are written, as the first row has them; at the end 3 may become 1, where all are grey.
            0 before there is a row.
        kind: of the first row's depth; empty before there is a row.
    """

    size: tuple[int, int]
    form: Form
    notes: list[str]
    width: int = 0
    kind: str = ""

    @property
    def row_bytes(self) -> int:
        """How many bytes a row has."""
        return self.width * self.form.size[0] * self.form.size[1] * format_of(self.kind).dtype.itemsize


@dataclass
class Chunk:
    """The results for some pictures.

    Attributes:
        counts: how many pictures, rows, rows with colour (coloured), and rows of each of `FACTS`; `lost` is the sum of
            the fractions that were cut away, in millionths.
        digests, origins, conditions, captions: of each row; digests in hexadecimal.
        skipped: (origin, reason) of the pictures without a row.
        width, kind: of the plan.
        values: of the pictures that have a row.
    """

    counts: Counter[str] = field(default_factory=Counter)
    digests: list[str] = field(default_factory=list)
    origins: list[str] = field(default_factory=list)
    conditions: list[tuple[float, ...]] = field(default_factory=list)
    captions: list[str | None] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    width: int = 0
    kind: str = ""
    values: Values = Values()


def append(journal: Path, what: Plan | Chunk) -> None:
    """Add a line to a journal."""
    table = dict(vars(what))
    if isinstance(what, Plan):
        table["form"] = vars(what.form)
    else:
        table["conditions"] = np.array(what.conditions, "<f4").tobytes().hex()  # JSON takes ten times the space
        table["values"] = what.values.plain()
    text = json.dumps(table).encode("ascii")
    with journal.open("ab") as file:
        file.write(hashlib.sha256(text).hexdigest().encode() + b" " + text + b"\n")


def plan_of(journal: Path) -> Plan | None:
    """Return the plan of the build that was begun here, None where there is none."""
    for table, _ in _tables(journal):
        try:
            return Plan(**table | {"size": tuple(table["size"]), "form": Form.from_plain(table["form"])})
        except (KeyError, TypeError):  # written by another version
            break
    return None


def chunks(journal: Path) -> Iterator[tuple[Chunk, int]]:
    """Yield the chunks of a journal up to the first damaged line, each with the number of bytes up to its end."""
    for k, (table, end) in enumerate(_tables(journal)):
        if k:
            values, rows = np.frombuffer(bytes.fromhex(table["conditions"]), "<f4"), len(table["digests"])
            conditions = values.reshape(rows, -1).tolist() if rows else []
            table |= {"counts": Counter(table["counts"]), "skipped": list(map(tuple, table["skipped"]))}
            table["values"] = Values.from_plain(table["values"])
            yield Chunk(**table | {"conditions": list(map(tuple, conditions))}), end


def _tables(journal: Path) -> Iterator[tuple[dict[str, Any], int]]:
    """Yield what the good lines hold, each with the number of bytes up to its end."""
    end = 0
    with journal.open("rb") if journal.exists() else io.BytesIO() as file:
        for line in file:
            digest, _, text = line.rstrip(b"\n").partition(b" ")
            if not line.endswith(b"\n") or hashlib.sha256(text).hexdigest().encode() != digest:
                return
            yield json.loads(text), (end := end + len(line))


def header(count: int, plan: Plan) -> bytes:
    """Return an .npy header; numpy pads it so that the count can grow without its length changing."""
    buffer = io.BytesIO()
    shape, descr = (count, plan.width, *plan.form.size), format_of(plan.kind).dtype.str
    np.lib.format.write_array_header_1_0(buffer, {"descr": descr, "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def write_index(built: Path, attributes: tuple[Attribute, ...], index: dict[str, Any]) -> None:
    """Turn the journal of a build into the columns and the index of a store, and flush all of it to the disk.

    Args:
        built: the folder of the build.
        attributes: of the source.
        index: the entries that are known already, in order; None for those that the journal gives.
    """
    conditions, digests = [np.zeros((0, len(attributes)), np.float32)], [np.zeros((0, 32), np.uint8)]
    skipped, captions = list[tuple[str, str]](), list[str | None]()
    with (built / "origins.txt").open("wb") as origins:
        for chunk, _ in chunks(built / "journal"):
            origins.write("".join(f"{origin}\n" for origin in chunk.origins).encode("utf-8"))
            digests.append(np.frombuffer(bytes.fromhex("".join(chunk.digests)), np.uint8).reshape(-1, 32))
            conditions.append(np.array(chunk.conditions, np.float32).reshape(len(chunk.digests), len(attributes)))
            captions += chunk.captions
            skipped += chunk.skipped
    table = np.concatenate(conditions)
    used = [_used(attribute, table[:, a]) for a, attribute in enumerate(attributes)]
    np.save(built / "digests.npy", np.concatenate(digests), allow_pickle=False)
    np.save(built / "conditions.npy", table, allow_pickle=False)
    index |= {"attributes": list(map(plain, used)), "quarantined": skipped}
    if any(captions):
        (built / "captions.jsonl").write_text("".join(json.dumps(caption) + "\n" for caption in captions), "ascii")
        index["captions"] = True
    index["sha256"] = {name: _sha256(built / name) for name in ("conditions.npy", "digests.npy", "origins.txt")}
    (built / "index.json").write_text(json.dumps(index), "ascii")
    for name in ("journal", "lock"):
        (built / name).unlink(missing_ok=True)
    for path in (*built.iterdir(), built):
        sync(path)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _used(attribute: Attribute, column: NDArray[np.float32]) -> Attribute:
    """Drop values that no picture has; a column (N,) is changed in place to count those that are left."""
    present = ~np.isnan(column)
    used, positions = np.unique(column[present].astype(np.int64), return_inverse=True)
    if not attribute.values or not len(used):
        return attribute
    column[present] = positions
    return Attribute(attribute.name, tuple(attribute.values[k] for k in used))


def row_digest(row: bytes, width: int) -> str:
    """Return the SHA-256 of a stored row of `width` planes, in hexadecimal: of one plane where a row of three has them
    all alike, so that a grey picture's does not depend on whether others have colour."""
    plane = row[: len(row) // width]
    return hashlib.sha256(plane if width == 3 and plane * width == row else row).hexdigest()
