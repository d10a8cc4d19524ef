"""Which images, and how they become training data. Nothing here imports torch."""

from __future__ import annotations

import math
from dataclasses import dataclass

from PIL import ImageColor

from sfumato.codec.format import DEPTHS
from sfumato.errors import UserError, nearest

LARGEST_SIDE = 4096
LARGEST_FLOAT = 3.4028235e38
"""The largest float32, rounded."""
MOST_CHANNELS = 1024
CROPS = ("center", "letterbox", "random")
RESAMPLES = ("lanczos", "nearest")


@dataclass(frozen=True)
class DataConfig:
    """Which images, and how they become training data; raises `UserError` for a value that can't be used.

    Attributes:
        source: a built-in name, or the path of a folder, an archive, an array or a table (docs/data.md lists all).
        size: (height, width) in pixels that every image is cropped and resized to; None chooses from the data.
        channels: 1 (grey), 3 (RGB), 2 or 4 (the same with opacity), or a number of bands; None takes 1 where every
            image is grey, 3 where at least one has colour, and the number of bands where there are others.
        depth: `8` or `16` bits a channel, or `float`; `auto` keeps 16 bits or floats where every image has them, and
            takes 8 bits otherwise.
        range: the values of floats that become -1 and 1; None takes the least and the greatest of all images. With it,
            depth `auto` is `float`. Values beyond it are kept unless `clamp`.
        percentiles: takes the range from these percentiles, 0 to 100, of the images' values, and clamps to it.
        clamp: clamp values to `range`.
        nodata: the value that marks missing data, or nan; `none` where there is none. Such pixels, and NaN, take the
            mean of their image's other pixels.
        resample: `lanczos` antialiases; `nearest` keeps values as they are, for label maps.
        crop: how an image of another shape is fitted: `center` cuts out a centred rectangle, `letterbox` keeps the
            whole image and fills the rest with the background, `random` cuts out another rectangle each time.
        flip: mirror each training image with probability 1/2, at every position of the stream.
        held_out: fraction of the images kept out of training, in [0, 1), chosen by content; a source with parts of its
            own (val and test beside train) keeps these, unless it is 0.
        labels: `none`; `source`, the source's own (sub-folders, labels of idx files, attributes of built-in
            images); or the path of a CSV or JSON Lines file, in the working folder or beside the images.
        attributes: which attributes to use, by name; () uses all.
        background: the colour behind transparent pixels: a CSS name or #rrggbb.
    """

    source: str = "faces"
    size: tuple[int, int] | None = None
    channels: int | None = None
    depth: str = "auto"
    range: tuple[float, float] | None = None
    crop: str = "center"
    flip: bool = False
    held_out: float = 0.05
    labels: str = "none"
    attributes: tuple[str, ...] = ()
    background: str = "white"
    percentiles: tuple[float, float] | None = None
    clamp: bool = False
    nodata: str = "none"
    resample: str = "lanczos"

    def __post_init__(self) -> None:
        sides = () if self.size is None else tuple(self.size)
        if self.size is not None and (len(sides) != 2 or not all(1 <= side <= LARGEST_SIDE for side in sides)):
            raise UserError(f"data.size is {self.size}: give height and width, each from 1 to {LARGEST_SIDE}")
        if self.channels is not None and not 1 <= self.channels <= MOST_CHANNELS:
            raise UserError(f"data.channels is {self.channels}: give 1 (grey), 3 (RGB), or up to {MOST_CHANNELS} bands")
        for name, choices in (("depth", ("auto", *DEPTHS)), ("crop", CROPS), ("resample", RESAMPLES)):
            if getattr(self, name) not in choices:
                raise UserError(f"data.{name} is '{getattr(self, name)}'{nearest(getattr(self, name), choices)}")
        if self.range is not None and self.depth in ("8", "16"):
            raise UserError(
                f"data.range is for floats, and data.depth is {self.depth}: leave it out, or set data.depth=float"
            )
        self._check_values()
        low, high = self.range or (0.0, 1.0)
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise UserError(f"data.range is {low:g},{high:g}: give a lower and a greater finite number")
        if not 0 <= self.held_out < 1:
            raise UserError(f"data.held_out is {self.held_out}: give a fraction from 0 to less than 1")
        if not self.labels.strip():
            raise UserError("data.labels is empty: give none, source, or the path of a CSV or JSON Lines file")
        if self.attributes and self.labels == "none":
            raise UserError("data.attributes chooses from labels, and data.labels is none: set it to source or a file")
        if len(set(self.attributes)) < len(self.attributes):
            raise UserError(f"data.attributes names one twice: {', '.join(self.attributes)}")
        try:
            ImageColor.getrgb(self.background)
        except ValueError:
            raise UserError(f"data.background is '{self.background}': give a colour such as white or #336699") from None

    def _check_values(self) -> None:
        """Refuse percentiles, clamps and marks that can't be used."""
        if self.percentiles is not None:
            if self.range is not None or self.depth in ("8", "16"):
                other = "data.range" if self.range is not None else f"data.depth={self.depth}"
                raise UserError(f"data.percentiles gives floats their range: leave it out, or leave out {other}")
            low, high = self.percentiles
            if not 0 <= low < high <= 100:
                raise UserError(f"data.percentiles is {low:g},{high:g}: give two from 0 to 100, such as 0.1,99.9")
        if self.clamp and self.range is None:
            raise UserError("data.clamp clamps to data.range: give that too (data.percentiles clamps by itself)")
        try:
            mark = 0.0 if self.nodata == "none" else float(self.nodata)
        except ValueError:
            mark = math.inf
        if abs(mark) > LARGEST_FLOAT:
            raise UserError(f"data.nodata is '{self.nodata}': give the number that marks missing data, nan, or none")

    @property
    def hole(self) -> float | None:
        """The mark for missing data as a number; None where there is none."""
        return None if self.nodata == "none" else float(self.nodata)

    @property
    def clamps(self) -> bool:
        """Whether values are clamped to their range."""
        return self.clamp or self.percentiles is not None

    @property
    def kind(self) -> str:
        """The depth, `float` where it is left open and a range is wanted."""
        floats = self.depth == "auto" and (self.range is not None or self.percentiles is not None)
        return "float" if floats else self.depth
