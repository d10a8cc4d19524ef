"""Pictures for the survey's tests: in memory, or drawn, many and different."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageDraw

from sfumato.conditions.attributes import Attribute
from sfumato.data.sources.protocol import Picture, Unreadable


class Made:
    """Arrays as a source; what is no array is done instead of reading: raised, or called."""

    name = "made"

    def __init__(
        self, pictures: Sequence[object], classes: tuple[str, ...] = (), labels: Sequence[float] | None = None
    ) -> None:
        self.pictures = pictures
        self.attributes = (Attribute("class", classes),) if classes else ()
        self.labels = labels

    def __len__(self) -> int:
        return len(self.pictures)

    def origin(self, i: int) -> str:
        return f"made[{i}]"

    def size(self, i: int) -> tuple[int, int]:
        return self.read(i).pixels.shape[:2]  # type: ignore[return-value]

    def read(self, i: int) -> Picture:
        picture = self.pictures[i]
        if isinstance(picture, str):
            raise Unreadable(picture)
        if isinstance(picture, Callable):  # type: ignore[arg-type]
            picture()
        array = np.asarray(picture)
        return Picture(array if array.ndim == 3 else array[..., None], (self.labels[i],) if self.labels else ())

    def key(self) -> str:
        return "made"


def drawn(seed: int, size: tuple[int, int] = (80, 64)) -> Image.Image:
    """A picture of a dozen coloured shapes on a coloured ground; none is like another."""
    rng = np.random.default_rng(seed)
    width, height = size
    image = Image.new("RGB", size, tuple(int(v) for v in rng.integers(0, 256, 3)))
    pen = ImageDraw.Draw(image)
    for _ in range(12):
        x, y = rng.integers(0, width), rng.integers(0, height)
        w, h = rng.integers(4, width // 2), rng.integers(4, height // 2)
        colour = tuple(int(v) for v in rng.integers(0, 256, 3))
        (pen.ellipse if rng.random() < 0.5 else pen.rectangle)((int(x), int(y), int(x + w), int(y + h)), fill=colour)
    return image


def drawn_many(count: int, first: int = 0) -> list[np.ndarray]:
    """Different drawn pictures."""
    return [np.asarray(drawn(seed)) for seed in range(first, first + count)]
