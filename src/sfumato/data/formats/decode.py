"""Decode one image file into pixels by stated rules; nothing here trusts the file.

Supported are the first frame of AVIF, BMP, GIF, JPEG, JPEG 2000, PNG, PPM, QOI, TIFF and WebP, and numpy's arrays
(`npy`), recognised by content and not by name. Everything else is `Unreadable`, as is anything of more than
`MAX_PIXELS` pixels by its header (a 17 kB PNG can hold 144 million) and anything that doesn't decode to its last row.

How modes become channels (C) of uint8, uint16 or float32:

    1, L                     C = 1, bytes as they are (0 and 255 for mode 1)
    I;16, and I in 0..65535  C = 1, 16 bits as they are
    F                        C = 1, floats as they are; NaN and infinity are unreadable
    RGB, P, HSV              C = 3, bytes by Pillow's conversion to RGB
    RGB of 16 bits           C = 3, 16 bits as they are in PNG (`png`) and TIFF (`tiff`), elsewhere the high byte
    CMYK                     C = 3, (255 - c)(255 - k) / 255 and so on
    YCbCr                    C = 3, the JPEG (full-range BT.601) formula
    many bands               C = any, a TIFF's 8 or 16 bits or floats as they are (`tiff`)
    anything transparent     C = 4, its opacity last; of 16-bit grey 2

Colour profiles other than sRGB are converted to it (`colour`), but not those of 16 bits and floats. The orientation in
EXIF is applied (Pillow itself applies a TIFF's). `fitting` converts depth, channels, opacity and size for training.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.ExifTags import Base

from sfumato.data.formats.colour import to_srgb, without_tint
from sfumato.data.formats.foreign import HEAD, foreign
from sfumato.data.formats.npy import MAGIC, as_pixels, finite, view_picture
from sfumato.data.formats.png import HEADER_END, plain_size, read_plain, read_sixteen, rows_missing
from sfumato.data.formats.tiff import bands_size, is_bands, read_bands
from sfumato.data.sources.protocol import MAX_PIXELS, Blob, File, Picture, Pixels, Unreadable, printable

_FORMATS = ("PNG", "JPEG", "AVIF", "BMP", "GIF", "JPEG2000", "PPM", "QOI", "TIFF", "WEBP")
"""Tried in this order, so the commonest come first."""
_PLAIN = ("RGB", "RGBX", "P", "CMYK", "YCbCr", "HSV")
_IN_MEMORY = 2**25
"""A file of at most this many bytes is read into memory, since decoding opens it several times."""
_MAY_TURN = {"exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp"}
"""Where Pillow looks for an orientation, in PNG and JPEG."""
# EXIF orientation -> (transpose, reverse rows, reverse columns), done in that order.
_TURNS = {2: (0, 0, 1), 3: (0, 1, 1), 4: (0, 1, 0), 5: (1, 0, 0), 6: (1, 0, 1), 7: (1, 1, 1), 8: (1, 1, 0)}


def read_picture(file: File) -> Picture:
    """Decode a file's first frame, turned as its EXIF orientation says; raises `Unreadable` for a format that is not
    allowed, too many pixels, damage, or a mode that is not read."""
    file = _in_memory(file)
    if isinstance(file, Blob) and (plain := read_plain(file.data, MAX_PIXELS)) is not None:
        return Picture(plain, alpha=plain.shape[2] == 4)
    if is_array(file):
        return Picture(as_pixels(view_picture(file)))
    if is_bands(file):
        with _guarded(file):
            picture, orientation = read_bands(file)
        return replace(picture, pixels=_turned(picture.pixels, orientation))
    with opened(file) as image:
        if image.format == "TIFF" and not _covered(image):
            raise Unreadable("damaged: its strips don't reach its last row")
        coarse = image.format == "PNG" and image.mode != "I;16" and ";16" in str(getattr(image, "tile", ()))
        image.load()
        deep = read_sixteen(file) if coarse else None
        eight = deep is None and not image.mode.startswith(("I", "F"))
        inner, profile = to_srgb(image) if eight else (image, "ignored" if image.info.get("icc_profile") else "")
        pixels, alpha = _pixels(inner) if deep is None else (deep, deep.shape[2] in (2, 4))
        if image.format == "PNG" and _ends_blank(image, pixels) and rows_missing(file):
            raise Unreadable("damaged: its data end before its last row")
        pixels = _turned(without_tint(image, pixels), _orientation(image))
        return Picture(pixels, animated=_animated(image), alpha=alpha, profile=profile)


def header_size(file: File) -> tuple[int, int]:
    """Return (height, width) as `read_picture` will give it, from the header alone; raises `Unreadable`."""
    if (size := plain_size(_head(file, HEADER_END), MAX_PIXELS)) is not None:
        return size
    if is_array(file):
        height, width, _ = view_picture(file).shape
        return height, width
    if is_bands(file):
        with _guarded(file):
            return bands_size(file)
    with opened(file) as image:
        width, height = image.size
        # Asking a PNG without early EXIF for it decodes the whole image; a TIFF's size is already turned.
        turned = image.format in ("JPEG", "MPO", "WEBP", "AVIF") and _orientation(image) >= 5
        return (width, height) if turned else (height, width)


@contextmanager
def opened(file: File) -> Iterator[Image.Image]:
    """Open an image of an allowed format and size; any error until it is closed becomes `Unreadable`."""
    with _guarded(file), file.open("rb") as stream, Image.open(stream, formats=_formats()) as image:
        if image.width * image.height > MAX_PIXELS:
            raise Unreadable(f"too large: {image.width}x{image.height}, more than {MAX_PIXELS:,} pixels")
        yield image


def is_array(file: File) -> bool:
    """Return whether a file begins as an .npy does; one that can't be read does not."""
    return _head(file, len(MAGIC)) == MAGIC


def _head(file: File, length: int) -> bytes:
    """The first bytes of a file; b"" of one that can't be read."""
    if isinstance(file, Blob):
        return file.data[:length]
    try:
        with file.open("rb", buffering=0) as stream:
            return stream.read(length) or b""
    except OSError:
        return b""


@contextmanager
def _guarded(file: File) -> Iterator[None]:
    """Turn any error into `Unreadable`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # bombs, damaged EXIF and unusual palettes are handled here
        try:
            yield
        except Unreadable:
            raise
        except UnidentifiedImageError:
            raise Unreadable(_what(file)) from None
        except Image.DecompressionBombError:
            raise Unreadable(f"too large: more than {MAX_PIXELS:,} pixels") from None
        except Exception as error:  # decoders raise any exception on hostile bytes
            raise Unreadable(_reason(error)) from None


def _in_memory(file: File) -> File:
    """A file of usual length as its bytes; a longer one as it is."""
    if isinstance(file, Blob):
        return file
    try:
        handle = os.open(file, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        try:
            length = os.fstat(handle).st_size
            data = os.read(handle, length) if length <= _IN_MEMORY else b""
        finally:
            os.close(handle)
    except OSError:  # decoding it reports why
        return file
    return Blob(data) if data and len(data) == length else file


@cache
def _formats() -> tuple[str, ...]:
    """The allowed formats that this build of Pillow has."""
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def _reason(error: Exception) -> str:
    """The reason for an exception: the system's own words, or a damaged file and the decoder's."""
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be read: {error.strerror}"
    return f"damaged: {printable(str(error) or type(error).__name__)[:80]}"


def _what(file: File) -> str:
    """Describe a file that is not an image of an allowed format."""
    try:
        with file.open("rb") as stream:
            head = stream.read(HEAD)
    except OSError as error:
        return _reason(error)
    if not head:
        return "an empty file"
    if other := foreign(head):
        name, way = other
        return f"not an image that is read here: {name}" + f" ({way})" * bool(way)
    is_text = all(byte >= 32 or byte in b"\t\r\n" for byte in head)
    return "not an image: text" if is_text else "not an image of an allowed format, or its header is damaged"


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 where there is none or it can't be read."""
    if image.format in ("PNG", "JPEG") and not _MAY_TURN & image.info.keys():
        return 1  # as for most images; reading EXIF costs a tenth of decoding
    try:
        value = image.getexif().get(Base.Orientation, 1)
    except Exception:  # damaged EXIF must not make the image unreadable
        return 1
    return value if value in _TURNS else 1


def _animated(image: Image.Image) -> bool:
    """Whether there are further frames or pages; damage beyond the first does not count."""
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception:  # only the first frame is used, and it is good
        return False


def _covered(image: Image.Image) -> bool:
    """Whether a TIFF's strips or tiles reach its lower right corner; Pillow leaves what they don't reach black."""
    tags = getattr(image, "tag_v2", {})  # the size as stored; `image.size` is turned already
    boxes = [box for _, box, *_ in getattr(image, "tile", ()) if box is not None]
    right, bottom = (max((box[side] for box in boxes), default=0) for side in (2, 3))
    return bool(right >= tags.get(256, 0) and bottom >= tags.get(257, 0))


def _ends_blank(image: Image.Image, pixels: Pixels) -> bool:
    """Whether one of the last two rows is all zero; of an interlaced picture the odd rows come last."""
    width, height = image.size
    # converted pixels (palettes, opacity) are checked before conversion
    same = image.mode in ("L", "RGB") and not image.has_transparency_data
    rows = pixels[-2:] if same else np.asarray(image.crop((0, max(0, height - 2), width, height)))
    return not all(row.any() for row in rows)


def _turned(pixels: Pixels, orientation: int) -> Pixels:
    """Undo an EXIF orientation (EXIF 2.3, tag 0x0112); an unknown one is ignored."""
    transpose, rows, columns = _TURNS.get(orientation, (0, 0, 0))
    pixels = pixels.swapaxes(0, 1) if transpose else pixels
    return pixels[:: -1 if rows else 1, :: -1 if columns else 1]


def _pixels(image: Image.Image) -> tuple[Pixels, bool]:
    """The pixels of a loaded image by the module's table of modes: (H, W, C), and whether the last is opacity."""
    mode = image.mode
    if mode.startswith("I;16") or mode == "I":
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise Unreadable("32-bit integers outside of 0 to 65535 (save them as floats, or with numpy.save)")
        return values.astype(np.uint16)[..., None], False
    if mode == "F":
        return finite(np.asarray(image))[..., None], False
    if image.has_transparency_data:
        return np.asarray((image.convert("LA") if mode == "La" else image).convert("RGBA")), True
    if mode in ("1", "L"):
        return np.asarray(image if mode == "L" else image.convert("L"))[..., None], False
    if mode in _PLAIN:
        return np.asarray(image if mode == "RGB" else image.convert("RGB")), False
    raise Unreadable(f"colour mode {mode} is not supported")
