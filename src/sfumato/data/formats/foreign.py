"""Formats that are not read here: their names by the first bytes, and how to make images or arrays of them.

A file is recognised by its content, as pictures are, so a wrong suffix does not mislead. The signatures are those of
the formats' specifications: ISO 14496-12 (`ftyp` and its brands), DICOM part 10 (`DICM` after 128 bytes), PKZIP's
APPNOTE, FITS 4.0, NIfTI-1, and so on.
"""

from __future__ import annotations

import re
import string

HEAD = 4096
"""How many bytes of a file are looked at."""

_FRAMES = "save its frames as PNG: ffmpeg -i FILE %06d.png"
_HEIC = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"})
_FILES: tuple[tuple[int, bytes, str, str], ...] = (  # offset, bytes, name, way out
    (128, b"DICM", "a DICOM file", "save its pixels: numpy.save('x.npy', pydicom.dcmread(FILE).pixel_array)"),
    (344, b"n+1\0", "a NIfTI volume", "save its slices with nibabel and numpy.save"),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file", "save its arrays: numpy.save('x.npy', h5py.File(FILE)[NAME][:])"),
    (0, b"MATLAB 5.0", "a MATLAB file", "save its arrays: numpy.save('x.npy', scipy.io.loadmat(FILE)[NAME])"),
    (0, b"SIMPLE  =", "a FITS file", "save its arrays: numpy.save('x.npy', astropy.io.fits.getdata(FILE))"),
    (0, b"NRRD000", "an NRRD volume", "save its slices with numpy.save"),
    (0, b"MM\0+", "a big-endian BigTIFF", "save it little-endian, or its arrays with numpy.save"),
    (0, b"8BPS", "a Photoshop drawing", "export it as PNG"),
    (0, b"gimp xcf", "a GIMP drawing", "export it as PNG"),
    (0, b"v/1\x01", "an OpenEXR picture", "save its floats with numpy.save"),
    (0, b"#?RADIANCE", "a Radiance HDR picture", "save its floats with numpy.save"),
    (0, b"\xff\x0a", "a JPEG XL picture", "convert it to PNG: djxl FILE x.png"),
    (4, b"JXL \r\n\x87\n", "a JPEG XL picture", "convert it to PNG: djxl FILE x.png"),
    (4, b"ftypcrx ", "a camera's raw file", "develop it and save it as 16-bit TIFF"),
    (4, b"ftyp", "a film", _FRAMES),
    (0, b"\x1a\x45\xdf\xa3", "a film", _FRAMES),
    (8, b"AVI ", "a film", _FRAMES),
    (0, b"PAR1", "a Parquet file", "give its own path"),
    (0, b"SQLite format 3", "a database", "write its pictures to files"),
    (0, b"Rar!", "a RAR archive", "unpack it, or pack it as zip or tar"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it, or pack it as zip or tar"),
    (0, b"\x28\xb5\x2f\xfd", "a Zstandard file", "unpack it"),
    (0, b"\x1f\x8b", "a gzip file", ""),
    (0, b"\xc5\xd0\xd3\xc6", "PostScript (EPS)", ""),
)
_TEXTS = {
    b"%pdf": "a PDF",
    b"%!ps": "PostScript (EPS)",
    b"<svg": "an SVG drawing",
    b"<!doctype html": "an HTML page",
    b"<html": "an HTML page",
}
TORCH = "a file of torch.save"
"""The name of torch's own files, which are zip archives too."""
ZIP = "a zip archive"
_PICKLE = "save its arrays with numpy.save, since a pickle can run any program"
_WAY = "save its tensors: numpy.save('x.npy', torch.load(FILE, weights_only=True).numpy())"


def foreign(head: bytes) -> tuple[str, str] | None:
    """Return a foreign format's name, with its article, and the way out of it in a few words, perhaps "", from the
    first `HEAD` bytes of a file, or all; None for bytes of no format that is known here."""
    if head.startswith(b"PK\3\4"):
        return _zipped(head[30 : 30 + int.from_bytes(head[26:28], "little")])
    brands = {head[k : k + 4] for k in (8, *range(16, min(64, len(head)), 4))} if head[4:8] == b"ftyp" else set()
    if brands & _HEIC and not brands & {b"avif", b"avis"}:
        return "a HEIC picture", "convert it to JPEG or PNG: heif-convert FILE x.png"
    if head[:1] == b"\x80" and head[1:2] in (b"\2", b"\3", b"\4", b"\5"):
        is_torch = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19." in head[:20]  # the magic number of torch's first format
        return (TORCH, _WAY) if is_torch else ("a pickle", _PICKLE)
    for offset, mark, name, way in _FILES:
        if head.startswith(mark, offset):
            return name, way
    start = head.lstrip(b"\xef\xbb\xbf" + string.whitespace.encode()).lower()
    start = b"<svg" if start.startswith(b"<?xml") and b"<svg" in start else start
    return next(((name, "") for mark, name in _TEXTS.items() if start.startswith(mark)), None)


def _zipped(first: bytes) -> tuple[str, str]:
    """The name of a zip archive by what it holds: the name of its first member, and what follows."""
    if re.match(rb"[^/]+/(\.?data\.pkl|\.format_version|byteorder|\.data/)", first):
        return TORCH, _WAY
    if re.match(rb"[^/]+\.npy", first):
        return "an .npz of arrays", "give its own path"
    return ZIP, ""
