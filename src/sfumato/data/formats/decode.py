"""One image file becomes pixels by stated rules; nothing here trusts the file.

What is read: the first frame of AVIF, BMP, GIF, JPEG, JPEG 2000, PNG, PPM, QOI, TIFF and WebP, and arrays as numpy
writes them (`arrays`), told by content and not by name. Everything else is `Unreadable`, as is anything of more than
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
    anything transparent     C = 3, a over the background b: (a p + (255 - a) b) / 255; or C = 4 (2), its opacity kept

Colour profiles are ignored. The orientation in EXIF is applied (Pillow itself applies a TIFF's). What becomes of depth,
channels and size afterwards is `fitting`'s affair.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor, UnidentifiedImageError
from PIL.ExifTags import Base

from sfumato.data.formats.fitting import converted, finite
from sfumato.data.formats.plain_png import read_plain
from sfumato.data.formats.png import read_sixteen, rows_missing
from sfumato.data.formats.tiff import bands_size, is_bands, read_bands
from sfumato.data.sources.arrays import array_size, is_array, read_array
from sfumato.data.sources.protocol import MAX_PIXELS, Blob, File, Picture, Pixels, Unreadable, printable

__all__ = ["MAX_PIXELS", "header_size", "opened", "read_opacity", "read_picture"]

_FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "QOI", "TIFF", "WEBP")
_PLAIN = ("RGB", "RGBX", "P", "CMYK", "YCbCr", "HSV")
# EXIF orientation -> (transpose, reverse rows, reverse columns), done in that order.
_TURNS = {2: (0, 0, 1), 3: (0, 1, 1), 4: (0, 1, 0), 5: (1, 0, 0), 6: (1, 0, 1), 7: (1, 1, 1), 8: (1, 1, 0)}
# What a file that is no image of ours begins with, to say what it is instead.
_OTHERS = (
    (b"%PDF", "a PDF"),
    (b"%!PS", "PostScript (EPS)"),
    (b"\xc5\xd0\xd3\xc6", "PostScript (EPS)"),
    (b"PK\x03\x04", "a zip archive"),
    (b"\x1f\x8b", "a gzip file"),
    (b"<svg", "an SVG drawing"),
    (b"<!doctype html", "an HTML page"),
    (b"<html", "an HTML page"),
)


def read_picture(path: File, background: str, native: bool = False, opacity: bool = False) -> Picture:
    """Decode a file's first frame, turned as its EXIF orientation says.

    Args:
        path: a regular file, or the bytes of one.
        background: the colour under transparent pixels.
        native: keep 16 bits and floats; else everything becomes bytes (`fitting.converted`).
        opacity: keep opacity as a last channel where the file has it, rather than lay the picture over the background.

    Returns:
        The picture, without a label.

    Raises:
        Unreadable: not an allowed format, too many pixels, damaged, or of a mode without a rule.
    """
    if isinstance(path, Blob) and (plain := read_plain(path.data)) is not None:
        return Picture(plain)
    if is_array(path):
        picture = read_array(path)
    elif is_bands(path):
        picture = _read_bands(path, background, opacity)
    else:
        picture = _read_image(path, background, opacity)
    return picture if native else replace(picture, pixels=converted(picture.pixels, "8"))


def _read_bands(path: File, background: str, opacity: bool) -> Picture:
    """Read a TIFF of many bands or of deep colour."""
    try:
        picture, orientation = read_bands(path)
    except Unreadable:
        raise
    except Exception as error:  # hostile bytes: Pillow's parser and zlib raise what they like
        raise Unreadable(_fault(error)) from None
    pixels, alpha = picture.pixels, picture.alpha and picture.pixels.dtype == np.uint16
    if alpha and not opacity:
        pixels, alpha = _over(pixels, background), False
    return replace(picture, pixels=_turned(pixels, orientation if orientation in _TURNS else 1), alpha=alpha)


def _read_image(path: File, background: str, opacity: bool) -> Picture:
    """Read an image that is no array."""
    with opened(path) as image:
        if image.format == "TIFF" and not _covered(image):
            raise Unreadable("damaged: its strips don't reach its last row")
        image.load()
        pixels, alpha = _pixels(image, path, background, opacity)
        if image.format == "PNG" and _ends_blank(image, pixels) and rows_missing(path):
            raise Unreadable("damaged: its data end before its last row")
        return Picture(_turned(pixels, _orientation(image)), animated=_animated(image), alpha=alpha)


def read_opacity(path: File) -> Pixels | None:
    """Return how opaque each pixel of a file's first frame is, turned as `read_picture` turns it.

    Returns:
        (H, W, 1) uint8, 0 where transparent; None where the file says nothing about transparency.

    Raises:
        Unreadable: as `read_picture`.
    """
    with opened(path) as image:
        image.load()
        if not image.has_transparency_data:
            return None
        return _turned(np.asarray(image.convert("RGBA"))[..., 3:], _orientation(image))


def header_size(path: File) -> tuple[int, int]:
    """Return (height, width) as `read_picture` will give it, from the header alone; raises `Unreadable`."""
    if is_array(path):
        return array_size(path)
    if is_bands(path):
        return _bands_size(path)
    with opened(path) as image:
        width, height = image.size
        # Asking a PNG without early EXIF for it decodes the whole image; a TIFF's size is already turned.
        turned = image.format in ("JPEG", "MPO", "WEBP", "AVIF") and _orientation(image) >= 5
        return (width, height) if turned else (height, width)


def _bands_size(path: File) -> tuple[int, int]:
    """The size of a TIFF of many bands, as it will be turned."""
    try:
        return bands_size(path)
    except Unreadable:
        raise
    except Exception as error:  # as reading it
        raise Unreadable(_fault(error)) from None


@cache
def _formats() -> tuple[str, ...]:
    """The allowed formats that this build of Pillow has."""
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


@contextmanager
def opened(path: File) -> Iterator[Image.Image]:
    """Open an image by the allow-list and the cap; whatever goes wrong until it is closed is `Unreadable`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of what is decided here: bombs, damaged EXIF, odd palettes
        try:
            with path.open("rb") as file, Image.open(file, formats=_formats()) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise Unreadable(f"too large: {image.width}x{image.height}, more than {MAX_PIXELS:,} pixels")
                yield image
        except Unreadable:
            raise
        except UnidentifiedImageError:
            raise Unreadable(_what(path)) from None
        except Image.DecompressionBombError:
            raise Unreadable(f"too large: more than {MAX_PIXELS:,} pixels") from None
        except Exception as error:  # decoders raise anything at all on hostile bytes
            raise Unreadable(_fault(error)) from None


def _fault(error: Exception) -> str:
    """The reason for an exception: the system's own words, or a damaged file and the decoder's."""
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be read: {error.strerror}"
    return f"damaged: {printable(str(error) or type(error).__name__)[:80]}"


def _what(path: File) -> str:
    """Say what a file is that holds no image of an allowed format."""
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        return _fault(error)
    if not head:
        return "an empty file"
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith(b"<?xml") and b"<svg" in start:
        return "not an image that is read here: an SVG drawing"
    for mark, name in _OTHERS:
        if start.startswith(mark.lower()):
            return f"not an image that is read here: {name}"
    is_text = all(byte >= 32 or byte in b"\t\r\n" for byte in head)
    return "not an image: text" if is_text else "not an image of an allowed format, or its header is damaged"


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 where there is none or it can't be read."""
    if image.format == "PNG" and not image.info:
        return 1  # nothing beside its pixels: most are so, and asking costs a tenth of reading them
    try:
        value = image.getexif().get(Base.Orientation, 1)
    except Exception:  # damaged EXIF of any kind must not cost the image
        return 1
    return value if value in _TURNS else 1


def _animated(image: Image.Image) -> bool:
    """Whether there are further frames or pages; damage beyond the first does not count."""
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception:  # the first frame is good, and only that is used
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
    # what became other pixels (palettes, opacity over a background) is looked at as it was
    same = image.mode in ("L", "RGB") and not image.has_transparency_data
    rows = pixels[-2:] if same else np.asarray(image.crop((0, max(0, height - 2), width, height)))
    return not all(row.any() for row in rows)


def _turned(pixels: Pixels, orientation: int) -> Pixels:
    """Undo an EXIF orientation (EXIF 2.3, tag 0x0112)."""
    if orientation == 1:
        return pixels
    transpose, rows, columns = _TURNS[orientation]
    pixels = pixels.swapaxes(0, 1) if transpose else pixels
    return pixels[:: -1 if rows else 1, :: -1 if columns else 1]


def _pixels(image: Image.Image, path: File, background: str, opacity: bool) -> tuple[Pixels, bool]:
    """The pixels of a loaded image by the module's table of modes: (H, W, C), and whether the last is opacity."""
    mode = image.mode
    if mode.startswith("I;16") or mode == "I":
        return _sixteen(np.asarray(image)), False
    if mode == "F":
        return finite(np.asarray(image))[..., None], False
    deep = read_sixteen(path) if image.format == "PNG" else None
    if deep is not None:
        clear = deep.shape[2] in (2, 4)
        return (deep, clear) if opacity or not clear else (_over(deep, background), False)
    if image.has_transparency_data:
        if opacity:
            return np.asarray(image.convert("RGBA")), True
        canvas = Image.new("RGBA", image.size, (*ImageColor.getrgb(background)[:3], 255))
        return np.asarray(Image.alpha_composite(canvas, image.convert("RGBA")).convert("RGB")), False
    if mode in ("1", "L"):
        return np.asarray(image if mode == "L" else image.convert("L"))[..., None], False
    if mode in _PLAIN:
        return np.asarray(image if mode == "RGB" else image.convert("RGB")), False
    raise Unreadable(f"colour mode {mode} has no rule")


def _sixteen(values: NDArray[np.integer]) -> Pixels:
    """(H, W) integers in 0 .. 65535 as uint16."""
    if values.min() < 0 or values.max() > 65535:
        raise Unreadable("32-bit integers beyond 0 to 65535")
    return values.astype(np.uint16)[..., None]


def _over(pixels: Pixels, background: str) -> Pixels:
    """16-bit grey or colour with opacity a, laid over a colour b: round( (a p + (65535 - a) b) / 65535 )."""
    ink, a = pixels[..., :-1].astype(np.float64), pixels[..., -1:] / 65535
    colour = 257.0 * np.array(ImageColor.getrgb(background)[:3])
    return np.rint(a * ink + (1 - a) * colour).astype(np.uint16)
