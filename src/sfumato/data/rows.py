"""One picture becomes one row of the store: the pure function that every process that decodes applies.

A row is the picture cropped and resized, as planes (C, H, W) in their simplest form: a single plane where the picture
is grey. Its digest is the SHA-256 of those bytes, so it doesn't depend on whether other pictures have colour. Rows, and
the reasons why there is none, travel between processes as plain bytes: `Row.pack`, `pack_fault`, `unpack`.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass

from sfumato.data.fitting import fit, is_grey, with_channels
from sfumato.data.source import Picture

__all__ = ["Form", "Row", "make_row", "pack_fault", "unpack"]

_HEAD = struct.Struct("<1s???32s")


@dataclass(frozen=True)
class Form:
    """What every row of a store is.

    Attributes:
        size: (height, width).
        channels: 1 or 3; None is 1 where every picture is grey, else 3.
        background: the colour under transparent pixels.
    """

    size: tuple[int, int]
    channels: int | None
    background: str


@dataclass(frozen=True)
class Row:
    """A picture as it is stored.

    Attributes:
        planes: the bytes of (C, H, W) pixels; C is 1 where `grey`, whatever the store's channels are.
        digest: SHA-256 of `planes`.
        grey: whether one plane says it all.
        enlarged: whether the picture was smaller than the size.
        animated: whether its file holds further frames.
    """

    planes: bytes
    digest: bytes
    grey: bool
    enlarged: bool
    animated: bool

    def pack(self) -> bytes:
        """Return the row as bytes, which `unpack` reads."""
        return _HEAD.pack(b"+", self.grey, self.enlarged, self.animated, self.digest) + self.planes


def make_row(picture: Picture, form: Form) -> Row:
    """Crop and resize a picture.

    Args:
        picture: at its own size.
        form: what is wanted.
    """
    pixels = picture.pixels
    enlarged = pixels.shape[0] < form.size[0] or pixels.shape[1] < form.size[1]
    pixels = fit(pixels, form.size)
    grey = is_grey(pixels)
    if form.channels == 1:
        pixels, grey = with_channels(pixels, 1), True
    planes = (pixels[..., :1] if grey else pixels).transpose(2, 0, 1).tobytes()
    return Row(planes, hashlib.sha256(planes).digest(), grey, enlarged, picture.animated)


def pack_fault(reason: str) -> bytes:
    """Return as bytes why there is no row."""
    return b"-" + reason.encode("utf-8", "replace")


def unpack(answer: bytes) -> Row | str:
    """Return the row, or the reason why there is none."""
    if answer[:1] == b"-":
        return answer[1:].decode("utf-8", "replace")
    _, grey, enlarged, animated, digest = _HEAD.unpack_from(answer)
    return Row(answer[_HEAD.size :], digest, grey, enlarged, animated)
