"""Arrays as numpy writes them: a picture in each .npy of a folder, or all pictures in one .npy or .npz.

This is the way in for anything that is no ordinary picture: many bands, floats, slices of a volume. Nothing is
unpickled, and a file's word for its shape is held against its length before memory is asked for.

    one picture         (H, W) or (H, W, C) or (C, H, W)
    many pictures       (N, H, W) or (N, H, W, C) or (N, C, H, W); in an .npz the array `images`, or the only one

Which axis the channels are is told by length: of the two that it can be, the shorter one, and the last where both are
alike. What numbers become:

    bool                8 bits, 0 and 255            float16, float32, float64   floats (float32), as they are
    uint8, uint16       8 and 16 bits, as they are   other integers              floats, up to 2^24 either way

An .npz may also hold `labels` (N,), integers or text, which are the attribute `class`; with `classes` (K,), text,
integers are places in it.
"""

from __future__ import annotations

import io
import math
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from sfumato.conditions.attributes import Attribute
from sfumato.config.data import MOST_CHANNELS
from sfumato.data.formats.fitting import finite
from sfumato.data.sources.protocol import (
    MAX_PIXELS,
    Arrays,
    ArraySource,
    File,
    Picture,
    Pixels,
    Unreadable,
    one_class,
    printable,
)
from sfumato.errors import UserError

__all__ = ["array_size", "array_source", "as_pixels", "is_array", "is_array_file", "read_array"]

MAGIC = b"\x93NUMPY"
SUFFIXES = (".npy", ".npz")
EXACT = 2**24
"""Up to which float32 has every integer."""
MOST_BYTES = 2**36
"""Of an array unpacked from an .npz, which has to fit into the memory; an .npy is mapped."""


def is_array(path: File) -> bool:
    """Return whether a file begins as an .npy does; what can't be read is none."""
    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def is_array_file(path: Path) -> bool:
    """Return whether a file's name is one of arrays."""
    return path.suffix.lower() in SUFFIXES


def array_size(path: File) -> tuple[int, int]:
    """Return (height, width) of the picture in an .npy from its header; raises `Unreadable`."""
    return _laid_out(_mapped(path)).shape[:2]  # type: ignore[return-value]


def read_array(path: File) -> Picture:
    """Return the picture in an .npy; raises `Unreadable`."""
    return Picture(as_pixels(_laid_out(_mapped(path))))


def as_pixels(array: NDArray[Any]) -> Pixels:
    """Return numbers as the module's table has them: uint8, uint16 or float32, a copy.

    Raises:
        Unreadable: a type without a rule, numbers that are not finite, or integers beyond 2^24.
    """
    kind = array.dtype.kind
    if kind == "b":
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype.newbyteorder("=") in (np.uint8, np.uint16):
        return np.array(array, array.dtype.newbyteorder("="))
    if kind == "f":
        return np.array(finite(array))
    if kind not in "iu":
        raise Unreadable(f"an array of {array.dtype} has no rule")
    if array.size and (int(array.max()) > EXACT or int(array.min()) < -EXACT):
        raise Unreadable(f"integers beyond {EXACT:,}, which floats don't hold exactly")
    return array.astype(np.float32)


def array_source(path: Path) -> ArraySource:
    """Return a source of the pictures in one .npy or .npz.

    Args:
        path: the file; it is read when the pictures are asked for.
    """
    status = path.stat()
    key = f"{path.resolve()} {status.st_size} {status.st_mtime_ns}"
    return _Numbers(printable(str(path.resolve())), key, lambda: _load(path))


class _Numbers(ArraySource):
    """Pictures in one array of any numbers."""

    def read(self, i: int) -> Picture:
        """Return picture i; raises `Unreadable`."""
        return Picture(as_pixels(self.arrays.images[i]), tuple(self.arrays.conditions[i].tolist()))


def _mapped(path: File) -> NDArray[Any]:
    """The array in an .npy, mapped; raises `Unreadable`."""
    try:
        with path.open("rb") as file:
            _check_length(file, file.seek(0, io.SEEK_END))
            file.seek(0)
            if isinstance(path, Path):
                return np.load(path, mmap_mode="r", allow_pickle=False)  # type: ignore[no-any-return]
            return np.lib.format.read_array(file, allow_pickle=False)  # type: ignore[no-any-return]
    except Exception as error:  # the header is a stranger's text, and numpy raises many things over it
        raise Unreadable(f"damaged: {printable(str(error) or type(error).__name__)[:80]}") from None


def _laid_out(array: NDArray[Any]) -> NDArray[Any]:
    """An array of one picture as (H, W, C); raises `Unreadable`."""
    if array.ndim not in (2, 3) or not array.size:
        shape = "x".join(map(str, array.shape))
        raise Unreadable(f"an array of {shape or 'one number'} is no picture: height x width (x channels)")
    laid: NDArray[Any] = _channels_last(array[None] if array.ndim == 3 else array[None, :, :, None])[0]
    height, width, channels = laid.shape
    if height * width > MAX_PIXELS or channels > MOST_CHANNELS or height * width * channels > 4 * MAX_PIXELS:
        raise Unreadable(f"too large: {width}x{height} of {channels} channels")
    return laid


def _channels_last(array: NDArray[Any]) -> NDArray[Any]:
    """(N, H, W, C) or (N, C, H, W) as the former."""
    last: NDArray[Any] = array if array.shape[3] <= array.shape[1] else array.transpose(0, 2, 3, 1)
    return last


def _load(path: Path) -> Arrays:
    """Read all pictures of a file, and their labels."""
    shown = printable(str(path))
    try:
        images, labels, classes = _unpacked(path) if zipfile.is_zipfile(path) else (_mapped(path), None, None)
    except Unreadable as fault:
        raise UserError(f"'{shown}' can't be read as an array: {fault.reason}") from None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, RuntimeError) as error:
        reason = printable(str(error))[:100]
        raise UserError(f"'{shown}' can't be read as arrays ({reason}): write it with numpy.save or savez") from None
    if images.ndim not in (3, 4) or not images.size:
        shape = "x".join(map(str, images.shape))
        raise UserError(f"'{shown}' holds an array of {shape}: images are number x height x width (x channels)")
    images = _channels_last(images if images.ndim == 4 else images[..., None])
    if math.prod(images.shape[1:3]) > MAX_PIXELS or images.shape[3] > MOST_CHANNELS:
        raise UserError(f"'{shown}' holds images of {'x'.join(map(str, images.shape[1:]))}, which are too large")
    if labels is None:
        return Arrays(images, np.zeros((len(images), 0), np.float32), ())
    return _labelled(images, labels, classes, shown)


def _labelled(images: Pixels, labels: NDArray[Any], classes: NDArray[Any] | None, shown: str) -> Arrays:
    """Images with the attribute `class`."""
    if labels.shape != images.shape[:1] or labels.dtype.kind not in "iuU":
        raise UserError(f"the labels in '{shown}' must be one integer or text for each of {len(images):,} images")
    if classes is None or labels.dtype.kind == "U":
        names, labels = np.unique(labels, return_inverse=True)
    else:
        names = classes
        if labels.min() < 0 or labels.max() >= len(names):
            raise UserError(f"'{shown}' has labels beyond its {len(names)} classes: count them from 0")
    if len(names) < 2:
        return Arrays(images, np.zeros((len(images), 0), np.float32), ())
    known = one_class(images, labels, tuple(printable(str(name)) for name in names))
    assert isinstance(known.attributes[0], Attribute)
    return known


def _unpacked(path: Path) -> tuple[NDArray[Any], NDArray[Any] | None, NDArray[Any] | None]:
    """(images, labels, classes) of an .npz; raises what reading it raises."""
    with zipfile.ZipFile(path) as archive:
        lengths = {info.filename: info.file_size for info in archive.infolist()}
        for name, length in lengths.items():
            with archive.open(name) as member:
                _check_length(member, length)
    with np.load(path, allow_pickle=False) as arrays:
        names = list(arrays.files)
        if "images" not in names and len(names) != 1:
            raise ValueError(f"it holds {', '.join(names[:4])}, and no array 'images'")
        images: NDArray[Any] = arrays["images" if "images" in names else names[0]]
        return images, *(arrays[name] if name in names else None for name in ("labels", "classes"))  # type: ignore


def _check_length(member: IO[bytes], length: int) -> None:
    """Refuse an array whose header promises more than its file has, before numpy asks for the memory."""
    if member.seekable():
        member.seek(0)
    version = np.lib.format.read_magic(member)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(member)
    if dtype.hasobject or not math.prod(shape) * dtype.itemsize <= min(length, MOST_BYTES):
        raise ValueError("an array of objects, or larger than its file")
