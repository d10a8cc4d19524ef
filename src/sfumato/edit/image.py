"""Read images and masks from files and fit them to a model by the rules of its training data.

An image is decoded as training images are (formats, pixel cap, modes, EXIF, transparency over the model's own
background), brought to the model's pixel format, cut to its proportions around its centre, resized to its size, and
given its channels: grey is repeated for a model of colour, colour becomes its luma (BT.601) for a model of grey. A note
lists these steps.

A mask is an image whose light pixels (luma 128 and more) are to be repainted; or the transparent pixels (opacity
below 128) of an image itself; or a rectangle in the pixels of the image's file. In a mask of zeros and ones the ones
are light, and in a dark drawing on transparent ground what is drawn (opacity 128 and more). It is cropped as an image
of its size would be and resized by nearest neighbour, so a mask of the image's own size covers the same pixels. One
that is black all over paints nothing; any other that would is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sfumato.data.formats.decode import header_size, read_picture
from sfumato.data.formats.fitting import (
    RESAMPLES,
    converted,
    fit,
    flattened,
    is_grey,
    kind_of,
    largest_cut,
    read_values,
    with_channels,
)
from sfumato.data.sources.protocol import Pixels, Unreadable
from sfumato.errors import UserError, similar
from sfumato.model import Model

T = TypeVar("T")
Size = tuple[int, int]


@dataclass(frozen=True)
class Fitted:
    """An image as a model takes it: pixels (C, H, W), float32 from -1 to 1, and the steps from the file's pixels, such
    as "cut from 90x120 to 90x90, resized to 16x16"."""

    x: Tensor
    note: str


def read_image(model: Model, path: Path, size: Size | None = None) -> Fitted:
    """Read an image and fit it to a model, or to another size (H, W); raises `UserError` for no such file, not an
    image, or values or channels that can't become the model's."""
    data, form, (channels, *own) = model.config.data, model.codec.format, model.codec.image_shape
    height, width = size or own
    picture = _read(path, lambda: read_picture(path))
    alpha = picture.alpha and data.channels == channels and channels in (2, 4)
    clamp = (form.low, form.high) if data.clamps else None
    read = lambda: read_values(picture, data.background, form.kind, data.hole, clamp, alpha)  # noqa: E731
    pixels = _read(path, read).pixels
    fitted = fit(pixels, (height, width), RESAMPLES[data.resample], alpha=alpha)
    fitted = fitted if clamp is None else fitted.clip(*clamp)
    done = _fitting(pixels.shape[:2], (height, width))
    if channels == 1 and not is_grey(fitted):
        done.append("made grey")
    if kind_of(picture.pixels) != form.kind:
        done.append(f"brought to {form.words}")
    values = _read(path, lambda: with_channels(fitted, channels, alpha))
    return Fitted(form.to_model(torch.from_numpy(values.transpose(2, 0, 1).copy())), ", ".join(done))


def read_mask(path: Path, size: Size) -> Tensor:
    """Read a mask: True where to paint, (H, W) bool of the size wanted. Errors as `read_image`, or a mask that paints
    nothing."""
    picture = _read(path, lambda: read_picture(path))
    light = _read(path, lambda: with_channels(converted(flattened(picture, "black"), "8"), 1)) >= 128
    if not light.any() and picture.alpha:
        light = converted(picture.pixels[..., -1:], "8") >= 128
    elif not light.any() and picture.pixels.max() == 1:
        light = picture.pixels.max(axis=2, keepdims=True) == 1
    if not light.any() and picture.pixels.any():
        raise UserError(
            f"{path} leaves nothing to paint: make it light (128 to 255) where to paint, and dark elsewhere"
        )
    return _hole(light, size, path)


def read_transparency(path: Path, size: Size) -> Tensor:
    """Read which pixels of an image are transparent, (H, W) bool of the size wanted. Errors as `read_image`, or an
    image without transparency."""
    picture = _read(path, lambda: read_picture(path))
    if not picture.alpha:
        raise UserError(
            f"{path} has no transparent pixels to paint: give a mask (--mask FILE) or a rectangle (--box X,Y,W,H)"
        )
    clear = converted(picture.pixels[..., -1:], "8") < 128
    if not clear.any():
        raise UserError(f"{path} has no pixel of less than half opacity to paint: give --mask FILE or --box X,Y,W,H")
    return _hole(clear, size, path)


def read_box(path: Path, box: tuple[int, int, int, int], size: Size) -> Tensor:
    """Make a mask of a rectangle (left, top, width, height) in pixels of an image's file, (H, W) bool of the size
    wanted. Errors as `read_image`, or a rectangle that is not within the image."""
    rows, columns = _read(path, lambda: header_size(path))
    left, top, width, height = box
    if not (left >= 0 and top >= 0 and width >= 1 and height >= 1 and left + width <= columns and top + height <= rows):
        raise UserError(
            f"the box {','.join(map(str, box))} is not within {path}, which is {columns} wide and {rows} high: give "
            "left, top, width and height in its pixels"
        )
    pixels = np.zeros((rows, columns, 1), bool)
    pixels[top : top + height, left : left + width] = True
    return _hole(pixels, size, path)


def _read(path: Path, read: Callable[[], T]) -> T:
    """Read from a file; errors become `UserError`."""
    if not path.is_file():
        wrong = "is not a file" if path.exists() else "does not exist"
        raise UserError(f"{path} {wrong}: give an image file{'' if path.exists() else similar(path, Path.is_file)}")
    try:
        return read()
    except Unreadable as error:
        raise UserError(f"{path} can't be used: {error.reason}") from None


def _fitting(shape: tuple[int, ...], size: Size) -> list[str]:
    """Return how an image of one size becomes one of another, sizes as width x height."""
    (h, w), (height, width) = shape, size
    rows, columns = largest_cut(shape, size)
    done = [] if (rows, columns) == (h, w) else [f"cut from {w}x{h} to {columns}x{rows}"]
    return done if (rows, columns) == size else [*done, f"resized to {width}x{height}"]


def _hole(light: np.ndarray, size: Size, path: Path) -> Tensor:
    """Cut and resize a mask, (h, w, 1) bool, to (H, W) bool; raises `UserError` where nothing of it is left."""
    pixels: Pixels = light.astype(np.uint8) * np.uint8(255)
    hole = torch.from_numpy(fit(pixels, size, Image.Resampling.NEAREST)[..., 0] > 127)
    if light.any() and not hole.any():
        how = ", ".join(_fitting(light.shape[:2], size))
        raise UserError(f"{path}: nothing is left to paint of it when it is {how}: mark a larger or more central part")
    return hole
