"""A picture becomes a row of the store: converted to one bit depth, one number of channels and one size.

Each step follows a stated rule and leaves pixels unchanged that fit already:

**Opacity** (`flattened`). A picture with opacity is composited onto the background, a p + (1 - a) b, unless the
channels include opacity.

**Depth** (`converted`). 8 bits become 16 as 257 k, 16 become 8 as round(v / 257), both become floats as they are.
Floats become integers where all are in [0, 1], scaled by the greatest integer, or, for 8 bits, where all are in [0,
255], rounded; other floats can't become integers.

**Size** (`fit`). With the crop `center` the largest centred rectangle of the wanted proportions is cut out, with
`letterbox` the whole picture is kept and the rest filled. What is left is resampled with Lanczos-3 stretched by the
scale, so shrinking does not alias (Parmar et al. 2022, "On Aliased Resizing", shows what aliasing does to metrics):
bytes with Pillow's arithmetic of bytes, all else by the same filter in float32, channel by channel. Where a channel is
opacity, colours are resampled in proportion to it, so that hidden colours of transparent pixels don't show.

**Channels** (`with_channels`). Grey is repeated, colour becomes its luma (BT.601, as Pillow counts it), missing opacity
is full. Other bands stay as they are.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor

from sfumato.codec.format import DEPTHS
from sfumato.data.sources.protocol import Picture, Pixels, Unreadable

_KINDS = {np.dtype(np.uint8): "8", np.dtype(np.uint16): "16", np.dtype(np.float32): "float"}
_GREATEST = {"8": 255, "16": 65535}
_LUMA = np.array([19595, 38470, 7471], np.uint32)
"""BT.601's weights in parts of 65536, as Pillow has them."""
_HEAD = struct.Struct("<???BH32s")


@dataclass(frozen=True)
class Form:
    """The form of every row of a store.

    Attributes:
        size: (height, width).
        channels: None is 1 where every picture is grey, 3 where one has colour, and else the pictures' own.
        background: the colour under transparent pixels.
        depth: `8`, `16` or `float`; `auto` is each picture's own.
        crop: as `fit`.
    """

    size: tuple[int, int]
    channels: int | None
    background: str
    depth: str = "auto"
    crop: str = "center"


@dataclass(frozen=True)
class Row:
    """A picture as it is stored.

    Attributes:
        planes: the bytes of (C, H, W) pixels, little-endian; C is 1 where `grey`, whatever the store's channels are.
        digest: SHA-256 of `planes`, which therefore doesn't depend on whether other pictures have colour.
        enlarged: whether the picture was smaller than the size.
        kind: the kind of its depth.
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
        return _HEAD.pack(self.grey, self.enlarged, self.animated, kind, self.channels, self.digest) + self.planes

    @classmethod
    def unpack(cls, data: bytes) -> Row:
        """Return what `pack` packed."""
        grey, enlarged, animated, kind, channels, digest = _HEAD.unpack_from(data)
        return cls(data[_HEAD.size :], digest, grey, enlarged, animated, DEPTHS[kind], channels)


def make_row(picture: Picture, form: Form) -> Row:
    """Return a picture as a row; raises `Unreadable` where it can't have that depth or that many channels."""
    alpha = picture.alpha and form.channels in (2, 4)
    pixels = picture.pixels if alpha else flattened(picture, form.background)
    kind = kind_of(pixels) if form.depth == "auto" else form.depth
    pixels = converted(pixels, kind)
    smaller = [own < wanted for own, wanted in zip(pixels.shape[:2], form.size, strict=True)]
    fill = border(form.background, pixels.shape[2], kind) if form.crop == "letterbox" else None
    pixels = fit(pixels, form.size, crop=form.crop, fill=fill, alpha=alpha)
    grey = form.channels in (None, 1, 3) and pixels.shape[2] in (1, 3) and is_grey(pixels)
    if form.channels is not None and not (grey and form.channels == 3):
        pixels = with_channels(pixels, form.channels, alpha)
        grey |= form.channels == 1
    pixels = (pixels[..., :1] if grey else pixels).transpose(2, 0, 1)
    planes = pixels.astype(pixels.dtype.newbyteorder("<"), copy=False).tobytes()
    enlarged = all(smaller) if form.crop == "letterbox" else any(smaller)
    return Row(planes, hashlib.sha256(planes).digest(), grey, enlarged, picture.animated, kind, len(pixels))


def flattened(picture: Picture, background: str) -> Pixels:
    """Return a picture's pixels composited onto a colour, a CSS name or #rrggbb, rounded."""
    if not picture.alpha:
        return picture.pixels
    rgb = ImageColor.getrgb(background)[:3]
    if picture.pixels.dtype == np.uint8:
        image = Image.fromarray(np.ascontiguousarray(picture.pixels))
        return np.asarray(Image.alpha_composite(Image.new("RGBA", image.size, (*rgb, 255)), image).convert("RGB"))
    ink, a = picture.pixels[..., :-1].astype(np.float64), picture.pixels[..., -1:] / 65535
    over: Pixels = np.rint(a * ink + (1 - a) * (257.0 * np.array(rgb))).astype(np.uint16)
    return over


def kind_of(pixels: Pixels) -> str:
    """Return the kind of depth that pixels have: `8`, `16` or `float`."""
    return _KINDS[pixels.dtype]


def converted(pixels: Pixels, kind: str) -> Pixels:
    """Return pixels of the depth `8`, `16` or `float`; raises `Unreadable` for floats that can't become integers."""
    own = kind_of(pixels)
    if own == kind:
        return pixels
    if kind == "float":
        return pixels.astype(np.float32)
    if own == "8":
        return pixels.astype(np.uint16) * np.uint16(257)
    if own == "float":
        low, high, most = float(pixels.min()), float(pixels.max()), 255 if kind == "8" else 1
        if not (low >= 0 and high <= most):
            raise Unreadable(f"floating-point values outside of 0 to {most}, or not numbers")
        scaled: NDArray[np.floating] = np.rint(pixels * np.float32(_GREATEST[kind] if high <= 1 else 1))
        return scaled.astype(np.uint8 if kind == "8" else np.uint16)
    wide = pixels.astype(np.uint32)  # in place from here: at the largest size, every copy is a quarter of a gigabyte
    wide += 128
    wide //= 257
    return wide.astype(np.uint8)


def rendered(pixels: Pixels) -> NDArray[np.uint8]:
    """Return (H, W, C) pixels of any depth as bytes to look at, (H, W, 1 or 3).

    The first three channels are shown, or the first. Floats that can't become bytes are stretched from the picture's
    own least to its greatest value.
    """
    pixels = pixels[..., : 3 if pixels.shape[2] >= 3 else 1]
    try:
        return converted(pixels, "8")
    except Unreadable:
        low, high = pixels.min(), pixels.max()
        return np.asarray(np.rint((pixels - low) * (255 / max(high - low, np.float32(1e-30)))), np.uint8)


def fit(
    pixels: Pixels,
    size: tuple[int, int],
    resample: Image.Resampling = Image.Resampling.LANCZOS,
    crop: str = "center",
    fill: Pixels | None = None,
    alpha: bool = False,
) -> Pixels:
    """Bring a picture to a size. One that already has it is not resampled.

    Args:
        pixels: (H, W, C).
        size: (height, width) wanted.
        resample: how; nearest neighbours for masks.
        crop: `center` cuts the largest centred rectangle of the wanted proportions, `letterbox` keeps all of the
            picture, centred. Sides are rounded to whole pixels, at least 1.
        fill: (C,) the value of the border of a letterbox; 0 when None.
        alpha: whether the last channel is opacity.
    """
    height, width = size
    h, w, c = pixels.shape
    if crop == "letterbox":
        inner = min(height, max(1, round(h * width / w))), min(width, max(1, round(w * height / h)))
        top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
        out: Pixels = np.full((height, width, c), 0 if fill is None else fill, pixels.dtype)
        out[top : top + inner[0], left : left + inner[1]] = _resized(pixels, inner, resample, alpha)
        return out
    rows, columns = min(h, max(1, round(w * height / width))), min(w, max(1, round(h * width / height)))
    top, left = (h - rows) // 2, (w - columns) // 2
    return _resized(pixels[top : top + rows, left : left + columns], size, resample, alpha)


def border(colour: str, channels: int, kind: str) -> Pixels:
    """Return (channels,) values that fill a letterbox: a colour or its luma; 0 for floats and other channels."""
    if kind == "float" or channels not in (1, 3):
        return np.zeros(channels, np.uint8)
    rgb = np.array(ImageColor.getrgb(colour)[:3], np.uint8).reshape(1, 1, 3)
    filled: Pixels = converted(with_channels(rgb, channels), kind)[0, 0]
    return filled


def _resized(pixels: Pixels, size: tuple[int, int], resample: Image.Resampling, alpha: bool) -> Pixels:
    height, width = size
    if pixels.shape[:2] == size:
        return pixels
    c = pixels.shape[2]
    if pixels.dtype == np.uint8 and c in (1, 3):
        image = Image.fromarray(np.ascontiguousarray(pixels[..., 0] if c == 1 else pixels))
        return np.asarray(image.resize((width, height), resample)).reshape(height, width, c)
    planes = [pixels[..., k].astype(np.float32) for k in range(c)]
    if alpha:
        planes = [*(plane * planes[-1] for plane in planes[:-1]), planes[-1]]
    done = [np.asarray(Image.fromarray(plane).resize((width, height), resample)) for plane in planes]
    if alpha:
        opacity = np.where(done[-1] > 0, done[-1], np.inf)  # where all is transparent, black
        done = [*(plane / opacity for plane in done[:-1]), done[-1]]
    out: Pixels = np.stack(done, axis=-1).astype(np.float32)
    if pixels.dtype == np.float32:
        return out
    return np.asarray(np.rint(out).clip(0, np.iinfo(pixels.dtype).max), pixels.dtype)


def is_grey(pixels: Pixels) -> bool:
    """Return whether (H, W, C) pixels have no colour: one channel, or three equal ones everywhere."""
    if pixels.shape[2] == 1:
        return True
    # most pictures with colour show it in their first row
    return all(bool((part == part[..., :1]).all()) for part in (pixels[:1], pixels[1:]))


def with_channels(pixels: Pixels, channels: int, alpha: bool = False) -> Pixels:
    """Return (H, W, C) pixels with another number of channels, of which 2 and 4 are grey and colour with opacity.

    Args:
        pixels: grey (1) or colour (3), with opacity behind them where `alpha`, or any number of bands.
        channels: how many are wanted.
        alpha: whether the last channel is opacity.

    Raises:
        Unreadable: bands that can't become other bands.
    """
    own = pixels.shape[2]
    if own == channels:
        return pixels
    colours = own - alpha
    if colours not in (1, 3) or channels not in ((2, 4) if alpha else (1, 2, 3, 4)):
        raise Unreadable(f"{own} channels can't be converted to {channels}")
    ink, target = pixels[..., :colours], channels - (channels in (2, 4))
    if target != colours:
        ink = _luma(ink) if target == 1 else np.repeat(ink, 3, axis=2)
    if target == channels:
        return ink
    full = _GREATEST.get(kind_of(pixels), 1)
    opacity = pixels[..., -1:] if alpha else np.full_like(pixels[..., :1], full)
    return np.concatenate([ink, opacity], axis=2)


def _luma(pixels: Pixels) -> Pixels:
    if pixels.dtype == np.float32:
        weights: NDArray[Any] = _LUMA.astype(np.float32) / np.float32(65536)
        return np.asarray((pixels * weights).sum(2, keepdims=True), np.float32)
    if pixels.dtype == np.uint8:
        return np.asarray(Image.fromarray(np.ascontiguousarray(pixels)).convert("L"))[..., None]
    # 65535 times the sum of the weights is below 2^32 by just enough for the rounding
    return np.asarray((pixels * _LUMA).sum(2, keepdims=True, dtype=np.uint32) + np.uint32(0x8000) >> 16, np.uint16)
