"""The size of the training images, where the user gives none: chosen from the sizes in the pictures' headers."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Sequence

import numpy as np

from sfumato.config.data import LARGEST_SIDE
from sfumato.data.sources.protocol import Source, Unreadable

SIDES = (8, 12, 16, 24, 32, 48, 64)
"""The sides to choose from where the user gives no size."""
NEARLY_ALL = 0.9
"""The fraction of the pictures from which on their common size is kept, and the others are resized to it."""
MOST_HEADERS = 10_000
"""The size is chosen from those of at most this many pictures, evenly spaced."""


def choose_size(sizes: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], str]:
    """Choose the size of training images from those of the pictures; returns it, and a sentence with the reason.

    Where nearly all pictures have one size of at most 64, it is kept, and the others are resized to it. Strips and
    signals, whose median height or width is below 8 and less than half the other, keep both medians. Else the square is
    taken whose side is the largest of `SIDES` that the median of the pictures' shorter sides reaches; below 8, that
    median itself, and never 1.
    """
    first = sizes[0]
    alike = all(size == first for size in sizes)
    common, count = Counter(sizes).most_common(1)[0]
    if count >= NEARLY_ALL * len(sizes) and max(common) <= SIDES[-1]:
        what = f"size {common[0]}x{common[1]} (height x width)"
        if alike:
            return common, f"{what}: every picture has it"
        rest = "the other is" if len(sizes) - count == 1 else "the others are"
        return (
            common,
            f"{what}, as {count:,} of {len(sizes):,} pictures have it; {rest} resized; data.size=N sets another",
        )
    height, width = (min(LARGEST_SIDE, int(np.median(sides))) for sides in zip(*sizes, strict=True))
    if min(height, width) < SIDES[0] and 2 * min(height, width) < max(height, width):
        longest = max(map(max, sizes))
        cut = f"; the middle is cut out of longer ones, up to {longest:,}" if longest > max(height, width) else ""
        return (height, width), (
            f"size {height}x{width} (height x width), as strips or signals have it{cut}; data.size=N sets another"
        )
    median = int(np.median([min(size) for size in sizes]))
    side = max((side for side in SIDES if side <= median), default=median if median > 1 else SIDES[0])
    what = f"every picture is {first[0]}x{first[1]}" if alike else f"the pictures' median shorter side is {median}"
    return (side, side), f"size {side}x{side}, chosen since {what}; data.size=N sets another"


def header_sizes(source: Source) -> list[tuple[int, int]]:
    """Return the sizes of the pictures whose header can be read, of `MOST_HEADERS` where there are more."""
    sizes = []
    for i in np.linspace(0, len(source) - 1, min(len(source), MOST_HEADERS)).astype(int).tolist():
        with contextlib.suppress(Unreadable):  # reading it reports why
            sizes.append(source.size(i))
    return sizes or [(SIDES[-1], SIDES[-1])]
