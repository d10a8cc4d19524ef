"""How the rows of a store lie, and how that is chosen: their size, their channels, their depth.

The size is asked of the pictures' headers before the first is decoded; where pictures are to be cut out at random, rows
are an eighth larger (`MARGIN`). Where depth and channels are to be the pictures'
own, the first row decides them (its `Ground`): channels of another number are left out, and a row of another depth
shows that not all are alike; then the build begins again and brings all of them to 8 bits.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from sfumato.codec.format import PixelFormat, format_of
from sfumato.config.data import DataConfig
from sfumato.data.sources.protocol import Source, Unreadable
from sfumato.data.sources.rows import Form, Row

__all__ = ["MARGIN", "SIDES", "Ground", "Mixed", "Plan", "choose_size", "chosen", "depth_found", "header", "make_plan"]

SIDES = (8, 12, 16, 24, 32, 48, 64)
"""The sides that a size is chosen from where the user gives none."""

MARGIN = 1 / 8
"""How much larger rows are that random crops are cut out of."""

MOST_HEADERS = 10_000
"""So many pictures, evenly spaced, are asked for their size before one is chosen."""


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


class Mixed(Exception):
    """Pictures of several depths, where each was to keep its own."""


@dataclass(frozen=True)
class Ground:
    """What all rows stand on, as the first one shows it.

    Attributes:
        width: the channels that are written; of three it may be found at the end that one is enough.
        kind: of the depth.
    """

    width: int
    kind: str

    @classmethod
    def under(cls, row: Row, form: Form) -> Ground:
        """Return that of a first row."""
        return cls(form.channels or (3 if row.channels in (1, 3) else row.channels), row.kind)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the values."""
        return format_of(self.kind).dtype

    def fault(self, row: Row) -> str | None:
        """Return why a row can't stand here, None where it can; raises `Mixed` where the depth is another."""
        if row.kind != self.kind:
            raise Mixed
        wanted = (1, 3) if self.width == 3 else (self.width,)
        return None if row.channels in wanted else f"{row.channels} channels, where the first picture has {self.width}"


@dataclass
class Plan:
    """How a build goes about it.

    Attributes:
        size: (height, width) of the images, which rows are at least as large as.
        form: of the rows.
        notes: how it was chosen, in sentences.
        ground: what the first row showed; None before it.
    """

    size: tuple[int, int]
    form: Form
    notes: list[str]
    ground: Ground | None = None

    @property
    def known(self) -> Ground:
        """The ground, once there is a row."""
        assert self.ground is not None
        return self.ground

    def write(self, built: Path) -> None:
        """Write it where a later build finds it."""
        (built / "plan.json").write_text(json.dumps(asdict(self)), "utf-8")

    @classmethod
    def read(cls, built: Path) -> Plan:
        """Read it; raises OSError, ValueError, KeyError or TypeError where there is none."""
        table = json.loads((built / "plan.json").read_text("utf-8"))
        form = Form(tuple(table["form"].pop("size")), **table["form"])
        return cls(tuple(table["size"]), form, list(table["notes"]), table["ground"] and Ground(**table["ground"]))

    def settle(self, row: Row, built: Path) -> None:
        """Take the ground from the first row."""
        self.ground = Ground.under(row, self.form)
        self.write(built)

    def mixed(self, built: Path) -> None:
        """Begin again with 8 bits for all."""
        self.form, self.ground = replace(self.form, depth="8"), None
        self.notes.append("some pictures have 8 bits and others more, or floats: all were brought to 8")
        (built / "journal").unlink(missing_ok=True)
        self.write(built)


def make_plan(built: Path, source: Source, config: DataConfig) -> Plan:
    """The plan of the build that was begun here; or one made now."""
    try:
        return Plan.read(built)
    except (OSError, ValueError, KeyError, TypeError):
        (built / "journal").unlink(missing_ok=True)
    size, notes = config.size, []
    if size is None:
        size, note = choose_size(_header_sizes(source))
        notes = [note]
    rows, crop = size, config.crop
    if crop == "random":
        rows, crop = (math.ceil(size[0] * (1 + MARGIN)), math.ceil(size[1] * (1 + MARGIN))), "center"
        notes.append(f"kept at {rows[0]}x{rows[1]}, of which each time another {size[0]}x{size[1]} is cut out")
    plan = Plan(size, Form(rows, config.channels, config.background, config.depth, crop), notes)
    plan.write(built)
    return plan


def _header_sizes(source: Source) -> list[tuple[int, int]]:
    """The sizes of the pictures whose header can be read, of `MOST_HEADERS` where there are more."""
    sizes = []
    for i in np.linspace(0, len(source) - 1, min(len(source), MOST_HEADERS)).astype(int).tolist():
        try:
            sizes.append(source.size(i))
        except Unreadable:
            continue  # reading it will say why
    return sizes or [(SIDES[-1], SIDES[-1])]


def depth_found(path: Path, kind: str, chunk: int = 1024) -> PixelFormat:
    """What the values of a finished array of rows are."""
    if kind != "float":
        return format_of(kind)
    images = np.load(path, mmap_mode="r", allow_pickle=False)
    parts = [images[start : start + chunk] for start in range(0, len(images), chunk)]
    return format_of(kind, min(float(part.min()) for part in parts), max(float(part.max()) for part in parts))


def chosen(form: Form, channels: int, depth: PixelFormat) -> list[str]:
    """What was chosen for the user, in sentences."""
    notes = []
    if form.channels is None:
        usual = {1: "grey (1 channel): no picture has colour", 3: "RGB (3 channels)"}
        notes.append(usual.get(channels, f"{channels} channels, as the pictures have"))
    if depth.kind != "8":
        notes.append("16 bits a channel" if depth.levels else f"{depth.words}, the least and the greatest value of all")
    return notes


def header(count: int, ground: Ground, size: tuple[int, int]) -> bytes:
    """An .npy header; numpy pads it so that the count can grow without its length changing."""
    buffer = io.BytesIO()
    shape, descr = (count, ground.width, *size), ground.dtype.str
    np.lib.format.write_array_header_1_0(buffer, {"descr": descr, "fortran_order": False, "shape": shape})
    return buffer.getvalue()
