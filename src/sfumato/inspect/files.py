"""What a picture's file is called and what its header says, where the source is one of files.

The one place that knows how a source and `decode` name a file; sources of arrays have none, and then nothing is said of
formats and modes. Headers are opened through the same guards as the pictures (the list of allowed formats, the cap on
pixels).
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from sfumato.data.formats.decode import opened
from sfumato.data.formats.tiff import is_bands
from sfumato.data.sources.arrays import is_array
from sfumato.data.sources.files import FileSource
from sfumato.data.sources.folder import FolderSource
from sfumato.data.sources.protocol import Source

__all__ = ["FileFacts", "file_facts", "path_of"]

_FAMILY = {"MPO": "JPEG"}
"""Formats that go by the name of another."""


class FileFacts(NamedTuple):
    """What a header says.

    Attributes:
        format: of the content: PNG, JPEG, ...
        mode: Pillow's name for the kind of pixels: RGB, P, I;16, ...
        bits: a channel has.
        alpha: whether pixels can be transparent.
        misnamed: the suffix is that of another format.
    """

    format: str
    mode: str
    bits: int
    alpha: bool
    misnamed: bool


def path_of(source: Source, i: int) -> Path | None:
    """Return the path of picture i, None where pictures are no files of their own on the disk.

    Raises:
        Unreadable: listing already told why it can't be a picture.
    """
    return source.file(i) if isinstance(source, FolderSource) else None


def file_facts(source: Source, i: int) -> FileFacts | None:
    """Return what the header of picture i says, None where it has none; raises `Unreadable` as reading it would."""
    if not isinstance(source, FileSource):
        return None
    file = source.file(i)
    if is_array(file) or is_bands(file):
        return None
    with opened(file) as image:
        own = _FAMILY.get(image.format or "", image.format or "")
        named = _suffixes().get(Path(source.origin(i)).suffix.lower(), own)
        misnamed = _FAMILY.get(named, named) != own
        return FileFacts(own, image.mode, _bits(image), image.has_transparency_data, misnamed)


def _bits(image: Image.Image) -> int:
    """Bits a channel: by the mode, and where Pillow has only bytes for more, by the file's own word."""
    if image.mode in ("1", "F", "I"):
        return 1 if image.mode == "1" else 32
    if image.mode.startswith("I;16") or any(";16" in str(tile[3]) for tile in getattr(image, "tile", ())):
        return 16
    return 8


@cache
def _suffixes() -> dict[str, str]:
    """What suffixes promise; a suffix that several formats share promises nothing."""
    Image.init()
    shared = {".tif": "TIFF", ".tiff": "TIFF", ".jpg": "JPEG", ".jpeg": "JPEG", ".apng": "PNG"}
    return Image.registered_extensions() | shared
