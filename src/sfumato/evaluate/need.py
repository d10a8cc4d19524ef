"""How many images a training has to see until its samples are close to the data: a rule fitted to measured runs.

The distance of `verdict` falls as a power of the images seen, so a run whose samples are at a distance d after n images
is taken to need

    n (d / CLOSE)^(1/SLOPE)

in all, and a run that has not begun what runs on images of its size needed (`typical`). docs/training.md ("How much is
needed") has the runs behind the figures. Both are estimates within a factor of two or three: a set with more variety
needs more, and only our small networks up to 32x32 pixels were measured.
"""

from __future__ import annotations

from sfumato.evaluate.features import Shape
from sfumato.evaluate.verdict import STEPS, Verdict, grade, rounded

CLOSE = STEPS[1]
"""The distance at which samples begin to be close to the data."""
FAULTY = grade(CLOSE)
"""The first grade that is not close to the data."""
SLOPE = 0.8
"""Exponent of the distance's fall with the images seen: 0.75 to 1.55 between runs of 3,000 and 9,000 images."""
TYPICAL = ((8, 6_000), (16, 8_000), (32, 20_000))
"""Images seen until the distance is `CLOSE`, by the side of the images: digits; faces; emoji (clothes: 16,000)."""
MEASURED = TYPICAL[-1][0]
"""The largest side that was measured."""
LONG = 20
"""Times what is typical after which a network is taken to be too small rather than a training too short."""


def needed(images: int, distance: float) -> int:
    """Return the images to be seen in all, by what `images` of them led to; at most a hundred times as many."""
    factor = (max(distance, CLOSE) / CLOSE) ** (1 / SLOPE)
    return rounded(images * min(factor, 100.0))


def enough(images: int, verdict: Verdict) -> int:
    """Return the images to be seen in all by a verdict after `images` of them, at least for half the distance: by its
    value, or where the samples may be close to the data already by the worst case, the upper end of its interval."""
    distance = verdict.distance
    return needed(images, max(distance.value if verdict.least >= FAULTY else distance.high, 2 * CLOSE))


def typical(shape: Shape) -> int:
    """Return the images that runs on images of a shape (C, H, W) needed; beyond `MEASURED` in proportion to the pixels,
    a guess."""
    side = max(shape[1:])
    for most, images in TYPICAL:
        if side <= most:
            return images
    return rounded(TYPICAL[-1][1] * (side / MEASURED) ** 2)


def worth(images: int, shape: Shape) -> str:
    """Return what a training on so many images of a shape (C, H, W) is likely to give, in a sentence."""
    enough, side = typical(shape), max(shape[1:])
    times = images / enough
    said = f"{times:,.0f} times" if times >= 10 else f"{times:.2g} times"
    whose = f"runs on images of {side}x{side} or so needed" if side <= MEASURED else f"is guessed for {side}x{side}"
    hope = "blotches are to be expected" if times < 0.5 else "more mostly sharpens detail" if times > 2 else ""
    return f"{said} what {whose} until samples were close to the data ({enough:,} images){hope and '; ' + hope}"
