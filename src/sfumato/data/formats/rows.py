"""Rows of a store: pictures of one size in the bytes in which they are stored, with what is known of them.

`make_row` makes one of a picture of any kind. `make_rows` makes those of many plain pictures of one size at once, which
takes a fraction of the time: arrays are described, turned and converted as one, and only hashed one by one. Both give
the same rows.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfumato.codec.format import DEPTHS
from sfumato.data.formats.fitting import (
    RESAMPLES,
    are_grey,
    are_marked,
    border,
    converted,
    fit,
    inner_size,
    kind_of,
    largest_cut,
    read_values,
    with_channels,
)
from sfumato.data.formats.values import Values
from sfumato.data.sources.protocol import Picture, Pixels

_HEAD = struct.Struct("<?HBHd32s")
_LITTLE: dict[str, np.dtype[Any]] = {"8": np.dtype(np.uint8), "16": np.dtype("<u2"), "float": np.dtype("<f4")}
FACTS = (
    "enlarged", "animated", "resampled", "composited", "greyed", "filled", "clamped", "converted", "unconverted",
)  # fmt: skip
"""What a row may note about its picture: that it is smaller than the size, has further frames, was resampled, laid on
the background, reduced from colour to grey, that missing data were filled, values clamped, and that its colours were
converted by a profile, or were not although it has one."""


@dataclass(frozen=True)
class Form:
    """The form of every row of a store.

    Attributes:
        size: (height, width).
        channels: None is 1 where every picture is grey, 3 where one has colour, and else the pictures' own.
        background: the colour under transparent pixels.
        depth: `8`, `16` or `float`; `auto` is each picture's own.
        crop: as `fit`.
        resample: a name of `RESAMPLES`.
        nodata: the mark for missing data, NaN among them; None where there is none.
        clamp: the least and the greatest of floats; None does not clamp.
    """

    size: tuple[int, int]
    channels: int | None
    background: str
    depth: str = "auto"
    crop: str = "center"
    resample: str = "lanczos"
    nodata: float | None = None
    clamp: tuple[float, float] | None = None

    @classmethod
    def from_plain(cls, table: dict[str, Any]) -> Form:
        """Return the form whose fields JSON has; raises TypeError for others."""
        clamp = table.get("clamp")
        return cls(**table | {"size": tuple(table["size"]), "clamp": clamp and tuple(clamp)})


@dataclass(frozen=True, eq=False)
class Rows:
    """N pictures of one size as they are stored.

    Attributes:
        planes: (N, C, B) uint8, the B bytes of each plane, little-endian; C is 1 where all are grey, whatever the
            store's channels are, and a grey row among others has equal planes.
        digests: the SHA-256 of each row's planes, of a single one where it is grey; so a grey picture's doesn't depend
            on whether others have colour.
        grey: of each row, whether it has no colour.
        facts: of how many pictures each of `FACTS` holds; those that hold of none may be missing.
        lost: the fraction of each picture that was cut away.
        values: of the pictures in the rows' depth, before clamping and resampling; to be joined.
        kind: the kind of their depth.
    """

    planes: NDArray[np.uint8]
    digests: list[bytes]
    grey: list[bool]
    facts: dict[str, int]
    lost: float = 0.0
    values: tuple[Values, ...] = ()
    kind: str = "8"

    def __len__(self) -> int:
        return len(self.planes)

    @property
    def channels(self) -> int:
        """C."""
        return int(self.planes.shape[1])

    def pack(self) -> bytes:
        """Return a single row as bytes, which `unpack` reads."""
        facts = sum(1 << k for k, fact in enumerate(FACTS) if self.facts.get(fact))
        numbers = facts, DEPTHS.index(self.kind), self.channels, self.lost
        head = _HEAD.pack(self.grey[0], *numbers, self.digests[0])
        return b"".join([head, self.values[0].pack(), self.planes.tobytes()])

    @classmethod
    def unpack(cls, data: bytes) -> Rows:
        """Return what `pack` packed."""
        grey, facts, kind, channels, lost, digest = _HEAD.unpack_from(data)
        values, length = Values.unpack(memoryview(data)[_HEAD.size :])
        planes = np.frombuffer(data, np.uint8, offset=_HEAD.size + length).reshape(1, channels, -1)
        held = {name: 1 for k, name in enumerate(FACTS) if facts >> k & 1} if facts else {}
        return cls(planes, [digest], [grey], held, lost, (values,), DEPTHS[kind])


def make_row(picture: Picture, form: Form) -> Rows:
    """Return a picture as a row; raises `Unreadable` where it can't have that depth or that many channels."""
    alpha = picture.alpha and form.channels in (2, 4)
    reading = read_values(picture, form.background, form.depth, form.nodata, form.clamp, alpha)
    return _rows(reading.pixels[None], form, reading.facts, (reading.values,), alpha)


def make_rows(pixels: Pixels, form: Form) -> Rows | None:
    """Return plain pictures of one size, (N, H, W, C) without opacity, as rows: those of `make_row`, in a fraction of
    the time.

    None where a picture's own values decide what becomes of it (missing data, floats that become integers) or one is
    not finite: then each has to be made by itself. Raises `Unreadable` where none can have that many channels.
    """
    kind = kind_of(pixels) if form.depth == "auto" else form.depth
    floats = pixels.dtype == np.float32
    if floats and (kind != "float" or not np.isfinite(pixels).all()):
        return None
    if form.nodata is not None and are_marked(pixels, form.nodata).any():
        return None
    pixels = converted(pixels, kind)
    values, facts = Values.of_each(pixels), dict[str, int]()
    if form.clamp is not None:
        beyond = (pixels.min((1, 2, 3)) < form.clamp[0]) | (pixels.max((1, 2, 3)) > form.clamp[1])
        pixels = np.where(beyond[:, None, None, None], pixels.clip(*form.clamp), pixels)
        facts["clamped"] = int(beyond.sum())
    return _rows(pixels, form, facts, values)


def _rows(pixels: Pixels, form: Form, facts: dict[str, int], values: tuple[Values, ...], alpha: bool = False) -> Rows:
    """Pictures (N, H, W, C) in their depth as rows."""
    count, (h, w), (height, width), kind = len(pixels), pixels.shape[1:3], form.size, kind_of(pixels)
    lost = 0.0
    if (h, w) != (height, width):
        letterbox = form.crop == "letterbox"
        fill = border(form.background, pixels.shape[3], kind) if letterbox else None
        how = RESAMPLES[form.resample]
        pixels = np.stack([fit(each, form.size, how, form.crop, fill, alpha) for each in pixels])
        kept = (h, w) if letterbox else largest_cut((h, w), form.size)
        smaller = (h < height and w < width) if letterbox else (h < height or w < width)
        facts["enlarged"] = count * smaller
        facts["resampled"] = count * (kept != (inner_size((h, w), form.size) if letterbox else form.size))
        lost = 1 - kept[0] * kept[1] / (h * w)
        pixels = pixels if form.clamp is None else pixels.clip(*form.clamp)
    own = pixels.shape[3]
    grey = are_grey(pixels) if form.channels in (None, 1, 3) and own in (1, 3) else [False] * count
    if form.channels in (1, 2) and own - alpha == 3:
        facts["greyed"] = grey.count(False)
    if form.channels is not None and not (form.channels == 3 and all(grey)):
        tall = pixels.reshape(-1, *pixels.shape[2:])  # channels are converted pixel by pixel
        pixels = with_channels(tall, form.channels, alpha).reshape(*pixels.shape[:3], form.channels)
    grey = [True] * count if form.channels == 1 else grey
    planes = (pixels[..., :1] if all(grey) else pixels).transpose(0, 3, 1, 2)
    planes = np.ascontiguousarray(planes, _LITTLE[kind]).view(np.uint8).reshape(count, planes.shape[1], -1)
    hashed = [row[:1] if one else row for row, one in zip(planes, grey, strict=True)]
    digests = [hashlib.sha256(row.data).digest() for row in hashed]
    return Rows(planes, digests, grey, facts, lost, values, kind)
