"""Pictures of arrays: a grid, and rows with labels.

Everything here takes bytes, `uint8 (N, C, H, W)`, as `codec.shown` returns them. One channel is shown as grey, three as
RGB; of any other number the first three are shown, or the first where there are two. A tile is enlarged by a whole
number k, without blur, so that the picture is about `WIDTH` pixels wide. A grid keeps its layout (`Layout`, in the
PNG's text), so `tiles` returns the very bytes from the file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from sfumato.errors import UserError

Bytes = NDArray[np.uint8]

WIDTH = 880
"""The intended width of a picture in pixels; it becomes 600 to 1000 for any tile."""
PAPER = 255
"""The grey level between and around the tiles."""
INK = (60, 60, 66)
"""The colour of labels."""
LAYOUT_KEY = "sfumato.layout"


@dataclass(frozen=True)
class Layout:
    """The layout of a grid, from which `tiles` cuts it: the gap of paper in source pixels, the scale as
    pixels of the picture for one source pixel, the shape (C, H, W) of one tile, C as shown (1 or 3)."""

    num: int
    columns: int
    gap: int
    scale: int
    shape: tuple[int, int, int]

    def corner(self, n: int) -> tuple[int, int]:
        """Return top and left of tile n, in source pixels."""
        row, column = divmod(n, self.columns)
        return self.gap + row * (self.shape[1] + self.gap), self.gap + column * (self.shape[2] + self.gap)

    def __str__(self) -> str:
        return " ".join(str(v) for v in (self.num, self.columns, self.gap, self.scale, *self.shape))

    @classmethod
    def parse(cls, text: str) -> Layout:
        """Return the layout of a text; raises ValueError where there is none."""
        num, columns, gap, scale, *shape = map(int, text.split())
        channels, height, width = shape
        return cls(num, columns, gap, scale, (channels, height, width))


def _shown(images: Any) -> Bytes:
    """Return images, uint8 (N, C, H, W) in any form that numpy reads, with the 1 or 3 channels that a picture shows."""
    array = np.asarray(images)
    assert array.dtype == np.uint8, f"pictures take bytes, not {array.dtype}: see Codec.shown"
    assert array.ndim == 4, f"pictures take (N, C, H, W), not {array.shape}"
    return array[:, :3] if array.shape[1] >= 3 else array[:, :1]


def scale_for(size: int, width: int = WIDTH) -> int:
    """Return the whole number k >= 1 that brings `size` source pixels nearest to `width`."""
    return max(1, round(width / max(1, size)))


def grid(images: Any, columns: int | None = None, gap: int = 1, scale: int | None = None) -> Image.Image:
    """Return images, uint8 (N, C, H, W), N >= 1, in a grid, left to right and top to bottom, `gap` source pixels apart.

    By default it is about square, and about `WIDTH` wide. Its `info` holds the `Layout` that `tiles` reads.
    """
    array = _shown(images)
    num, channels, height, width = array.shape
    assert num > 0, "a grid needs an image"
    columns = min(num, columns or int(np.ceil(np.sqrt(num * height / width))))
    scale = scale or scale_for(gap + columns * (width + gap))
    layout = Layout(num, columns, gap, scale, (channels, height, width))
    rows = -(-num // columns)
    canvas = np.full((channels, gap + rows * (height + gap), gap + columns * (width + gap)), PAPER, np.uint8)
    for n in range(num):
        top, left = layout.corner(n)
        canvas[:, top : top + height, left : left + width] = array[n]
    picture = _picture(canvas, scale)
    picture.info[LAYOUT_KEY] = str(layout)
    return picture


def single(image: Any) -> Image.Image:
    """Return one image, uint8 (C, H, W), as a picture of its own size."""
    return _picture(_shown(np.asarray(image)[None])[0], 1)


def tiles(picture: Image.Image) -> Bytes:
    """Return the images of a grid, uint8 (N, 1 or 3, H, W), from its picture or PNG file; raises
    `UserError` for any other picture."""
    try:
        layout = Layout.parse(str(picture.info[LAYOUT_KEY]))
    except (KeyError, ValueError):
        name = getattr(picture, "filename", "") or "this picture"
        raise UserError(f"{name} is not a grid that sfumato wrote: give one from a run's samples folder") from None
    pixels = np.atleast_3d(np.asarray(picture))[:: layout.scale, :: layout.scale].transpose(2, 0, 1)
    out = np.empty((layout.num, *layout.shape), np.uint8)
    for n in range(layout.num):
        top, left = layout.corner(n)
        out[n] = pixels[:, top : top + layout.shape[1], left : left + layout.shape[2]]
    return out


def strip(
    rows: Sequence[Any],
    labels: Sequence[str] = (),
    captions: Sequence[str] = (),
    scale: int | None = None,
    group: int = 0,
) -> Image.Image:
    """Return rows of images, each uint8 (N, C, H, W), with a label before each row and a caption above each column.

    A line break in a label makes two lines. By default the picture is about `WIDTH` wide. A wider space follows every
    `group` rows; 0 has no groups.
    """
    arrays = [_shown(row) for row in rows]
    num, _, height, width = arrays[0].shape
    scale = scale or scale_for(num * (width + 1))
    bodies = [grid(array, columns=num, scale=scale) for array in arrays]
    font = ImageFont.load_default(size=min(15.0, max(11.0, scale * width / 4.5)))
    pen = ImageDraw.Draw(bodies[0])
    left = _extent(pen, font, labels, 2) + (16 if labels else 0)
    above = _extent(pen, font, captions, 3) + (8 if captions else 0)
    pitch = scale * (height + 1)
    tops = [above + n * pitch + (n // group * 2 * scale if group else 0) for n in range(len(rows))]
    page = Image.new("RGB", (left + bodies[0].width, tops[-1] + bodies[0].height), (PAPER,) * 3)
    for top, body in zip(tops, bodies, strict=True):
        page.paste(body, (left, top))
    pen = ImageDraw.Draw(page)
    for top, text in zip(tops, labels, strict=False):
        centre = top + scale + scale * height // 2
        pen.multiline_text((left - 8, centre), text, INK, font, anchor="rm", align="right")
    for n, text in enumerate(captions):
        centre = left + scale + n * scale * (width + 1) + scale * width // 2
        pen.multiline_text((centre, above - 2), text, INK, font, anchor="md", align="center")
    return page


def evenly(length: int, count: int) -> list[int]:
    """Return at most `count` of the indices 0 .. length - 1, evenly spaced, with both ends."""
    count = min(length, max(2, count))
    return sorted({round(k * (length - 1) / (count - 1)) for k in range(count)}) if length > 1 else [0]


def _picture(pixels: Bytes, scale: int) -> Image.Image:
    """Return (C, H, W) bytes as a picture, every pixel a square of `scale`."""
    large = pixels.repeat(scale, axis=1).repeat(scale, axis=2)
    if len(large) == 1:
        return Image.fromarray(large[0])
    return Image.fromarray(np.ascontiguousarray(large.transpose(1, 2, 0)))


def _extent(pen: ImageDraw.ImageDraw, font: Any, texts: Sequence[str], side: int) -> int:
    """Return the greatest right (side 2) or bottom (side 3) edge of the texts, in pixels."""
    return int(max((pen.multiline_textbbox((0, 0), text, font=font)[side] for text in texts), default=0))
