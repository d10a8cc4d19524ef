"""The idx format of MNIST and its kin: images and labels as plain arrays, perhaps gzipped.

    byte 0, 1: zero;  byte 2: type, 0x08 = uint8;  byte 3: number of dimensions n;  n big-endian uint32 sizes;  the data

(LeCun, Cortes and Burges, "The MNIST database of handwritten digits"). Images have three dimensions (N, H, W), labels
one. A folder holds pairs such as `train-images-idx3-ubyte.gz` and `train-labels-idx1-ubyte.gz`.
"""

from __future__ import annotations

import gzip
import math
import re
import struct
import zlib
from pathlib import Path

import numpy as np

from sfumato.data.sources.protocol import Arrays, ArraySource, Pixels, one_class
from sfumato.errors import UserError

__all__ = ["find_idx", "idx_source", "is_idx_images", "labels_of", "read_idx"]

MAX_BYTES = 2**32
_IMAGES = re.compile(r"(.*)images([.-])idx3([.-])ubyte(\.gz)?")


def find_idx(folder: Path) -> tuple[Path, Path | None] | None:
    """Return a folder's idx images and their labels.

    Of several files of images the one that says "train" is taken, and of a file and its gzip the file.

    Args:
        folder: an existing folder; only its own files are looked at.

    Returns:
        (images, labels or None), or None where the folder holds no idx images.

    Raises:
        UserError: several files of images and none, or more than one, says "train".
    """
    found = sorted(path for path in folder.iterdir() if _IMAGES.fullmatch(path.name))
    found = [path for path in found if not (path.suffix == ".gz" and path.with_suffix("") in found)]
    chosen = [path for path in found if "train" in path.name] if len(found) > 1 else found
    if not found:
        return None
    if len(chosen) != 1:
        names = ", ".join(path.name for path in found)
        raise UserError(f"several idx files of images in '{folder}' ({names}): give the path of one of them")
    return chosen[0], labels_of(chosen[0])


def is_idx_images(path: Path) -> bool:
    """Return whether a file's name is one of idx images."""
    return _IMAGES.fullmatch(path.name) is not None


def labels_of(images: Path) -> Path | None:
    """Return the file of labels that belongs to a file of images, None where there is none."""
    match = _IMAGES.fullmatch(images.name)
    if match is None:
        return None
    stem, first, second, _ = match.groups()
    plain = images.with_name(f"{stem}labels{first}idx1{second}ubyte")
    return next((path for path in (plain, Path(f"{plain}.gz")) if path.is_file()), None)


def read_idx(path: Path) -> Pixels:
    """Read one idx file of bytes.

    Args:
        path: the file, gzipped where its name ends in .gz.

    Returns:
        uint8 of the shape that the header says.

    Raises:
        UserError: not idx, not bytes, truncated or longer than it says, damaged, or of more than 4 GiB.
    """
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            start = file.read(4)
            if len(start) < 4 or start[:3] != b"\0\0\x08" or not 1 <= start[3] <= 4:
                raise UserError(f"'{path}' is not an idx file of bytes")
            sizes = file.read(4 * start[3])
            shape = struct.unpack(f">{start[3]}I", sizes) if len(sizes) == 4 * start[3] else (0,)
            count = math.prod(shape)
            # one byte more reaches the end, where gzip's checksum is compared
            data = file.read(count + 1) if 0 < count <= MAX_BYTES else b""
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"'{path}' cannot be read as idx: {error}") from None
    if not data or len(data) != count:
        says = "x".join(map(str, shape))
        raise UserError(f"'{path}' is not as long as its header says ({says} bytes, at most 4 GiB)")
    return np.frombuffer(data, np.uint8).reshape(shape)


def idx_source(images: Path, classes: tuple[str, ...] | None = None, name: str | None = None) -> ArraySource:
    """Return a source of the images in an idx file, with the labels of the file beside it.

    Args:
        images: the file of images (N, H, W).
        classes: the names of labels 0, 1, ...; None names them by their numbers.
        name: None is the file's absolute path.
    """
    labels = labels_of(images)
    files = [images] if labels is None else [images, labels]
    key = "; ".join(f"{path.resolve()} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in files)
    return ArraySource(name or str(images.resolve()), key, lambda: _load(images, labels, classes))


def _load(images_path: Path, labels_path: Path | None, classes: tuple[str, ...] | None) -> Arrays:
    """Read a pair of idx files and hold them to one another."""
    images = read_idx(images_path)
    if images.ndim != 3:
        raise UserError(f"'{images_path}' has {images.ndim} dimensions, where images have 3")
    if labels_path is None:
        return Arrays(images[..., None], np.zeros((len(images), 0), np.float32), ())
    labels = read_idx(labels_path)
    if labels.shape != images.shape[:1]:
        raise UserError(f"'{labels_path}' has {len(labels):,} labels for {len(images):,} images")
    names = classes or tuple(str(k) for k in range(int(labels.max()) + 1))
    if int(labels.max()) >= len(names):
        raise UserError(f"'{labels_path}' holds label {int(labels.max())}, where there are {len(names)} classes")
    return one_class(images[..., None], labels, names)
