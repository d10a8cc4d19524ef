"""One picture, looked at once: a record of fixed size that holds all that the survey of a collection needs to know.

A collection of a million pictures can't be kept in memory, a million records of a kilobyte can. So whatever is asked
later (sizes, brightness, copies, what is odd) is answered from the record alone, and each picture is decoded once:

    what the file is    format, mode, bits a channel, transparency, further frames, a suffix that says something else
    what it shows       size, mean of each channel, contrast (standard deviation of the luma), darkest and lightest byte
    which one it is     128 bits of the SHA-256 of its pixels, equal for exact copies
    what it looks like  a thumbnail of 16 x 16, and two hashes of 64 bits, of it and its mirror image

The hashes are the two usual ones. The difference hash has a bit for each of 8 x 8 pairs of neighbours in a thumbnail
of 9 x 8: is the right one lighter (here: by more than `LIGHTER` grey levels, so that flat paper stays zero in spite of
JPEG's noise)? The other takes the 8 x 8 lowest frequencies of a cosine transform of a thumbnail of 32 x 32: is the
coefficient above their median? Neither changes much with brightness, size or compression; `copies` says how much.
"""

from __future__ import annotations

import hashlib
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sfumato.data.formats.fitting import is_grey, rendered
from sfumato.data.sources.protocol import Pixels, Source
from sfumato.inspect.files import file_facts

__all__ = ["THUMB", "Sights", "difference_hash", "frequency_hash", "look", "sight_type"]

THUMB = 16
"""The side of the thumbnail in a record."""
LIGHTER = 2
"""Grey levels by which a neighbour must be lighter to count."""

Sights = NDArray[np.void]
"""(N,) records of `sight_type`."""
WAVES: NDArray[np.float64] = np.cos(np.pi * np.arange(8)[:, None] * (np.arange(32) + 0.5) / 32)
"""(8, 32): the lowest rows of the cosine transform (DCT-II), cos(pi k (n + 1/2) / 32)."""
MIRROR = (-1.0) ** np.arange(8)
"""(8,): the horizontal frequency k of a mirror image has the sign (-1)^k."""
_BILINEAR = Image.Resampling.BILINEAR  # Pillow widens the triangle by the scale, so shrinking does not alias


@cache
def sight_type(num_attributes: int) -> np.dtype[np.void]:
    """Return the record of a picture in a source with so many attributes."""
    return np.dtype(
        [
            ("index", "<i8"),
            ("height", "<i4"),
            ("width", "<i4"),
            ("format", "S12"),
            ("mode", "S8"),
            ("bits", "u1"),
            ("alpha", "?"),
            ("animated", "?"),
            ("misnamed", "?"),
            ("cut_short", "?"),
            ("grey", "?"),
            ("low", "u1"),
            ("high", "u1"),
            ("constant", "?"),
            ("mean", "<f4", (3,)),
            ("contrast", "<f4"),
            ("digest", "<u8", (2,)),
            ("hashes", "<u8", (2,)),
            ("mirrored", "<u8", (2,)),
            ("thumb", "u1", (THUMB, THUMB, 3)),
            ("condition", "<f4", (num_attributes,)),
        ]
    )


def look(source: Source, i: int) -> Sights:
    """Look at picture i.

    Args:
        source: the pictures.
        i: which.

    Returns:
        () record of `sight_type(len(source.attributes))`.

    Raises:
        Unreadable: the picture can't be used.
    """
    picture = source.read(i)
    sight = np.zeros((), sight_type(len(source.attributes)))
    sight["index"], sight["animated"], sight["condition"] = i, picture.animated, picture.condition
    pixels = rendered(picture.pixels)
    sight["height"], sight["width"], _ = pixels.shape
    facts = file_facts(source, i)
    if facts is not None:
        sight["format"], sight["mode"], sight["bits"] = facts.format, facts.mode, facts.bits
        sight["alpha"], sight["misnamed"] = facts.alpha, facts.misnamed
    _describe(sight, pixels)
    sight["cut_short"] = sight["format"] == b"JPEG" and not sight["constant"] and _filled(pixels)
    return sight


def difference_hash(rows: NDArray[np.integer]) -> int:
    """Return the 64 bits of the difference hash.

    Args:
        rows: (8, 9) signed integers, a thumbnail's luma; its mirror image is `rows[:, ::-1]`.
    """
    return _packed(rows[:, 1:] - rows[:, :-1] > LIGHTER)


def frequency_hash(low: NDArray[np.floating]) -> int:
    """Return the 64 bits of the frequency hash; the constant's bit is always 0.

    Args:
        low: (8, 8) lowest coefficients of the cosine transform; the mirror image's are `low * MIRROR`.
    """
    bits = low > np.sort(low.ravel()[1:])[31]  # the median of 63
    bits[0, 0] = False
    return _packed(bits)


def _filled(pixels: Pixels) -> bool:
    """Whether an edge 8 pixels wide is exactly the middle grey that JPEG's decoder leaves where data ended early."""
    edges = (pixels[-8:], pixels[:8], pixels[:, -8:], pixels[:, :8])  # any of them, since the picture may be turned
    return any(edge[0, 0, 0] == 128 and (edge == 128).all() for edge in edges)


def _describe(sight: Any, pixels: Pixels) -> None:
    """Fill in what pixels (H, W, C) tell; counts of bytes give means exactly, whatever the size."""
    sight["grey"] = grey = is_grey(pixels)
    plain = np.ascontiguousarray(pixels[..., :1] if grey else pixels)
    head = f"{plain.shape}".encode()
    sight["digest"] = np.frombuffer(hashlib.sha256(head + plain.tobytes()).digest()[:16], "<u8")
    image = Image.fromarray(plain[..., 0] if grey else plain)
    luma = image if grey else image.convert("L")
    counts = np.array(image.histogram()).reshape(-1, 256)
    values, number = np.arange(256.0), pixels.shape[0] * pixels.shape[1]
    sight["mean"] = counts @ values / number
    used = [np.flatnonzero(row) for row in counts]
    sight["low"], sight["high"] = min(row[0] for row in used), max(row[-1] for row in used)
    sight["constant"] = all(len(row) == 1 for row in used)
    shades = counts[0] if grey else np.array(luma.histogram())
    mean = shades @ values / number
    sight["contrast"] = np.sqrt(shades @ (values - mean) ** 2 / number)
    thumb = np.asarray(image.resize((THUMB, THUMB), _BILINEAR)).reshape(THUMB, THUMB, -1)
    sight["thumb"] = np.broadcast_to(thumb, (THUMB, THUMB, 3))
    rows = np.asarray(luma.resize((9, 8), _BILINEAR)).astype(np.int16)
    low = WAVES @ np.asarray(luma.resize((32, 32), _BILINEAR)).astype(np.float64) @ WAVES.T
    sight["hashes"] = difference_hash(rows), frequency_hash(low)
    sight["mirrored"] = difference_hash(rows[:, ::-1]), frequency_hash(low * MIRROR)


def _packed(bits: NDArray[np.bool_]) -> int:
    """64 bits as one number."""
    return int.from_bytes(np.packbits(bits.ravel()).tobytes(), "big")
