"""Pixels of any depth and number of channels, brought to one depth, one number of channels and one size.

Three steps, each by a stated rule, none of which does anything to pixels that are as wanted:

**PixelFormat** (`converted`). 8 bits become 16 as 257 k, 16 become 8 as round(v / 257), both become floats as they are.
Floats become integers where all are in [0, 1], scaled by the greatest integer, or, for 8 bits, where all are in
[0, 255], rounded; other floats have no rule.

**Size** (`fit`). With the crop `center` the largest centred rectangle of the wanted proportions is cut out, with
`letterbox` the whole picture is kept and the rest filled. What is left is resampled with Lanczos-3 stretched by the
scale, so shrinking does not alias (Parmar et al. 2022, "On Aliased Resizing", shows what aliasing does to metrics):
bytes with Pillow's arithmetic of bytes, all else by the same filter in float32, channel by channel. Where a channel is
opacity, colours are resampled in proportion to it, so that what lies hidden under transparent pixels doesn't show.

**Channels** (`with_channels`). Grey is repeated, colour becomes its luma (BT.601, as Pillow counts it), missing opacity
is full. No other number of channels becomes another.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor

from sfumato.data.sources.protocol import Pixels, Unreadable

__all__ = ["border", "converted", "finite", "fit", "is_grey", "kind_of", "rendered", "with_channels"]

_KINDS = {np.dtype(np.uint8): "8", np.dtype(np.uint16): "16", np.dtype(np.float32): "float"}
_GREATEST = {"8": 255, "16": 65535}
_LUMA = np.array([19595, 38470, 7471], np.uint32)
"""BT.601's weights in parts of 65536, as Pillow has them."""


def kind_of(pixels: Pixels) -> str:
    """Return the kind of depth that pixels have: `8`, `16` or `float`."""
    return _KINDS[pixels.dtype]


def converted(pixels: Pixels, kind: str) -> Pixels:
    """Bring pixels to a kind of depth.

    Args:
        pixels: uint8, uint16 or float32, of any shape.
        kind: `8`, `16` or `float`.

    Raises:
        Unreadable: floats that aren't in a range that becomes integers.
    """
    own = kind_of(pixels)
    if own == kind:
        return pixels
    if kind == "float":
        return pixels.astype(np.float32)
    if own == "float":
        return _whole(pixels, kind)
    if own == "8":
        return pixels.astype(np.uint16) * np.uint16(257)
    wide = pixels.astype(np.uint32)  # in place from here: at the cap, every copy is a quarter of a gigabyte
    wide += 128
    wide //= 257
    return wide.astype(np.uint8)


def _whole(values: NDArray[np.floating], kind: str) -> Pixels:
    """Floats to integers of 8 or 16 bits."""
    low, high, greatest = float(values.min()), float(values.max()), _GREATEST[kind]
    if not (low >= 0 and high <= (255 if kind == "8" else 1)):
        most = "0 to 255" if kind == "8" else "0 to 1"
        raise Unreadable(f"floating-point values beyond {most}, or not numbers")
    scaled: NDArray[np.floating] = np.rint(values * np.float32(greatest if high <= 1 else 1))
    return scaled.astype(np.uint8 if kind == "8" else np.uint16)


def finite(values: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return floats as float32, if all of them are finite numbers in it; raises `Unreadable`."""
    with np.errstate(over="ignore"):
        narrow = np.asarray(values, np.float32)
    if not np.isfinite(narrow).all():
        raise Unreadable("floating-point values that are not finite numbers")
    return narrow


def rendered(pixels: Pixels) -> NDArray[np.uint8]:
    """Return a picture as bytes to look at.

    Args:
        pixels: (H, W, C) of any depth and number of channels.

    Returns:
        (H, W, 1 or 3) uint8: the first three channels, or the first; floats that have no rule for bytes are stretched
        from the picture's own least to its greatest value.
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
    """Bring a picture to a size. An image that already has it is not resampled.

    Args:
        pixels: (H, W, C) uint8, uint16 or float32.
        size: (height, width) wanted.
        resample: how; nearest neighbours for masks.
        crop: `center` cuts the largest centred rectangle of the wanted proportions, `letterbox` keeps all of the
            picture, centred. Sides are rounded to whole pixels, at least 1.
        fill: (C,) the value of what a letterbox leaves free; 0 when None.
        alpha: whether the last channel is opacity.

    Returns:
        (height, width, C) of the same type.
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
    """Return what fills a letterbox, (channels,): a colour, its luma; nothing (0) among floats and other channels.

    Args:
        colour: a CSS name or #rrggbb.
        channels: of the picture; opacity is 0.
        kind: of its depth.
    """
    if kind == "float" or channels not in (1, 3):
        return np.zeros(channels, np.uint8)
    rgb = np.array(ImageColor.getrgb(colour)[:3], np.uint8).reshape(1, 1, 3)
    filled: Pixels = converted(with_channels(rgb, channels), kind)[0, 0]
    return filled


def _resized(pixels: Pixels, size: tuple[int, int], resample: Image.Resampling, alpha: bool) -> Pixels:
    """Resample (H, W, C) pixels to a size."""
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
    """Return (H, W, C) pixels with another number of channels.

    Args:
        pixels: grey (1) or colour (3), with opacity behind them where `alpha`, or any number of bands.
        channels: as many as wanted; 2 and 4 are grey and colour with opacity.
        alpha: whether the last channel is opacity.

    Raises:
        Unreadable: bands that can't become other bands.
    """
    own = pixels.shape[2]
    if own == channels:
        return pixels
    colours = own - alpha
    if colours not in (1, 3) or channels not in ((2, 4) if alpha else (1, 2, 3, 4)):
        raise Unreadable(f"{own} channels, where {channels} are wanted")
    ink, wanted = pixels[..., :colours], channels - (channels in (2, 4))
    if wanted != colours:
        ink = _luma(ink) if wanted == 1 else np.repeat(ink, 3, axis=2)
    if wanted == channels:
        return ink
    full = _GREATEST.get(kind_of(pixels), 1)
    opacity = pixels[..., -1:] if alpha else np.full_like(pixels[..., :1], full)
    return np.concatenate([ink, opacity], axis=2)


def _luma(pixels: Pixels) -> Pixels:
    """(H, W, 3) to (H, W, 1), by BT.601."""
    if pixels.dtype == np.float32:
        weights: NDArray[Any] = _LUMA.astype(np.float32) / np.float32(65536)
        return np.asarray((pixels * weights).sum(2, keepdims=True), np.float32)
    if pixels.dtype == np.uint8:
        return np.asarray(Image.fromarray(np.ascontiguousarray(pixels)).convert("L"))[..., None]
    # 65535 times the sum of the weights is below 2^32 by just enough for the rounding
    return np.asarray((pixels * _LUMA).sum(2, keepdims=True, dtype=np.uint32) + np.uint32(0x8000) >> 16, np.uint16)
