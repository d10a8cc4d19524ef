"""One picture becomes one row of the store: the pure function that every process that decodes applies.

A row is the picture cropped and resized, as planes (C, H, W) in their simplest form: a single plane where the picture
is grey; of 16 bits and floats, little-endian. Its digest is the SHA-256 of those bytes, so it doesn't depend on whether
other pictures have colour. Rows, and the reasons why there is none, travel between processes as plain bytes:
`Row.pack`, `pack_fault`, `unpack`.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass

from sfumato.codec.format import DEPTHS
from sfumato.data.formats.fitting import border, converted, fit, is_grey, kind_of, with_channels
from sfumato.data.sources.protocol import Picture

__all__ = ["Form", "Row", "make_row", "pack_fault", "unpack"]

_HEAD = struct.Struct("<1s???BH32s")


@dataclass(frozen=True)
class Form:
    """What every row of a store is.

    Attributes:
        size: (height, width).
        channels: how many; None is 1 where every picture is grey, 3 where one has colour, and else the pictures' own.
        background: the colour under transparent pixels.
        depth: `8`, `16` or `float`; `auto` is each picture's own.
        crop: as `fitting.fit`.
    """

    size: tuple[int, int]
    channels: int | None
    background: str
    depth: str = "auto"
    crop: str = "center"

    @property
    def opacity(self) -> bool:
        """Whether opacity is a channel."""
        return self.channels in (2, 4)


@dataclass(frozen=True)
class Row:
    """A picture as it is stored.

    Attributes:
        planes: the bytes of (C, H, W) pixels; C is 1 where `grey`, whatever the store's channels are.
        digest: SHA-256 of `planes`.
        grey: whether one plane says it all.
        enlarged: whether the picture was smaller than the size.
        animated: whether its file holds further frames.
        kind: of its depth.
        channels: how many planes there are.
    """

    planes: bytes
    digest: bytes
    grey: bool
    enlarged: bool
    animated: bool
    kind: str = "8"
    channels: int = 1

    def pack(self) -> bytes:
        """Return the row as bytes, which `unpack` reads."""
        kind = DEPTHS.index(self.kind)
        return _HEAD.pack(b"+", self.grey, self.enlarged, self.animated, kind, self.channels, self.digest) + self.planes


def make_row(picture: Picture, form: Form) -> Row:
    """Crop and resize a picture.

    Args:
        picture: at its own size.
        form: what is wanted.

    Raises:
        Unreadable: it can't have that depth or that many channels.
    """
    kind = kind_of(picture.pixels) if form.depth == "auto" else form.depth
    pixels = converted(picture.pixels, kind)
    smaller = [own < wanted for own, wanted in zip(pixels.shape[:2], form.size, strict=True)]
    fill = border(form.background, pixels.shape[2], kind) if form.crop == "letterbox" else None
    pixels = fit(pixels, form.size, crop=form.crop, fill=fill, alpha=picture.alpha)
    grey = form.channels in (None, 1, 3) and pixels.shape[2] in (1, 3) and is_grey(pixels)
    if form.channels is not None and not (grey and form.channels == 3):
        pixels = with_channels(pixels, form.channels, picture.alpha)
        grey |= form.channels == 1
    pixels = (pixels[..., :1] if grey else pixels).transpose(2, 0, 1)
    planes = pixels.astype(pixels.dtype.newbyteorder("<"), copy=False).tobytes()
    enlarged = all(smaller) if form.crop == "letterbox" else any(smaller)
    return Row(planes, hashlib.sha256(planes).digest(), grey, enlarged, picture.animated, kind, len(pixels))


def pack_fault(reason: str) -> bytes:
    """Return as bytes why there is no row."""
    return b"-" + reason.encode("utf-8", "replace")


def unpack(answer: bytes) -> Row | str:
    """Return the row, or the reason why there is none."""
    if answer[:1] == b"-":
        return answer[1:].decode("utf-8", "replace")
    _, grey, enlarged, animated, kind, channels, digest = _HEAD.unpack_from(answer)
    return Row(answer[_HEAD.size :], digest, grey, enlarged, animated, DEPTHS[kind], channels)
