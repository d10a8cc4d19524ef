"""Arrays in numpy's format, and the conversion of numbers to pixels.

Nothing is unpickled, and the shape that a file claims is compared with its length before memory is allocated. Of the
two axes of an array (H, W, C) or (C, H, W) that can be the channels, the shorter one is, and the last where both are
alike.

    bool                8 bits, 0 and 255            float16, float32, float64   floats (float32), as they are
    uint8, uint16       8 and 16 bits, as they are   other integers              floats, up to 2^24 either way
"""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from sfumato.config.data import MOST_CHANNELS
from sfumato.data.sources.protocol import MAX_PIXELS, File, Pixels, Unreadable, printable

MAGIC = b"\x93NUMPY"
EXACT = 2**24
"""Float32 represents every integer up to this one."""
MOST_BYTES = 2**36
"""The most bytes of an array from an .npz, which has to fit into memory; an .npy is mapped."""


def view_picture(file: File) -> NDArray[Any]:
    """Return the one picture in an .npy as (H, W, C), a map of the file; raises `Unreadable`."""
    array = mapped(file)
    if array.ndim not in (2, 3) or not array.size:
        shape = "x".join(map(str, array.shape)) or "one number"
        raise Unreadable(f"an array of {shape} is not a picture: height x width (x channels)")
    picture: NDArray[Any] = channels_last(array[None] if array.ndim == 3 else array[None, ..., None])[0]
    if too_large(picture.shape):
        height, width, channels = picture.shape
        raise Unreadable(f"too large: {width}x{height} of {channels} channels")
    return picture


def as_pixels(array: NDArray[Any]) -> Pixels:
    """Return numbers as the module's table has them, a copy; raises `Unreadable` for others."""
    kind = array.dtype.kind
    if kind == "b":
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype.newbyteorder("=") in (np.uint8, np.uint16):
        return np.array(array, array.dtype.newbyteorder("="))
    if kind == "f":
        return np.array(finite(array))
    if kind not in "iu":
        raise Unreadable(f"{array.dtype} arrays are not supported (bool, integers and floats are)")
    if array.size and (int(array.max()) > EXACT or int(array.min()) < -EXACT):
        raise Unreadable(f"integers beyond {EXACT:,}, which float32 does not hold exactly")
    return array.astype(np.float32)


def finite(values: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return floats as float32, if all of them are finite numbers in it, or NaN, which may mark missing data
    (`fitting.without_holes`); raises `Unreadable`."""
    with np.errstate(over="ignore"):
        narrow = np.asarray(values, np.float32)
    if np.isinf(narrow).any():
        raise Unreadable("floating-point values that are not finite numbers")
    return narrow


def too_large(shape: tuple[int, ...]) -> bool:
    """Return whether a picture of shape (H, W, C) is larger than what is read."""
    height, width, channels = shape
    return height * width > MAX_PIXELS or channels > MOST_CHANNELS or math.prod(shape) > 4 * MAX_PIXELS


def mapped(file: File) -> NDArray[Any]:
    """Return the array in an .npy, mapped; raises `Unreadable`."""
    try:
        with file.open("rb") as stream:
            check_length(stream, stream.seek(0, io.SEEK_END))
            stream.seek(0)
            if isinstance(file, Path):
                return np.load(file, mmap_mode="r", allow_pickle=False)  # type: ignore[no-any-return]
            return np.lib.format.read_array(stream, allow_pickle=False)  # type: ignore[no-any-return]
    except Unreadable:
        raise
    except Exception as error:  # numpy raises many exceptions on a foreign header
        raise Unreadable(f"damaged: {printable(str(error) or type(error).__name__)[:80]}") from None


def channels_last(array: NDArray[Any]) -> NDArray[Any]:
    """Return (N, H, W, C) or (N, C, H, W) as the former."""
    return array if array.shape[3] <= array.shape[1] else array.transpose(0, 2, 3, 1)


def check_length(member: IO[bytes], length: int) -> None:
    """Refuse an array whose header promises more than its file has, before numpy asks for the memory."""
    if member.seekable():
        member.seek(0)
    version = np.lib.format.read_magic(member)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(member)
    if dtype.hasobject:
        raise Unreadable("an array of objects, which a pickle holds: save numbers")
    if not math.prod(shape) * dtype.itemsize <= min(length - member.tell(), MOST_BYTES):
        raise ValueError("the header promises more than the file holds: it may be cut short")
