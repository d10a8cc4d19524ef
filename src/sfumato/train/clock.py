"""The clock of training is images seen, and every length is told in it.

A step is a matter of the batch size; an epoch, of the data's; a second, of the machine. Images seen are none of those,
so warm-up, decay, the average's half-life and the moments when something is drawn all count images, and a plan made for
one batch size carries over to another. Step k of batch size B covers the positions k B .. (k + 1) B - 1 of the training
stream.

A length below 1 is a fraction of the planned length (an absolute length below one image would mean nothing), so that
the same configuration suits a two-minute budget and a week.
"""

from __future__ import annotations

import math

__all__ = ["moments", "regular"]


def moments(steps: int, count: int, first: float = 1 / 32) -> list[int]:
    """Return geometrically spaced steps, the last of them `steps`: most of what is to be seen happens early.

    Args:
        steps: length of the run in steps.
        count: how many moments; fewer come back where a short run makes two coincide.
        first: where the first one lies, as a fraction of the run.
    """
    if count <= 1:
        return [steps] * count
    return sorted({math.ceil(steps * first ** (1 - i / (count - 1))) for i in range(count)})


def regular(steps: int, count: int) -> list[int]:
    """Return 0 and `count` evenly spaced steps, the last of them `steps`; nothing for count = 0."""
    return sorted({math.ceil(steps * i / count) for i in range(count + 1)}) if count else []
