"""Images for the tests: in memory, or drawn, many and different."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageDraw

from sfumato.conditions.attributes import Attribute
from sfumato.data.sources.protocol import Picture, Unreadable
from sfumato.inspect.scan import Records, scan


class Made:
    """Arrays as a source; a string is the reason why an image is unreadable, a function is called."""

    name = "made"

    def __init__(
        self, images: Sequence[object], classes: tuple[str, ...] = (), labels: Sequence[float] | None = None
    ) -> None:
        self.images, self.labels = images, labels
        self.attributes = (Attribute("class", classes),) if classes else ()

    def __len__(self) -> int:
        return len(self.images)

    def origin(self, i: int) -> str:
        return f"made[{i}]"

    def size(self, i: int) -> tuple[int, int]:
        return self.read(i).pixels.shape[:2]  # type: ignore[return-value]

    def read(self, i: int) -> Picture:
        image = self.images[i]
        if isinstance(image, str):
            raise Unreadable(image)
        if isinstance(image, Callable):  # type: ignore[arg-type]
            image()
        array = np.asarray(image)
        return Picture(array if array.ndim == 3 else array[..., None], (self.labels[i],) if self.labels else ())

    def key(self) -> str:
        return "made"


def drawn(seed: int, size: tuple[int, int] = (80, 64)) -> Image.Image:
    """A dozen coloured shapes on a coloured ground, different for each seed."""
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


def drawn_many(count: int) -> list[np.ndarray]:
    return [np.asarray(drawn(seed)) for seed in range(count)]


def scanned(images: list[np.ndarray]) -> Records:
    records, _, faults = scan(Made(images), np.arange(len(images)), workers=0)
    assert not faults
    return records
