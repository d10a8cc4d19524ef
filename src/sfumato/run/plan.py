"""The plan of a run: its length, and the steps after which grids are sampled and held-out losses taken."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Plan:
    """The planned length of a run, and what it was planned from.

    Attributes:
        steps: the same in steps of `batch` images, the last batch full.
        grids: number of sample grids.
        held_outs: number of held-out losses, besides the one before the first step.
        seconds: planned duration of the whole run; None, as the measured speeds, where none was measured.
    """

    images: int
    steps: int
    batch: int
    grids: int
    held_outs: int
    seconds: float | None = None
    images_per_second: float | None = None
    grid_seconds: float | None = None
    held_out_seconds: float | None = None

    @property
    def grid_steps(self) -> list[int]:
        """Steps after which a grid is sampled."""
        return geometric(self.steps, self.grids)

    @property
    def held_out_steps(self) -> list[int]:
        """Steps after which the held-out loss is taken."""
        return regular(self.steps, self.held_outs)


def geometric(steps: int, count: int, first: float = 1 / 32) -> list[int]:
    """Return geometrically spaced steps from `first` (a fraction of the run) to `steps`: most changes happen early.

    Fewer than `count` come back where two coincide in a short run.
    """
    if count <= 1:
        return [steps] * count
    return sorted({math.ceil(steps * first ** (1 - i / (count - 1))) for i in range(count)})


def regular(steps: int, count: int) -> list[int]:
    """Return 0 and `count` evenly spaced steps, the last of them `steps`; nothing for count = 0."""
    return sorted({math.ceil(steps * i / count) for i in range(count + 1)}) if count else []
