"""A picture is converted to one bit depth, one number of channels and one size, those of the rows of a store (`rows`).

Each step follows a stated rule and leaves pixels unchanged that fit already:

**Missing data** (`without_holes`). Where a value of a pixel is `nodata`, or NaN where that is the mark, all of its
values become the means of the picture's other pixels. After that floats have to be finite.

**Opacity** (`flattened`). A picture with opacity is composited onto the background, a p + (1 - a) b, unless the
channels include opacity.

**Depth** (`converted`). 8 bits become 16 as 257 k, 16 become 8 as round(v / 257), both become floats as they are.
Floats become integers where all are in [0, 1], scaled by the greatest integer, or, for 8 bits, where all are in [0,
255], rounded; other floats can't become integers. With `clamp` floats beyond a range take its ends, before resampling
and after it, which overshoots.

**Size** (`fit`). With the crop `center` the largest centred rectangle of the wanted proportions is cut out, with
`letterbox` the whole picture is kept and the rest filled. What is left is resampled with Lanczos-3 stretched by the
scale, so shrinking does not alias (Parmar et al. 2022, "On Aliased Resizing", shows what aliasing does to metrics):
bytes with Pillow's arithmetic of bytes, all else by the same filter in float32, channel by channel. Where a channel is
opacity, colours are resampled in proportion to it, so that hidden colours of transparent pixels don't show. With
`nearest` each pixel is the nearest one of the picture, so that no new values arise.

**Channels** (`with_channels`). Grey is repeated, colour becomes its luma (BT.601, as Pillow counts it), missing opacity
is full. Other bands stay as they are.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor

from sfumato.data.formats.values import Values
from sfumato.data.sources.protocol import Picture, Pixels, Unreadable

_KINDS = {np.dtype(np.uint8): "8", np.dtype(np.uint16): "16", np.dtype(np.float32): "float"}
_GREATEST = {"8": 255, "16": 65535}
_LUMA = np.array([19595, 38470, 7471], np.uint32)
"""BT.601's weights in parts of 65536, as Pillow has them."""
RESAMPLES = {"lanczos": Image.Resampling.LANCZOS, "nearest": Image.Resampling.NEAREST}


@dataclass(frozen=True)
class Reading:
    """A picture as training reads it, at its own size: pixels (H, W, C), those of `FACTS` that are known, and the
    values before clamping."""

    pixels: Pixels
    facts: dict[str, int]
    values: Values


def read_values(
    picture: Picture,
    background: str,
    depth: str = "auto",
    nodata: float | None = None,
    clamp: tuple[float, float] | None = None,
    alpha: bool = False,
) -> Reading:
    """Return a picture with holes filled, on the background unless `alpha`, in one depth, clamped; arguments as `Form`.
    Raises `Unreadable` for nothing but missing data, or floats that are not finite or can't have that depth."""
    whole = without_holes(picture.pixels, nodata)
    pixels = whole.pixels
    if picture.alpha and not alpha:
        pixels = flattened(replace(picture, pixels=pixels), background)
    pixels = converted(pixels, kind_of(pixels) if depth == "auto" else depth)
    values = Values.of(pixels if whole.holes is None else pixels[~whole.holes])
    beyond = clamp is not None and not clamp[0] <= values.low <= values.high <= clamp[1]
    facts: dict[str, int] = {
        "animated": picture.animated,
        "composited": picture.alpha and not alpha,
        "filled": whole.holes is not None,
        "clamped": beyond,
        "converted": picture.profile == "converted",
        "unconverted": picture.profile == "ignored",
    }
    return Reading(pixels.clip(*clamp) if clamp is not None and beyond else pixels, facts, values)


@dataclass(frozen=True)
class Whole:
    """Pixels (H, W, C) without holes, and where holes were filled, (H, W) bool; None where there were none."""

    pixels: Pixels
    holes: NDArray[np.bool_] | None = None


def without_holes(pixels: Pixels, nodata: float | None) -> Whole:
    """Return pixels whose holes, where any value is `nodata` or NaN, are filled by the means of the others.

    NaN is a hole wherever there is a mark, whatever it is. Raises `Unreadable` where nothing else is there, or floats
    are not finite.
    """
    floats = pixels.dtype == np.float32
    if nodata is not None:
        holes = np.asarray(are_marked(pixels, nodata).any(axis=2))
        if holes.all():
            raise Unreadable("nothing but missing data (data.nodata)")
        if holes.any():
            mean = pixels[~holes].mean(axis=0, dtype=np.float64)
            filled = pixels.copy()
            filled[holes] = mean if floats else np.rint(mean)
            return Whole(_finite(filled), holes)
    return Whole(_finite(pixels))


def are_marked(pixels: Pixels, nodata: float) -> NDArray[np.bool_]:
    """Return which values mark missing data: `nodata`, and NaN."""
    if pixels.dtype == np.float32:
        return np.asarray((pixels == np.float32(nodata)) | np.isnan(pixels))
    return np.asarray(pixels == nodata)


def _finite(pixels: Pixels) -> Pixels:
    if pixels.dtype == np.float32 and not np.isfinite(pixels).all():
        raise Unreadable("floating-point values that are not finite numbers")
    return pixels


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


def rendered(pixels: Pixels, range: tuple[float, float] | None = None) -> NDArray[np.uint8]:
    """Return (H, W, C) pixels of any depth as bytes to look at, (H, W, 1 or 3).

    The first three channels are shown, or the first, in a range. Without one integers have that of their depth, and
    floats that can't become bytes are stretched from the picture's own least to its greatest value.
    """
    pixels = pixels[..., : 3 if pixels.shape[2] >= 3 else 1]
    if range is None:
        try:
            return converted(pixels, "8")
        except Unreadable:
            range = float(pixels.min()), float(pixels.max())
    low, high = range
    shown = (pixels.astype(np.float64) - low) / max(high - low, 1e-30) * 255  # exact in the middle
    return np.asarray(np.rint(shown.clip(0, 255)), np.uint8)


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
        inner = inner_size((h, w), size)
        top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
        out: Pixels = np.full((height, width, c), 0 if fill is None else fill, pixels.dtype)
        out[top : top + inner[0], left : left + inner[1]] = _resized(pixels, inner, resample, alpha)
        return out
    rows, columns = largest_cut((h, w), size)
    top, left = (h - rows) // 2, (w - columns) // 2
    return _resized(pixels[top : top + rows, left : left + columns], size, resample, alpha)


def largest_cut(own: tuple[int, ...], size: tuple[int, int]) -> tuple[int, int]:
    """Return the sides, in whole pixels, of the largest rectangle of the proportions of `size` in a picture of (height,
    width)."""
    (h, w), (height, width) = own, size
    return min(h, max(1, round(w * height / width))), min(w, max(1, round(h * width / height)))


def inner_size(own: tuple[int, ...], size: tuple[int, int]) -> tuple[int, int]:
    """Return the size that a whole picture of (height, width) has within a letterbox."""
    return largest_cut(size, (own[0], own[1]))


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
    return not (pixels[0, :, 0] != pixels[0, :, 1]).any() and bool((pixels == pixels[..., :1]).all())


def are_grey(pixels: Pixels) -> list[bool]:
    """Return which of the pictures (N, H, W, C) have no colour."""
    if len(pixels) == 1 or pixels.shape[3] == 1:
        return [is_grey(pixels[0])] * len(pixels)
    maybe = (pixels[:, 0, :, 0] == pixels[:, 0, :, 1]).all(1).tolist()
    return [so and is_grey(each) for so, each in zip(maybe, pixels, strict=True)]


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
